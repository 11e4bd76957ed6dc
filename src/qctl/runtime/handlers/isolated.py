"""Handlers in child processes, which can be killed without harm to anything else.

A child is a fresh interpreter that runs one job at a time and is used again. Its job's lock is
renewed by the parent; what the job writes (progress, logs) goes over the parent's connection.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from qctl.connection.address import Arg
from qctl.runtime.handlers.tasks import Call, Handler, TaskSpec
from qctl.runtime.handlers.threads import Threads
from qctl.runtime.job.job import Job, SyncJob
from qctl.runtime.job.outcomes import JobTimeoutError, text_of
from qctl.wire.keys import QueueKeys
from qctl.wire.scripts import ScriptCall

T = TypeVar("T")
# Not fork: a copy of a process with threads and connections is a broken one.
_context = multiprocessing.get_context("spawn")


class ChildDiedError(Exception):
    """The process of an isolated job ended before the job did."""


class NeverRanError(Exception):
    """The process had ended before it was given the job."""


class RemoteTraceback(Exception):  # noqa: N818 - not raised: it is the cause of what is
    """The stack in the child, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass(frozen=True, slots=True)
class _Task:
    """A job on its way to a child."""

    handler: Handler
    timeout_s: float | None
    keys: QueueKeys
    job_id: str
    token: str
    fields: dict[str, str]


class IsolatedPool:
    """Children for the isolated jobs of one worker; started when they are needed.

    Args:
        threads: that wait for the children.
    """

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._idle: list[_Child] = []
        self._all: set[_Child] = set()
        # Else the interpreter's end waits for children that do not hear a SIGTERM.
        atexit.register(self.close)

    def caller(self, spec: TaskSpec) -> Call:
        """A handler as an awaitable call. Cancelling it kills the child."""

        async def call(job: Job) -> Any:
            loop = asyncio.get_running_loop()
            task = _Task(
                spec.handler, spec.timeout_s, job.keys, job.id, job.token, dict(job.fields)
            )
            while True:
                child = await self._take()
                try:
                    return await self._run_in(child, task, SyncJob(job, loop), spec.kill_after_s)
                except NeverRanError:
                    # It had died while it was idle: that is no attempt of this job.
                    continue

        return call

    async def _run_in(
        self, child: _Child, task: _Task, job: SyncJob, kill_after_s: float | None
    ) -> Any:
        waiting = self._threads.run(partial(child.run, task, job))
        try:
            async with asyncio.timeout(kill_after_s) as timer:
                # Shielded: the thread must see its child's end before it is free again.
                return await asyncio.shield(waiting)
        except (TimeoutError, asyncio.CancelledError) as error:
            if waiting.done():
                raise
            child.kill()
            await asyncio.wait([waiting])
            # What the killed child's thread raised is no news.
            waiting.exception()
            if isinstance(error, TimeoutError) and timer.expired():
                raise JobTimeoutError(f"killed after {kill_after_s:g} s") from None
            raise
        finally:
            self._put_back(child)

    async def _take(self) -> _Child:
        while self._idle:
            child = self._idle.pop()
            if child.is_alive:
                return child
            self._all.discard(child)
        starting = self._threads.run(self._start)
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # Another job will need it.
            starting.add_done_callback(
                lambda done: None if done.exception() else self._put_back(done.result())
            )
            raise

    def _start(self) -> _Child:
        child = _Child()
        self._all.add(child)
        return child

    def _put_back(self, child: _Child) -> None:
        if child.is_usable:
            self._idle.append(child)
        else:
            self._all.discard(child)

    def close(self) -> None:
        """End all children at once."""
        atexit.unregister(self.close)
        children = list(self._all)
        for child in children:
            child.kill()
        for child in children:
            child.join()


class _Child:
    """One child process, seen from the parent."""

    def __init__(self) -> None:
        self._pipe, theirs = _context.Pipe()
        self._process: BaseProcess = _context.Process(
            target=_child_main, args=(theirs,), name="qctl isolated job", daemon=True
        )
        self._process.start()
        theirs.close()
        self._has_run = False
        self.is_usable = True

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def run(self, task: _Task, job: SyncJob) -> Any:
        """Run one job and serve what it asks for, until it ends. Blocks.

        Raises:
            NeverRanError: the child had died since its last job.
            ChildDiedError: it died with this one.
        """
        try:
            self._pipe.send(task)
        except OSError:
            self.kill()
            if self._has_run:
                raise NeverRanError from None
        self._has_run = True
        try:
            while (message := self._pipe.recv())[0] not in {"done", "failed"}:
                self._pipe.send(self._answer(job, *message))
        except (EOFError, OSError) as error:
            self.kill()
            self._process.join(5)
            code = self._process.exitcode
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            raise ChildDiedError(f"the job's process ended: {how}") from error
        kind, value = message
        if kind == "failed":
            # Out here: it may be an OSError of the handler's own.
            raise _revived(*value)
        return value

    @staticmethod
    def _answer(job: SyncJob, kind: str, value: Any) -> tuple[str, Any]:
        try:
            return "ok", job.send(kind, value)
        except Exception as error:
            return "error", f"{type(error).__name__}: {text_of(error)}"

    def kill(self) -> None:
        self.is_usable = False
        self._process.kill()

    def join(self) -> None:
        """Wait until it has ended; it was killed."""
        self._process.join(5)
        self._pipe.close()


def _revived(pickled: bytes | None, kind: str, text: str, trace: str) -> BaseException:
    """The child's exception, or one that says the same when it cannot be had."""
    error: BaseException = RuntimeError(f"{kind}: {text}" if text else kind)
    if pickled is not None:
        with contextlib.suppress(Exception):
            error = pickle.loads(pickled)  # noqa: S301 - from our own child
    error.__cause__ = RemoteTraceback(trace)
    return error


# In the child


class _Link:
    """How a job in a child reaches Redis: through the parent."""

    def __init__(self, keys: QueueKeys, pipe: Connection) -> None:
        self.keys = keys
        self._pipe = pipe
        self._is_asking = False
        self._timeout: JobTimeoutError | None = None

    async def run_call(self, call: ScriptCall) -> Any:
        return self._ask("run_call", call)

    async def command(self, *command: Arg) -> Any:
        return self._ask("command", command)

    def _ask(self, kind: str, value: Any) -> Any:
        self._is_asking = True
        try:
            self._pipe.send((kind, value))
            outcome, answer = self._pipe.recv()
        finally:
            self._is_asking = False
        if self._timeout is not None:
            raise self._timeout
        if outcome == "error":
            raise RuntimeError(answer)
        return answer

    def time_out(self, error: JobTimeoutError) -> None:
        """The job's time is over: raise, as soon as nothing is half said in the pipe."""
        if self._is_asking:
            self._timeout = error
        else:
            raise error


class IsolatedJob(SyncJob):
    """A job in a child process; see ``SyncJob``."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        # Nothing in it ever waits on a loop.
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        raise AssertionError("an isolated job has no event loop")


def _child_main(pipe: Connection) -> None:
    # Ctrl-C reaches the whole terminal; the parent decides what becomes of its children.
    # Nor does a SIGTERM to the whole group, as of systemd, mean the job. Heard by a function, since
    # what the handler starts would inherit that a signal is ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _hear_nothing)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task: _Task = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(_run(task, pipe))


def _hear_nothing(*_: Any) -> None: ...


def _run(task: _Task, pipe: Connection) -> tuple[str, Any]:
    flat = [text for pair in task.fields.items() for text in pair]
    link = _Link(task.keys, pipe)
    job = Job(task.job_id, flat, task.token, link, 0.0)
    try:
        if task.timeout_s is not None:
            late = JobTimeoutError(f"timed out after {task.timeout_s:g} s")
            signal.signal(signal.SIGALRM, lambda *_: link.time_out(late))
            signal.setitimer(signal.ITIMER_REAL, task.timeout_s)
        try:
            value = task.handler(IsolatedJob(job))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        pickle.dumps(value)
    except BaseException as error:
        return "failed", (
            _pickled(error),
            type(error).__name__,
            text_of(error),
            traceback.format_exc(),
        )
    return "done", value


def _pickled(error: BaseException) -> bytes | None:
    try:
        text = pickle.dumps(error)
        pickle.loads(text)  # noqa: S301 - our own
    except Exception:
        return None
    return text


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
