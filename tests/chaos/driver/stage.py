"""What runs in a round: Redis, workers under process managers, and producers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import psutil

from tests.chaos.driver.clock import Clock
from tests.chaos.driver.hits import Hit
from tests.chaos.driver.producers import QUEUE, PythonProducer
from tests.labs.drains import Lab, Running, is_alive, open_lab
from tests.labs.masters import end_tree
from tests.labs.pm2 import Pm2
from tests.labs.servers import RedisServer, wait_until

# A job whose worker was killed runs again after at most the sum of these.
LOCK_MS = 4000
STALLED_MS = 1000
# Redis forgets nothing that it has acknowledged.
REDIS = ("--appendonly", "yes", "--appendfsync", "always", "--enable-debug-command", "yes")
CHILDREN = 2


class Stage:
    """All of a round.

    Args:
        version: of BullMQ, 5 or 6.
        instances: of the Node app.

    Attributes:
        hits: what the faults did so far.
        stopped: processes that got SIGSTOP and no SIGCONT.
    """

    def __init__(self, lab: Lab, pm2: Pm2, chance: Random, version: int, instances: int) -> None:
        self.lab = lab
        self.server = lab.server
        self.pm2 = pm2
        self.chance = chance
        self.version = version
        self.instances = instances
        self.hits: list[Hit] = []
        self.stopped: set[int] = set()
        self.ledger = lab.folder / "ledger"
        self.ledger.touch()
        # A socket's path must be short.
        self.state = Path(tempfile.mkdtemp(prefix="qc-", dir="/tmp"))
        self.clock = Clock()
        self.clock.start()
        self._python = PythonProducer(lab.url, Random(chance.random()), 0.03)

    @property
    def app_env(self) -> dict[str, str]:
        return {
            "LEDGER": str(self.ledger),
            "LOCK_MS": str(LOCK_MS),
            "STALLED_MS": str(STALLED_MS),
            "MAX_STALLED": "1000",
        }

    @property
    def qctl_env(self) -> dict[str, str]:
        """What qctl needs to find its own workers."""
        folder = str(Path(__file__).parents[3])
        # Not from the environment of this program: `qctl worker` shows where an app was started.
        return {"XDG_STATE_HOME": str(self.state), "PYTHONPATH": folder, **self.app_env}

    def start(self) -> None:
        """Start the workers, then the producers."""
        self.start_app()
        self.start_master()
        self._node = self.lab.producer(version=self.version, EVERY_MS=60, JOB_MS=50, MIX=1)
        self._node.wait_ids(1)
        self._python.start()

    def start_app(self) -> None:
        self.lab.app(
            version=self.version,
            instances=self.instances,
            concurrency=3,
            HANDLE_SIGINT=1,
            HANDLE_SIGTERM=1,
            RECONNECT_MS=200,
            options={"kill_timeout": 10_000, "pmx": True},
            **self.app_env,
        )

    def start_master(self) -> None:
        app = "tests.chaos.driver.app:worker"
        words = ("worker", "start", "w", app, "--processes", str(CHILDREN))
        done = self.lab.qctl(*words, env=self.qctl_env)
        if done.code:
            raise RuntimeError(f"qctl worker start: {done.err}")

    def qctl(self, *words: str) -> Running:
        """Start qctl with what it needs to find all workers."""
        return self.lab.start(*words, env=self.qctl_env)

    def _has_all_workers(self) -> bool:
        # A master that got SIGTERM ends when its jobs have.
        if not self.master:
            self.start_master()
        return self.lab.count_workers(QUEUE) == self.instances + CHILDREN

    @property
    def standstills(self) -> list[Hit]:
        """When the machine stood still, which cuts runs short as a fault does."""
        late_s = (LOCK_MS + STALLED_MS) / 1000
        return [
            Hit("standstill", began, over + late_s, whose="all") for began, over in self.clock.gaps
        ]

    # Who runs

    @property
    def master(self) -> int:
        """The pid of qctl's master; 0 if it is gone."""
        for path in (self.state / "qctl" / "workers").glob("*/state.json"):
            with contextlib.suppress(ValueError, OSError):
                pid = int(json.loads(path.read_text())["pid"])
                return pid if is_alive(pid) else 0
        return 0

    def children(self) -> list[int]:
        """The pids of qctl's worker processes."""
        found: list[int] = []
        if master := self.master:
            with contextlib.suppress(psutil.Error):
                found = [p.pid for p in psutil.Process(master).children()]
        return [pid for pid in found if is_alive(pid)]

    def workers(self) -> list[int]:
        """The pids of the Node workers."""
        return [row.pid for row in self.pm2.rows("app") if is_alive(row.pid)]

    # Its end

    def heal(self) -> None:
        """Undo all faults, and do what systemd or an operator would do: start what has ended."""
        for pid in self.stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.stopped.clear()
        if not self.server.is_running:
            self.lab.bring_redis_back()
        rows = self.pm2.rows("app")
        if not rows:
            self.start_app()
        elif any(row.status in {"errored", "stopped"} for row in rows):
            self.pm2.run("restart", "app")
        wait_until(self._has_all_workers, "all workers to be up", timeout_s=60, every_s=0.1)

    def acknowledged(self) -> tuple[list[str], set[str]]:
        """Stop the producers; ids of all jobs that were added, and those that may have been."""
        return [*self._python.stop(), *self._node.stop()], self._python.unsure

    def is_idle(self) -> bool:
        """Whether no job waits, runs or is delayed."""
        keys = self.lab.keys(QUEUE)
        places = ("wait", "paused", "active", "prioritized", "delayed")
        return not self.lab.client.call("EXISTS", *map(keys, places))

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """The ledger: what was noted about each job, in order."""
        found: dict[str, list[dict[str, Any]]] = {}
        rows = [json.loads(line) for line in self.ledger.read_text().splitlines()]
        for row in sorted(rows, key=lambda row: (row["at"], row["ats"])):
            found.setdefault(row["id"], []).append({**row, "at": row["at"] / 1000})
        return found

    def close(self) -> None:
        """End what the lab does not end."""
        self._python.stop()
        self.clock.stop()
        for pid in self.stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        if master := self.master:
            end_tree(master)
        shutil.rmtree(self.state, ignore_errors=True)


@contextlib.contextmanager
def open_stage(
    pm2: Pm2, server: RedisServer, folder: Path, chance: Random, version: int, instances: int
) -> Iterator[Stage]:
    """A stage on an empty Redis; closes all that was started on it."""
    folder.mkdir()
    with open_lab(pm2, server, folder) as lab:
        # As an operator has it: new workers are watched for longer than in the other tests.
        lab.watch = "1s"
        lab.client.call("FLUSHALL")
        stage = Stage(lab, pm2, chance, version, instances)
        try:
            stage.start()
            yield stage
        finally:
            stage.close()
