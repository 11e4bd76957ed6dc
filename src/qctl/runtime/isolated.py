"""Handlers in child processes, which can be killed without harm to anything else.

A child is a fresh interpreter that runs one job at a time and is used again. Its job's lock is
renewed by the parent; what the job writes (progress, logs) goes over the parent's connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Coroutine
from concurrent.futures import Executor
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from qctl.connect import Arg
from qctl.runtime.job import Job, SyncJob
from qctl.runtime.outcomes import JobTimeoutError
from qctl.runtime.tasks import Call, Handler, TaskSpec
from qctl.wire.keys import QueueKeys
from qctl.wire.scripts import ScriptCall

T = TypeVar("T")
# Not fork: a copy of a process with threads and connections is a broken one.
_context = multiprocessing.get_context("spawn")


class ChildDiedError(Exception):
    """The process of an isolated job ended before the job did."""


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
        executor: threads that wait for the children, as many as jobs run at a time.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._idle: list[_Child] = []
        self._all: set[_Child] = set()

    def caller(self, spec: TaskSpec) -> Call:
        """A handler as an awaitable call. Cancelling it kills the child."""

        async def call(job: Job) -> Any:
            loop = asyncio.get_running_loop()
            child = self._idle.pop() if self._idle else None
            if child is None:
                child = await loop.run_in_executor(self._executor, _Child)
                self._all.add(child)
            task = _Task(
                spec.handler, spec.timeout_s, job.keys, job.id, job.token, dict(job.fields)
            )
            waiting = loop.run_in_executor(self._executor, child.run, task, SyncJob(job, loop))
            try:
                async with asyncio.timeout(spec.kill_after_s) as timer:
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
                    raise JobTimeoutError(f"killed after {spec.kill_after_s:g} s") from None
                raise
            finally:
                if child.is_usable:
                    self._idle.append(child)
                else:
                    self._all.discard(child)

        return call

    def close(self) -> None:
        """End all children at once."""
        for child in self._all:
            child.kill()
        for child in self._all:
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
        self.is_usable = True

    def run(self, task: _Task, job: SyncJob) -> Any:
        """Run one job and serve what it asks for, until it ends. Blocks."""
        try:
            self._pipe.send(task)
            while True:
                kind, value = self._pipe.recv()
                if kind == "done":
                    return value
                if kind == "failed":
                    raise _revived(*value)
                self._pipe.send(self._answer(job, kind, value))
        except (EOFError, OSError) as error:
            self.kill()
            self._process.join(5)
            code = self._process.exitcode
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            raise ChildDiedError(f"the job's process ended: {how}") from error

    @staticmethod
    def _answer(job: SyncJob, kind: str, value: Any) -> tuple[str, Any]:
        try:
            return "ok", job.send(kind, value)
        except Exception as error:
            return "error", f"{type(error).__name__}: {error}"

    def kill(self) -> None:
        self.is_usable = False
        self._process.kill()

    def join(self) -> None:
        """Wait until it has ended; it was killed."""
        self._process.join(5)
        self._pipe.close()


def _revived(pickled: bytes | None, kind: str, text: str, trace: str) -> BaseException:
    """The child's exception, or one that says the same when it cannot be had."""
    error: BaseException = RuntimeError(f"{kind}: {text}")
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

    async def run_call(self, call: ScriptCall) -> Any:
        return self._ask("run_call", call)

    async def command(self, *command: Arg) -> Any:
        return self._ask("command", command)

    def _ask(self, kind: str, value: Any) -> Any:
        self._pipe.send((kind, value))
        outcome, answer = self._pipe.recv()
        if outcome == "error":
            raise RuntimeError(answer)
        return answer


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task: _Task = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(_run(task, pipe))


def _run(task: _Task, pipe: Connection) -> tuple[str, Any]:
    flat = [text for pair in task.fields.items() for text in pair]
    job = Job(task.job_id, flat, task.token, _Link(task.keys, pipe), 0.0)
    try:
        if task.timeout_s is not None:
            signal.signal(signal.SIGALRM, _raise_timeout(task.timeout_s))
            signal.setitimer(signal.ITIMER_REAL, task.timeout_s)
        try:
            value = task.handler(IsolatedJob(job))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        pickle.dumps(value)
    except BaseException as error:
        return "failed", (_pickled(error), type(error).__name__, str(error), traceback.format_exc())
    return "done", value


def _raise_timeout(timeout_s: float) -> Any:
    def on_alarm(*_: Any) -> None:
        raise JobTimeoutError(f"timed out after {timeout_s:g} s")

    return on_alarm


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
