"""An app of ours under a process manager of any kind: what the scenarios of all managers need."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import psutil

from tests.labs.docker_engine import Engine
from tests.labs.drains import SECRET, Lab, Running


class ManagedApp(Protocol):
    """worker.js under one manager.

    Attributes:
        target: how qctl names the app.
        shows_pids: whether qctl shows the pids of its processes.
    """

    target: str
    shows_pids: bool

    def start(self, instances: int = 1, **env: object) -> None:
        """Start the app and wait for its workers; ``env`` as in worker.js."""
        ...

    def pids(self) -> list[int]:
        """The pids, on this machine, of the Node processes that run now."""
        ...

    def start_qctl(self, *words: str) -> Running:
        """Start qctl where it can reach the manager."""
        ...

    def kill_qctl(self, running: Running) -> None:
        """SIGKILL to a qctl that ``start_qctl`` has started, and wait until it is gone."""
        ...


class Pm2App:
    """The app under PM2."""

    target = "pm2:app"
    shows_pids = True

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def start(self, instances: int = 1, **env: object) -> None:
        """See ``ManagedApp``."""
        options = {"queues": str(env.pop("QUEUES", "q")), "concurrency": env.pop("CONCURRENCY", 5)}
        # With PM2's agent, as PM2 starts apps by default.
        own: dict[str, Any] = {"options": {"pmx": True}}
        self._lab.app(instances=instances, **own, **options, **env)  # type: ignore[arg-type]

    def pids(self) -> list[int]:
        """See ``ManagedApp``."""
        return [row.pid for row in self._lab.pm2.rows("app") if row.pid]

    def start_qctl(self, *words: str) -> Running:
        """See ``ManagedApp``."""
        return self._lab.start(*words)

    def kill_qctl(self, running: Running) -> None:
        """See ``ManagedApp``."""
        running.kill()


class DockerApp:
    """The app as a Compose service; its containers share this machine's network.

    PID 1 is Node, which ignores SIGTERM: every restart ends with SIGKILL.
    """

    target = "docker:shop/worker"
    shows_pids = True

    def __init__(self, lab: Lab, engine: Engine) -> None:
        self._lab = lab
        self._engine = engine

    def start(self, instances: int = 1, **env: object) -> None:
        """See ``ManagedApp``."""
        queues = str(env.get("QUEUES", "q"))
        own = {"REDIS_PORT": self._lab.server.port, "QUEUES": queues, "CONCURRENCY": 5}
        self._engine.compose_service(
            "shop",
            "worker",
            instances,
            {**own, "SECRET_TOKEN": SECRET, **env},
            restart="always",
            stop_timeout=1,
            folders=[self._lab.folder],
        )
        for queue in queues.split(","):
            self._lab.wait_workers(queue, instances)

    def pids(self) -> list[int]:
        """See ``ManagedApp``."""
        names = self._engine.docker("ps", "--format={{.Names}}").split()
        return worker_pids([pid for name in names if (pid := self._engine.pid(name))])

    def start_qctl(self, *words: str) -> Running:
        """See ``ManagedApp``."""
        return self._lab.start(*words, env=self._engine.env)

    def kill_qctl(self, running: Running) -> None:
        """See ``ManagedApp``."""
        running.kill()


def worker_pids(parents: list[int]) -> list[int]:
    """The Node processes that run worker.js among some processes and their descendants."""
    found = []
    for pid in parents:
        try:
            process = psutil.Process(pid)
            family = [process, *process.children(recursive=True)]
            found += [each.pid for each in family if "worker.js" in " ".join(each.cmdline())]
        except psutil.Error:
            continue
    return found


def pid_numbers(pid: int) -> set[int]:
    """The pids of one process: on this machine, and inside each container around it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("NSpid:")]
    return set(map(int, line.split()[1:]))
