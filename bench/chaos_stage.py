"""What runs in a round of bench/chaos.py: Redis, workers under process managers, and producers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import psutil
from tests.labs.drains import Lab, Running, is_alive, open_lab
from tests.labs.masters import end_tree
from tests.labs.pm2 import Pm2
from tests.labs.servers import RedisServer, wait_until

from qctl import Queue
from qctl.errors import QctlError

QUEUE = "q"
# A job whose worker was killed runs again after at most the sum of these.
LOCK_MS = 4000
STALLED_MS = 1000
# Locks are renewed at half of their time.
STANDSTILL_S = 1.0
# Redis forgets nothing that it has acknowledged.
REDIS = ("--appendonly", "yes", "--appendfsync", "always", "--enable-debug-command", "yes")
CHILDREN = 2
# Fails for good at its first run; `retry-failed` lets it complete.
HOPELESS = "hopeless"


@dataclass(frozen=True)
class Hit:
    """What a fault did.

    Args:
        kind: the fault.
        began, over: when, in seconds since 1970.
        pids: processes whose jobs it may have cut short.
        whose: other processes whose jobs it may have cut short: "", "node" or "all".
    """

    kind: str
    began: float
    over: float
    pids: frozenset[int] = frozenset()
    whose: str = ""

    def explains(self, first: dict[str, Any], again: dict[str, Any]) -> bool:
        """Whether this is why a job that ran, by its row ``first``, was started once more."""
        if not (self.began <= again["at"] and first["at"] <= self.over):
            return False
        is_node = first["worker"] != "qctl"
        return (
            first["pid"] in self.pids or self.whose == "all" or (self.whose == "node" and is_node)
        )


class PythonProducer(threading.Thread):
    """Adds jobs of all kinds with qctl's Queue until it is stopped.

    Attributes:
        ids: of the jobs that were acknowledged.
        unsure: of a job that may have been added, because no reply came; at most one.
    """

    def __init__(self, url: str, chance: Random, every_s: float) -> None:
        super().__init__(daemon=True)
        self._queue = Queue(QUEUE, redis_url=url)
        self._chance = chance
        self._every_s = every_s
        self._stopping = threading.Event()
        self.ids: list[str] = []
        self.unsure: set[str] = set()

    def run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            job_id = f"p{number}"
            name, data, options = self._job()
            self.unsure.add(job_id)
            while not self._stopping.is_set():
                # With its id, a job can be added again if the first reply was lost.
                with contextlib.suppress(QctlError):
                    self._queue.add(name, data, job_id=job_id, **options)
                    self.ids.append(job_id)
                    self.unsure.discard(job_id)
                    break
                self._stopping.wait(0.05)
            self._stopping.wait(self._every_s)
        self._queue.close()

    def _job(self) -> tuple[str, dict[str, Any], dict[str, Any]]:
        # A few run so long that a drain waits for them.
        ms = self._chance.choice([self._chance.randint(5, 150)] * 14 + [1500])
        data: dict[str, Any] = {"ms": ms}
        match self._chance.randrange(8):
            case 0:
                return "prioritized", data, {"priority": 5}
            case 1:
                return "delayed", data, {"delay": 0.4}
            case 2:
                return "flaky", {**data, "fail_times": 1}, {"attempts": 3, "backoff": "fixed:200ms"}
            case 3:
                return HOPELESS, {**data, "fail_times": 1}, {}
            case _:
                return "plain", data, {}

    def stop(self) -> list[str]:
        self._stopping.set()
        if self.is_alive():
            self.join(20)
        return self.ids


class Clock(threading.Thread):
    """Notices when this machine stands still for so long that workers lose their locks.

    Attributes:
        gaps: from when to when it stood still, in seconds since 1970.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._stopping = threading.Event()
        self.gaps: list[tuple[float, float]] = []

    def run(self) -> None:
        before = time.time()
        while not self._stopping.wait(0.1):
            now = time.time()
            if now - before > STANDSTILL_S:
                self.gaps.append((before, now))
            before = now

    def stop(self) -> None:
        self._stopping.set()
        self.join(20)


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
        folder = str(Path(__file__).parent)
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
        words = ("worker", "start", "w", "chaos_app:worker", "--processes", str(CHILDREN))
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
