"""The app under a real systemd in a container; qctl runs in there too."""

from __future__ import annotations

import sys

from tests.labs.drains import SECRET, Lab, Running, kill
from tests.labs.node import HERE
from tests.labs.servers import wait_until
from tests.labs.systemd_container import Machine


class SystemdApp:
    """Instances of ``app@.service``, see ``ManagedApp``.

    Args:
        user: let the user's systemd run them.
    """

    shows_pids = True

    def __init__(self, lab: Lab, machine: Machine, *, user: bool = False) -> None:
        self._lab = lab
        self._machine = machine
        self._user = user
        self.target = f"systemd{'-user' * user}:app@*.service"

    def start(self, instances: int = 1, **env: object) -> None:
        """See ``ManagedApp``."""
        own = {"QUEUES": "q", "CONCURRENCY": 5, **env}
        self.unit("app@", own, instances=instances, Restart="always")
        for queue in str(own["QUEUES"]).split(","):
            self._lab.wait_workers(queue, instances)

    def unit(self, name: str, env: dict[str, object], **options: object) -> None:
        """Start a unit of worker.js, see ``Machine.unit``."""
        own = {"REDIS_PORT": self._lab.server.port, "SECRET_TOKEN": SECRET, **env}
        self._machine.unit(name, own, user=self._user, **options)  # type: ignore[arg-type]

    def pids(self) -> list[int]:
        """See ``ManagedApp``."""
        return self._machine.pids(str(HERE / "worker.js"))

    def start_qctl(self, *words: str) -> Running:
        """See ``ManagedApp``."""
        env = {"QCTL_REDIS_URL": self._lab.url}
        if self._lab.watch:
            env["QCTL_WATCH"] = self._lab.watch
        return self._machine.start_qctl(*words, env=env, quick=not self._lab.watch)

    def kill_qctl(self, running: Running) -> None:
        """See ``ManagedApp``."""
        (pid,) = self._machine.pids(sys.executable, "drain")
        kill(pid)
        wait_until(lambda: running.is_over, "docker exec to end")
        running.kill()
