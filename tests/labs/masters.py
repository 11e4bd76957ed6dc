"""Real masters with real processes, for tests: an app, ways to start it, and what it did."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from qctl import Queue
from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.wire.keys import QueueKeys
from tests.labs.cli import run
from tests.labs.drains import Running
from tests.labs.servers import wait_until

Q = QueueKeys("bull", "q")
QCTL = (sys.executable, "-m", "qctl")
APP = """
    import asyncio, os, time
    from qctl import Worker

    worker = Worker("q", concurrency=4, drain_delay_s=0.5)

    def note(job):
        with open("starts", "a") as file:
            file.write(f"{job.id} {os.getpid()}\\n")

    @worker.task()
    async def run(job):
        note(job)
        await asyncio.sleep((job.data or {}).get("s", 0))
        while (job.data or {}).get("held") and not os.path.exists("release"):
            await asyncio.sleep(0.02)

    @worker.task("thread")
    def thread(job):
        note(job)
        time.sleep(60)

    @worker.task("block")
    async def block(job):
        note(job)
        time.sleep(60)
"""


class MasterLab:
    """One app in a folder of its own, and the masters that run it.

    Args:
        folder: where app.py is and the masters run.
    """

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.folder = folder
        self.redis_url = redis_url
        self.client: Client = connect(redis_url)[1]
        self.queue = Queue("q", redis_url=redis_url)
        # A socket's path must be short, and pytest's folders are not.
        self.state_home = Path(tempfile.mkdtemp(prefix="qw-", dir="/tmp"))
        self.environ = {
            **os.environ,
            "QCTL_REDIS_URL": redis_url,
            "XDG_STATE_HOME": str(self.state_home),
            "XDG_CONFIG_HOME": str(folder),
            "PM2_HOME": str(folder),
            "PWD": str(folder),
            # Two versions of app.py written within a second look the same to the cache of bytecode.
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.write(APP)
        self._masters: list[RunningMaster] = []

    def write(self, app: str) -> None:
        """Replace the app's code."""
        draft = self.folder / "app.py.new"
        draft.write_text(textwrap.dedent(app))
        draft.replace(self.folder / "app.py")

    def run(
        self,
        *words: str,
        ready: bool = True,
        pass_fds: Sequence[int] = (),
        before: Callable[[], object] | None = None,
        **environ: str,
    ) -> RunningMaster:
        """``qctl worker run app:worker …``; waits until it is ready.

        Args:
            before: called in the new process.
        """
        master = RunningMaster(self, words, pass_fds, before, environ)
        self._masters.append(master)
        if ready:
            master.wait_log("ready")
        return master

    def qctl(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Another command, to its end; in this process if it can start no worker."""
        if words[:1] == ("worker",) and words[1] not in {"run", "start"}:
            ran = run(*words, **{**self.environ, **environ})
            return subprocess.CompletedProcess(words, ran.code, ran.out, ran.err)
        env = {**self.environ, **environ}
        done = Running.qctl(words, env, self.folder, quick=True).finish()
        return subprocess.CompletedProcess(words, done.code, done.out, done.err)

    def add(self, count: int = 1, name: str = "job", **data: Any) -> list[str]:
        return [self.queue.add(name, data) for _ in range(count)]

    def release(self) -> None:
        """Let the jobs end that were added with ``held=True``."""
        (self.folder / "release").touch()

    def starts(self) -> list[tuple[str, int]]:
        """(job id, pid) of each start of a handler so far, in order."""
        path = self.folder / "starts"
        rows = path.read_text().splitlines() if path.exists() else []
        return [(row.split()[0], int(row.split()[1])) for row in rows]

    def counts(self) -> Counter[str]:
        """How often the handler of each job was started."""
        return Counter(job_id for job_id, _ in self.starts())

    def wait_started(self, *ids: str) -> None:
        wait_until(lambda: set(ids) <= set(self.counts()), f"{ids} to be started")

    def ids(self, state: str) -> list[str]:
        """Ids in a list or sorted set of the queue."""
        command = "LRANGE" if state in {"wait", "paused", "active"} else "ZRANGE"
        return list(self.client.call(command, Q(state), 0, -1))

    def job(self, job_id: str) -> dict[str, str]:
        flat = self.client.call("HGETALL", Q(job_id))
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def wait_completed(self, ids: Sequence[str], timeout_s: float = 20.0) -> None:
        wait_until(
            lambda: set(ids) <= set(self.ids("completed")),
            f"{len(ids)} jobs to be completed",
            timeout_s=timeout_s,
        )

    def close(self) -> None:
        for master in self._masters:
            master.end()
        for path in (self.state_home / "qctl" / "workers").glob("*/state.json"):
            with contextlib.suppress(ValueError):
                end_tree(json.loads(path.read_text())["pid"])
        shutil.rmtree(self.state_home)
        self.queue.close()
        self.client.close()


class RunningMaster:
    """A master in front, started by ``MasterLab.run``."""

    def __init__(
        self,
        lab: MasterLab,
        words: Sequence[str],
        pass_fds: Sequence[int],
        before: Callable[[], object] | None,
        environ: dict[str, str],
    ) -> None:
        self._log = lab.folder / f"log-{len(lab._masters)}"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*QCTL, "worker", "run", "app:worker", "--log-format", "json", *words],
                cwd=lab.folder,
                env={**lab.environ, **environ},
                stdin=subprocess.DEVNULL,
                stderr=log,
                pass_fds=pass_fds,
                preexec_fn=before,  # noqa: PLW1509 - the tests have no threads
                # Signals for it are not for us.
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self._log.read_text()

    def rows(self, message: str) -> list[dict[str, Any]]:
        """Log lines with a message, so far."""
        rows = [json.loads(row) for row in self.text.splitlines() if row.startswith("{")]
        return [row for row in rows if row["message"] == message]

    def wait_log(self, message: str, count: int = 1) -> list[dict[str, Any]]:
        def found() -> list[dict[str, Any]]:
            rows = self.rows(message)
            if len(rows) < count and self.process.poll() is not None:
                pytest.fail(f"the master has ended before {message!r}:\n{self.text}")
            return rows if len(rows) >= count else []

        return wait_until(found, f"{message!r} in the log")

    @property
    def pids(self) -> list[int]:
        """Of its processes that live."""
        living = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.status() != psutil.STATUS_ZOMBIE:
                    living.append(child.pid)
        return sorted(living)

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait_end(self, timeout_s: float = 20.0) -> int:
        return self.process.wait(timeout_s)

    def stop(self) -> None:
        """Stop it in the regular way."""
        self.signal()
        assert self.wait_end() == 0, self.text

    def end(self) -> None:
        """Kill it and its processes, if it still runs."""
        end_tree(self.process.pid)
        self.process.wait(10)


def end_tree(pid: int) -> None:
    """Kill a process of ours and those below it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def master_lab(redis_url: str, tmp_path: Path) -> Iterator[MasterLab]:
    lab = MasterLab(tmp_path, redis_url)
    yield lab
    lab.close()
