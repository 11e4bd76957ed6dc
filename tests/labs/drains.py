"""A place to drain in: apps under PM2, producers, qctl as its own process, and the proof.

The proof is what the workers themselves wrote down (``runs:<queue>``, see processor.js), not what
qctl reports.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import list_workers
from tests.labs.forked_qctl import ForkedQctl
from tests.labs.node import NodeBull, node_env, runs
from tests.labs.pm2 import Pm2
from tests.labs.servers import RedisServer, wait_until

# In the environment of every app; must never come out of any qctl.
SECRET = "do-not-show-hunter2"  # noqa: S105 - a test value
STATES = {
    "LPOS": ("wait", "paused", "active"),
    "ZSCORE": ("prioritized", "delayed", "completed", "failed", "waiting-children"),
}
# A watchdog undoes what a killed qctl left behind within this time.
PUT_RIGHT_S = 5.0
QCTL_TIMEOUT_S = 60.0
_QUICK_QCTL = Path(__file__).with_name("quick_qctl.py")


@dataclass(frozen=True)
class Done:
    """A qctl that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object of ``--json``."""
        lines = self.out.splitlines()
        assert len(lines) == 1, f"not one line of JSON: {self.out!r}; stderr: {self.err}"
        answer: dict[str, Any] = json.loads(lines[0])
        return answer

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The objects of ``--output ndjson``."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def step_names(self) -> list[str]:
        return [step["step"] for step in self.steps]

    @property
    def report(self) -> dict[str, Any]:
        """The last object, of JSON and of NDJSON alike."""
        assert self.out, f"nothing on stdout; exit code {self.code}; stderr: {self.err}"
        answer: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return answer


def qctl_command(*words: str, quick: bool) -> list[str]:
    """A call of qctl.

    Args:
        quick: start a restart with the short times of ``quick_qctl.py``.
    """
    if quick and is_restart(words):
        return [sys.executable, "-P", str(_QUICK_QCTL), *words]
    return [sys.executable, "-m", "qctl", *words]


def is_restart(words: Sequence[str]) -> bool:
    """Whether a command may restart workers."""
    return words[:1] in {("drain",), ("restart",)}


class Running:
    """A qctl at work; its lines are read as they come.

    Attributes:
        began: when it was started, in seconds since 1970.
        arrivals: when each line of stdout came, in seconds since 1970.
    """

    def __init__(self, process: subprocess.Popen[str] | ForkedQctl) -> None:
        self._process = process
        self.began = time.time()
        self._out: list[str] = []
        self._err: list[str] = []
        self.arrivals: list[float] = []
        self._watchdogs: set[int] = set()
        self._threads = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self._process.stdout, self._out), (self._process.stderr, self._err))
        ]
        for thread in self._threads:
            thread.start()

    @classmethod
    def qctl(
        cls, words: Sequence[str], env: Mapping[str, str], folder: Path, *, quick: bool = False
    ) -> Running:
        """Start qctl.

        Args:
            quick: start a restart with the short times of ``quick_qctl.py``.
        """
        return cls(ForkedQctl(words, env, folder, quick=quick and is_restart(words)))

    @classmethod
    def program(cls, command: Sequence[str], env: Mapping[str, str], folder: Path) -> Running:
        """Start a program that starts qctl."""
        process = subprocess.Popen(
            command, env=env, cwd=folder, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        return cls(process)

    def _read(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            if lines is self._out:
                self.arrivals.append(time.time())
            lines.append(line)
        stream.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return "".join(self._out)

    @property
    def remarks(self) -> str:
        """What it has written on stderr so far."""
        return "".join(self._err)

    def steps(self) -> list[dict[str, Any]]:
        """The steps printed so far (NDJSON)."""
        return [json.loads(line) for line in list(self._out)]

    def await_step(self, name: str, **fields: Any) -> dict[str, Any]:
        """The first step of this name and these fields, as soon as it is printed (NDJSON)."""
        return self.await_steps(1, name, **fields)[0]

    def await_steps(self, count: int, name: str, **fields: Any) -> list[dict[str, Any]]:
        """The first ``count`` of them."""
        deadline = time.monotonic() + QCTL_TIMEOUT_S
        while time.monotonic() < deadline:
            ended = self.is_over
            if ended:
                self._join()
            found = [s for s in self.steps() if s["step"] == name and fields.items() <= s.items()]
            if len(found) >= count or ended:
                break
            time.sleep(0.005)
        if len(found) < count:
            output = f"{''.join(self._out)}{''.join(self._err)}"
            pytest.fail(f"not {count} steps {name} {fields}: {output}")
        self._find_watchdogs()
        return found[:count]

    @property
    def watchdog_pid(self) -> int:
        """The pid of its watchdog."""
        return wait_until(self._find_watchdogs, "qctl to have a watchdog")

    def _find_watchdogs(self) -> int:
        """The pid of its watchdog, which ends with it; 0 if it has none."""
        pids = self.watchdog_pids()
        self._watchdogs.update(pids)
        return pids[0] if pids else 0

    def watchdog_pids(self) -> list[int]:
        """The pids of its watchdogs that live."""
        children: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self.pid).children()
        return [c.pid for c in children if "qctl.ops.drain.watchdog" in " ".join(cmdline(c))]

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.wait(10)
        self._join()

    def finish(self, timeout_s: float = QCTL_TIMEOUT_S) -> Done:
        """Wait for its end."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"qctl did not end within {timeout_s:g} s: {self.said}{self.remarks}")
        self._join()
        done = Done(code, "".join(self._out), "".join(self._err))
        assert SECRET not in done.out + done.err
        return done

    def close(self) -> None:
        if not self.is_over:
            # Give it a chance to undo what it did.
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
        self.kill()
        self._end_watchdogs()
        assert SECRET not in "".join(self._out + self._err)

    def _end_watchdogs(self) -> None:
        """A watchdog may still wait for a Redis that never comes back."""
        for pid in filter(is_alive, self._watchdogs):
            process = psutil.Process(pid)
            # The system may have given the pid to another process.
            if "qctl.ops.drain.watchdog" in " ".join(cmdline(process)):
                process.kill()

    def _join(self) -> None:
        for thread in self._threads:
            thread.join(10)


def cmdline(process: psutil.Process) -> list[str]:
    """The words of its command line; none if it has ended."""
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped yet does not."""
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


class Producer:
    """Adds jobs, in a client of BullMQ, while other things happen."""

    def __init__(self, bull: NodeBull, queue: str, prefix: str, settings: dict[str, int]) -> None:
        self._bull = bull
        self._handle = bull.start_producer(queue, prefix, **settings)

    @property
    def ids(self) -> list[str]:
        return self._bull.produced(self._handle)

    @property
    def times(self) -> list[float]:
        """When each of its jobs was acknowledged, in seconds since 1970."""
        return self._bull.produced_at(self._handle)

    def wait_ids(self, count: int) -> None:
        wait_until(lambda: len(self.ids) >= count, f"a producer to add {count} jobs")

    def stop(self) -> list[str]:
        """Let it end; the ids of all jobs that it added."""
        return self._bull.stop_producer(self._handle)


class Lab:
    """Everything that a drain needs.

    Args:
        pm2: a PM2 daemon without apps.
        server: the Redis that all of it uses.
        folder: qctl's working folder.
        url: of that Redis, if it needs a password.
        idle_bulls: clients of earlier tests, by version and port; its own go there at the end.

    Attributes:
        prefix: the key prefix of the queues; ``$QUEUE`` in it stands for the queue's name.
        watch: how long qctl watches new processes, e.g. ``5s`` where one crashes, or where the test
            acts during that time; "" for less than qctl allows, see ``quick_qctl.py``.
    """

    def __init__(
        self,
        pm2: Pm2,
        server: RedisServer,
        folder: Path,
        url: str = "",
        idle_bulls: dict[tuple[int, int], NodeBull] | None = None,
    ) -> None:
        self.pm2 = pm2
        self.server = server
        self.folder = folder
        self.url = url or server.url
        self.prefix = "bull"
        self.watch = ""
        self._idle_bulls = {} if idle_bulls is None else idle_bulls
        self._pools_bulls = idle_bulls is not None
        self._bulls: list[NodeBull] = []
        self._shared_bulls: dict[int, NodeBull] = {}
        self._running: list[Running] = []
        self._producers: list[Producer] = []

    @cached_property
    def client(self) -> Client:
        return connect(self.url)[1]

    @property
    def env(self) -> dict[str, str]:
        """qctl's environment."""
        return {
            **node_env(),
            "PM2_HOME": str(self.pm2.home),
            "QCTL_REDIS_URL": self.url,
            **({"QCTL_WATCH": self.watch} if self.watch else {}),
            "XDG_CONFIG_HOME": str(self.folder),
        }

    # What runs in it

    def app(
        self,
        name: str = "app",
        queues: str = "q",
        *,
        version: int = 6,
        concurrency: int = 1,
        instances: int = 1,
        cluster: bool = False,
        options: Mapping[str, Any] = {},
        **env: object,
    ) -> None:
        """Start worker.js under PM2 and wait for its workers.

        Args:
            options: of PM2's ecosystem file.
            env: of the app, see worker.js.
        """
        own = {
            "BULLMQ": version,
            "REDIS_PORT": self.server.port,
            "QUEUES": queues,
            "CONCURRENCY": concurrency,
            "SECRET_TOKEN": SECRET,
            "PREFIX": self.prefix,
            **env,
        }
        prefixes = {q: str(own["PREFIX"]).replace("$QUEUE", q) for q in queues.split(",")}
        before = {queue: self.count_workers(queue, prefixes[queue]) for queue in prefixes}
        # PM2's agent inside the app takes a fifth of its start. It has a say in how apps crash.
        agent = {} if {"CRASH_MS", "DIE_IF"} & set(env) else {"pmx": False}
        options = {**agent, **options}
        self.pm2.start(name, env=own, instances=instances, cluster=cluster, **options)
        for queue, prefix in prefixes.items():
            self.wait_workers(queue, before[queue] + instances, prefix)

    def count_workers(self, queue: str = "q", prefix: str = "bull") -> int:
        return sum(w.queue == queue for w in list_workers(self.client, prefix) or ())

    def wait_workers(self, queue: str = "q", count: int = 1, prefix: str = "bull") -> None:
        """Wait until so many workers are connected, and have made the queue, as they do next."""
        meta = QueueKeys(prefix, queue)("meta")
        wait_until(
            lambda: (
                self.count_workers(queue, prefix) == count
                and (not count or self.client.call("EXISTS", meta))
            ),
            f"{count} worker(s) of {queue}",
            timeout_s=30,
        )

    def bull(self, version: int = 6, *, fresh: bool = False) -> NodeBull:
        """A BullMQ client; the same one each time unless ``fresh``."""
        where = (version, self.server.port)
        bull = (
            None if fresh else self._shared_bulls.get(version) or self._idle_bulls.pop(where, None)
        )
        if bull is None:
            log = self.folder / f"bull-{len(self._bulls)}-{len(self._shared_bulls)}.log"
            bull = NodeBull(*where, log)
        if fresh:
            self._bulls.append(bull)
        else:
            self._shared_bulls[version] = bull
        return bull

    def producer(self, queue: str = "q", *, version: int = 6, **settings: int) -> Producer:
        """Start to add jobs; see producer.js for the settings."""
        bull = self.bull(version)
        self._producers.append(Producer(bull, queue, self.keys(queue).prefix, settings))
        return self._producers[-1]

    def add(self, *ms: int, queue: str = "q", version: int = 6) -> list[str]:
        """Add one job for each duration, in one transaction; their ids."""
        jobs = [{"name": "job", "data": {"ms": each}, "opts": {}} for each in ms]
        return self._add(jobs, queue, version)

    def hold(self, count: int = 1, *, queue: str = "q", version: int = 6) -> list[str]:
        """Add jobs that run until ``release``, and wait until they do; their ids.

        However slowly qctl starts, it finds them running.
        """
        job = {"name": "job", "data": {"held": True}, "opts": {}}
        held = self._add([job] * count, queue, version)
        self.wait_started(*held, queue=queue)
        return held

    def _add(self, jobs: list[dict[str, Any]], queue: str, version: int) -> list[str]:
        return self.bull(version).add_bulk(queue, jobs, prefix=self.keys(queue).prefix)

    def release(self, queue: str = "q") -> None:
        """Let the held jobs end."""
        self.client.call("SET", f"release:{queue}", 1)

    def bring_redis_back(self) -> None:
        """Start the Redis that was stopped, and forget the old connection to it."""
        self.server.start()
        self.client.close()

    # qctl

    def start(self, *args: str, env: Mapping[str, str] = {}) -> Running:
        """Start qctl; if the test leaves it running, it is ended with the lab."""
        env = {**self.env, **env}
        self._running.append(Running.qctl(args, env, self.folder, quick=not self.watch))
        return self._running[-1]

    def qctl(self, *args: str, env: Mapping[str, str] = {}) -> Done:
        """Run qctl to its end."""
        return self.start(*args, env=env).finish()

    def steps(self, *args: str) -> Running:
        """Start qctl with ``--output ndjson``."""
        return self.start(*args, "--output", "ndjson")

    def drain_held(self, *args: str) -> Done:
        """Start qctl and let the held jobs end as soon as it waits for them."""
        drain = self.steps(*args)
        drain.await_step("waiting")
        self.release()
        return drain.finish()

    def cut(self, *pids: int) -> int:
        """Cut all connections that these processes have to Redis; how many there were."""
        return cut_connections(self.client, self.server.port, *pids)

    # What happened

    def keys(self, queue: str = "q") -> QueueKeys:
        return QueueKeys(self.prefix.replace("$QUEUE", queue), queue)

    def is_paused(self, queue: str = "q") -> bool:
        return bool(self.client.call("HEXISTS", self.keys(queue)("meta"), "paused"))

    def traces(self) -> list[str]:
        """qctl's own keys, of which there should be none between commands.

        Except the record of drains, and the heartbeats of qctl's workers.
        """
        found = [node.call("KEYS", "qctl:[^dw]*") for node in self.client.masters()]
        return sorted(itertools.chain.from_iterable(found))

    def dump(self) -> dict[str, bytes]:
        """All keys with their contents, except what workers write to find stalled jobs."""
        written = (":stalled-check", ":stalled")
        keys = sorted(k for k in self.client.call("KEYS", "*") if not k.endswith(written))
        return {key: self.client.call("DUMP", key) for key in keys}

    def places(self, job_id: str, queue: str = "q") -> list[str]:
        """The lists and sets that a job is in."""
        keys = self.keys(queue)
        return [
            name
            for command, names in STATES.items()
            for name in names
            if self.client.call(command, keys(name), job_id) is not None
        ]

    def runs(self, queue: str = "q") -> list[dict[str, Any]]:
        """What the handlers wrote about this queue's jobs, in order: see processor.js."""
        return runs(self.client, queue)

    def rows(self, job_id: str, queue: str = "q") -> list[dict[str, Any]]:
        return [row for row in self.runs(queue) if row["id"] == job_id]

    def wait_started(self, *ids: str, queue: str = "q") -> None:
        """Wait until these jobs have started."""

        def started() -> bool:
            rows = self.runs(queue)
            return set(ids) <= {row["id"] for row in rows if row["ev"] == "start"}

        wait_until(started, f"jobs {ids} to start")

    def wait_running(self, count: int, queue: str = "q") -> None:
        """Wait until ``count`` jobs run at once."""
        key = self.keys(queue)("active")
        wait_until(lambda: self.client.call("LLEN", key) >= count, f"{count} jobs to run")

    def wait_completed(self, ids: Sequence[str], queue: str = "q") -> None:
        key = self.keys(queue)("completed")

        def missing() -> list[str]:
            return [job_id for job_id in ids if self.client.call("ZSCORE", key, job_id) is None]

        wait_until(lambda: not missing(), f"jobs to complete; {len(ids)} were added", timeout_s=30)

    def prove(self, added: Sequence[str], queue: str = "q", *, again: Sequence[str] = ()) -> None:
        """Check that nothing was lost or ran twice, and that the queue runs and qctl left no trace.

        Args:
            added: ids of all jobs; each must complete.
            again: those of them whose first run was cut short, so that they had to run twice.
        """
        self.wait_completed(added, queue)
        for job_id in added:
            assert self.places(job_id, queue) == ["completed"]
        self.prove_runs(queue, again=again)
        self.prove_tidy(queue)

    def prove_runs(self, queue: str = "q", *, again: Sequence[str] = ()) -> None:
        """No job has started a second time without having failed, or been cut short, first."""
        runs_of: dict[str, str] = {}
        for row in self.runs(queue):
            history = runs_of[row["id"]] = runs_of.get(row["id"], "") + row["ev"][0]
            if row["ev"] == "start":
                assert row["ats"] == history.count("s"), row
        for job_id, history in runs_of.items():
            once = "ss" if job_id in again else "s"
            assert re.fullmatch(f"(sf)*({once}e?)?", history), (
                f"job {job_id} ran like this: {history}"
            )

    def prove_tidy(self, *queues: str) -> None:
        for queue in queues:
            assert not self.is_paused(queue), queue
        assert self.traces() == []

    def is_resumed(self, *queues: str) -> bool:
        """Whether a drain has been undone."""
        return not any(map(self.is_paused, queues)) and self.traces() == []

    def put_right(self, watchdog_pid: int, *queues: str) -> bool:
        """Whether a killed drain has been undone and its watchdog is gone."""
        return self.is_resumed(*queues) and not is_alive(watchdog_pid)

    def close(self) -> None:
        """End everything, each even if another could not be ended."""
        with contextlib.ExitStack() as last_first:
            last_first.callback(self.client.close)
            last_first.callback(self._delete_apps)
            for bull in self._bulls:
                last_first.callback(bull.kill)
            for version, bull in self._shared_bulls.items():
                last_first.callback(self._put_back, version, bull)
            for producer in self._producers:
                last_first.callback(producer.stop)
            for running in self._running:
                last_first.callback(running.close)

    def _put_back(self, version: int, bull: NodeBull) -> None:
        if self._pools_bulls and bull.reset():
            self._idle_bulls[version, self.server.port] = bull
        else:
            bull.kill()

    def _delete_apps(self) -> None:
        self.pm2.delete_all()


def write_config(folder: Path, text: str) -> None:
    """A ``qctl.toml`` where qctl runs."""
    (folder / "qctl.toml").write_text(text)


def cut_connections(client: Client, port: int, *pids: int) -> int:
    """Cut all connections that these processes have to the Redis of ``client``; how many."""
    cut = 0
    for pid in pids:
        sockets = []
        with contextlib.suppress(psutil.Error):
            sockets = psutil.Process(pid).net_connections("tcp4")
        for ours in sockets:
            if ours.raddr and ours.raddr.port == port:
                address = f"{ours.laddr.ip}:{ours.laddr.port}"
                cut += client.call("CLIENT", "KILL", "ADDR", address, "SKIPME", "yes")
    return cut


def kill(pid: int) -> None:
    """SIGKILL, and wait until the process is gone."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), f"pid {pid} to be gone")


@contextlib.contextmanager
def open_lab(
    pm2: Pm2,
    server: RedisServer,
    folder: Path,
    url: str = "",
    idle_bulls: dict[tuple[int, int], NodeBull] | None = None,
) -> Iterator[Lab]:
    """A lab on any Redis; closes all that was started in it."""
    lab = Lab(pm2, server, folder, url, idle_bulls)
    try:
        yield lab
    finally:
        lab.close()
