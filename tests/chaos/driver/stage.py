"""What runs in a round: Redis, workers under process managers, and producers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from threading import Lock
from typing import Any

import psutil

from qctl.connection.address import Client
from qctl.connection.connect import connect
from tests.chaos.driver.clock import Clock
from tests.chaos.driver.hits import Hit
from tests.chaos.driver.managers import MANAGERS, App
from tests.chaos.driver.marks import mark, marked
from tests.chaos.driver.producers import QUEUE, PythonProducer
from tests.chaos.driver.scenes import Scene
from tests.chaos.driver.servers import CLUSTER_PREFIX, SEVERAL, Several
from tests.labs.drains import Lab, Running, cmdline, is_alive, open_lab
from tests.labs.masters import end_tree
from tests.labs.pm2 import Pm2
from tests.labs.servers import RedisServer, wait_until
from tests.labs.unsteady_proxy import UnsteadyProxy

# A job whose worker was killed runs again after at most the sum of these.
LOCK_MS = 4000
STALLED_MS = 1000
LOCK_S = (LOCK_MS + STALLED_MS) / 1000
CHILDREN = 2
# If its connection is cut while it closes, a worker of BullMQ often never exits.
STUCK_S = 12.0
# qctl's commands have a user of their own, whose rights can be taken away.
QCTL_USER = "qctl"
_COMMON = (
    *("--enable-debug-command", "yes"),
    *("--user", QCTL_USER, "on", ">pw", "~*", "&*", "+@all"),
)
_ALWAYS = ("--appendonly", "yes", "--appendfsync", "always", *_COMMON)
# The kinds of Redis. "always" forgets nothing that it has acknowledged, "everysec" what it was sent
# in the last two seconds, "none" everything. Of "proxied", qctl and its workers use a proxy.
REDIS: dict[str, tuple[str, ...]] = {
    "always": _ALWAYS,
    "everysec": ("--appendonly", "yes", "--appendfsync", "everysec", *_COMMON),
    "none": _COMMON,
    "proxied": _ALWAYS,
    "sentinel": _ALWAYS,
    "cluster": _ALWAYS,
}
# Those of one server, which no other server watches.
ALONE = frozenset({"always", "everysec", "none", "proxied"})
FLAGS = ("crash", "exit", "boot", "hang", "clock")


class Stage:
    """All of a round.

    Attributes:
        app: the Node workers and their manager.
        version: of BullMQ, 5 or 6.
        hits: what the faults did so far.
        repairs: runs that the repair itself cut short.
        beside: the words of other commands of qctl that ran beside those of the round, and each.
        stopped: processes that got SIGSTOP and no SIGCONT.
        completions: when each job has completed by its events, in seconds since 1970, as far as
            they are read.
        proxy: between Redis and qctl with its workers; None if there is none.
        redis_turn: held by a fault that stops Redis, until it runs again.
    """

    def __init__(
        self, lab: Lab, scene: Scene, chance: Random, token: str, several: Several | None
    ) -> None:
        self.lab = lab
        self.server = lab.server
        self._several = several
        self.scene = scene
        self.version = scene.version
        self.app: App = MANAGERS[scene.manager](lab, scene.instances)
        self.hits: list[Hit] = []
        self.repairs: list[Hit] = []
        self.beside: list[tuple[tuple[str, ...], Running]] = []
        self.stopped: set[int] = set()
        self.redis_turn = Lock()
        self.completions: dict[str, list[float]] = {}
        self._last_event = "-"
        self._token = token
        self.ledger = lab.folder / "ledger"
        self.ledger.touch()
        # A socket's path must be short.
        self.state = Path(tempfile.mkdtemp(prefix="qc-", dir="/tmp"))
        self.proxy = UnsteadyProxy(self.server.port) if scene.redis == "proxied" else None
        self.clock = Clock()
        self.clock.start()
        self._python = PythonProducer(lab.url, lab.prefix, Random(chance.random()), 0.06)

    def flag(self, name: str) -> Path:
        """The file that workers look for, one of FLAGS."""
        return self.lab.folder / name

    @property
    def app_env(self) -> dict[str, str]:
        return {
            "LEDGER": str(self.ledger),
            "LOCK_MS": str(LOCK_MS),
            "STALLED_MS": str(STALLED_MS),
            "MAX_STALLED": "1000",
            "CRASH_MS": "150",
            "CRASH_IF": str(self.flag("crash")),
            "EXIT_IF": str(self.flag("exit")),
            "BOOT_MS": "3000",
            "BOOT_IF": str(self.flag("boot")),
            "HANG_IF": str(self.flag("hang")),
            "CLOCK_STEP": str(self.flag("clock")),
        }

    @property
    def qctl_env(self) -> dict[str, str]:
        """What qctl needs to find all workers."""
        folder = str(Path(__file__).parents[3])
        # Not from the environment of this program: `qctl worker` shows where an app was started.
        own = {"XDG_STATE_HOME": str(self.state), "PYTHONPATH": folder}
        url = {"QCTL_REDIS_URL": self._url(f"{QCTL_USER}:pw@"), "QCTL_PREFIX": self.lab.prefix}
        return {**own, **url, **self.app_env, **self.app.qctl_env()}

    def _url(self, user: str = "") -> str:
        """The URL that qctl uses, with a user and its password."""
        url = self.lab.url.replace("://", f"://{user}")
        return (
            url if not self.proxy else url.replace(f":{self.server.port}/", f":{self.proxy.port}/")
        )

    def start(self) -> None:
        """Start the workers, then the producers."""
        self.app.start(
            {
                "BULLMQ": self.version,
                "REDIS_PORT": self.server.port,
                "REDIS_NODES": self._several.node_env if self._several else "",
                "PREFIX": self.lab.prefix,
                "QUEUES": QUEUE,
                "CONCURRENCY": 3,
                "HANDLE_SIGINT": 1,
                "HANDLE_SIGTERM": 1,
                "HANDLE_SIGUSR2": 1,
                "RECONNECT_MS": 200,
                **self.app_env,
            }
        )
        self.start_master()
        wait_until(self._has_all_workers, "all workers to be up", timeout_s=60, every_s=0.1)
        # With ids of their own, jobs are added once although a reply may be lost.
        self._node = self.lab.producer(version=self.version, EVERY_MS=100, JOB_MS=50, MIX=1, IDS=1)
        self._node.wait_ids(1)
        self._python.start()

    def start_master(self) -> None:
        app = "tests.chaos.driver.app:worker"
        words = ("worker", "start", "w", app, "--processes", str(CHILDREN))
        done = self.lab.qctl(*words, env={**self.qctl_env, "QCTL_REDIS_URL": self._url()})
        if done.code:
            raise RuntimeError(f"qctl worker start: {done.err}")

    def qctl(self, *words: str) -> Running:
        """Start qctl with what it needs to find all workers."""
        return self.lab.start(*words, env=self.qctl_env)

    def start_beside(self, *words: str) -> Running:
        """Start what another operator does with qctl."""
        running = self.qctl(*words)
        self.beside.append((words, running))
        return running

    @property
    def standstills(self) -> list[Hit]:
        """When the machine stood still, which cuts runs short as a fault does."""
        return [
            Hit(began, over + LOCK_S, whose="all", kind="standstill")
            for began, over in self.clock.gaps
        ]

    @property
    def several(self) -> Several:
        """The servers of this round that watch each other."""
        assert self._several is not None, "the scene has one Redis"
        return self._several

    @contextlib.contextmanager
    def admin(self) -> Iterator[Client]:
        """A connection of one's own to the Redis that has the queue."""
        server = self._several.in_charge() if self._several else self.server
        with contextlib.closing(connect(server.url)[1]) as client:
            yield client

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
        """The pids of the Node workers that their manager knows."""
        return self.app.pids()

    def processes(self) -> Counter[str]:
        """How many processes of each part of the stage run."""
        parts = ("worker.js", "runtime.processes.background", "runtime.processes.child",
                 "ops.drain.watchdog", "bull.js", "pm2_start.js", "God Daemon", "supervisord",
                 "redis-server", "forked_qctl.py")  # fmt: skip
        return Counter(
            next((part for part in parts if part in line), line)
            for line in (" ".join(cmdline(process)) for process in marked(self._token))
        )

    def stop_for(self, pid: int, seconds: float) -> bool:
        """Let a process stand still for a while; False if it is gone."""
        self.stopped.add(pid)
        try:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(seconds)
            with contextlib.suppress(ProcessLookupError):
                if is_alive(pid):
                    os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            return False
        finally:
            self.stopped.discard(pid)
        return True

    # Its end

    def heal(self) -> None:
        """Undo all faults, and do what systemd or an operator would do: start what has ended."""
        self._continue()
        for name in FLAGS:
            self.flag(name).unlink(missing_ok=True)
        if self._several:
            self._several.heal()
            self.lab.client.close()
        elif not self.server.is_running:
            self.lab.bring_redis_back()
        if not self.app.daemon:
            self._end_orphans()
        until = time.monotonic() + STUCK_S
        while not self._has_all_workers() and time.monotonic() < until:
            time.sleep(0.2)
        if time.monotonic() > until and self._count_node_workers() < self.scene.instances:
            self._end(self.app.pids())
        wait_until(self._has_all_workers, "all workers to be up", timeout_s=60, every_s=0.2)

    def _count_node_workers(self) -> int:
        return self.lab.count_workers(QUEUE) - len(self.children())

    def _continue(self) -> None:
        for pid in self.stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.stopped.clear()

    def _end_orphans(self) -> None:
        """End the workers of a manager that was killed, as an operator would."""
        self._end(
            [process.pid for process in marked(self._token, lambda line: "worker.js" in line)]
        )

    def _end(self, pids: Sequence[int]) -> None:
        began = time.time()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, pids)), "killed workers to be gone")
        self.repairs.append(Hit(began, time.time(), frozenset(pids)))

    def _has_all_workers(self) -> bool:
        # A master that got SIGTERM ends when its jobs have.
        if not self.master:
            self.start_master()
        if len(self.app.pids()) < self.scene.instances:
            self.app.repair()
        connected = self.lab.count_workers(QUEUE, self.lab.prefix)
        wanted = self.scene.instances + CHILDREN
        # In a cluster, a worker of BullMQ has connections to several nodes.
        is_in_cluster = self.scene.redis == "cluster"
        return (
            connected >= wanted if is_in_cluster else connected == wanted
        ) and self.app.calls_all_online()

    def acknowledged(self) -> tuple[dict[str, float], set[str]]:
        """Stop the producers; when each job was acknowledged; those that may have been added."""
        node_ids = self._node.stop()
        found = dict(zip(node_ids, self._node.times, strict=True))
        return {**self._python.stop(), **found}, {*self._python.unsure, f"n{len(node_ids) + 1}"}

    def read_events(self) -> None:
        """Read the events since the last time: BullMQ keeps about 10,000."""
        key = self.lab.keys(QUEUE)("events")
        with contextlib.closing(connect(self.lab.url)[1]) as client:
            events = client.call("XRANGE", key, self._last_event, "+")
        for event_id, flat in events:
            self._last_event = f"({event_id}"
            event = dict(zip(flat[::2], flat[1::2], strict=True))
            if event["event"] == "completed":
                at_ms = int(event_id.partition("-")[0])
                self.completions.setdefault(event["jobId"], []).append(at_ms / 1000)

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
        self._continue()
        self.app.close()
        if self.proxy:
            self.proxy.close()
        if master := self.master:
            end_tree(master)
        shutil.rmtree(self.state, ignore_errors=True)


@contextlib.contextmanager
def open_stage(scene: Scene, folder: Path, chance: Random) -> Iterator[Stage]:
    """A stage on a Redis of its own; ends all processes that were started on it."""
    token = mark()
    with contextlib.ExitStack() as stack:
        stack.callback(_end_marked, token)
        several = None
        options = REDIS[scene.redis]
        if scene.redis in SEVERAL:
            several = stack.enter_context(SEVERAL[scene.redis](folder, options))
            server, url = several.in_charge(), several.url
            # For the clients of BullMQ that the lab starts.
            os.environ["REDIS_NODES"] = several.node_env
        else:
            server = RedisServer(folder / "redis", *options).start()
            stack.callback(server.stop)
            url = server.url
        pm2 = Pm2()
        stack.callback(pm2.kill)
        lab = stack.enter_context(open_lab(pm2, server, folder, url))
        if scene.redis == "cluster":
            lab.prefix = CLUSTER_PREFIX
        # As an operator has it: new workers are watched for longer than in the other tests.
        lab.watch = "1s"
        stage = Stage(lab, scene, chance, token, several)
        stack.callback(stage.close)
        stage.start()
        yield stage


def _end_marked(token: str) -> None:
    """End what is left: watchdogs try for a day to reach a Redis that is gone."""
    for process in marked(token):
        with contextlib.suppress(psutil.Error):
            process.kill()
