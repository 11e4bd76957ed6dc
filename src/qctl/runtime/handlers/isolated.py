"""Handlers in child processes, which can be killed without harm to other jobs.

A child is a fresh interpreter, which runs one job at a time. Its parent is the worker's
process. The parent renews the job's lock, and sends the job's calls (progress, logs) to Redis over
the worker's connection.
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
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from qctl.connection.address import Arg
from qctl.errors import UsageError
from qctl.runtime.handlers.payloads import job_handler
from qctl.runtime.handlers.tasks import Call, Handler, TaskSpec
from qctl.runtime.handlers.threads import Threads
from qctl.runtime.job.current import set_current_job
from qctl.runtime.job.job import Job, Link, SyncJob
from qctl.runtime.job.outcomes import JobTimeoutError, text_of
from qctl.runtime.logs import LogSetup, configure, current_setup, share_with_app
from qctl.wire.keys import QueueKeys
from qctl.wire.scripts import ScriptCall

T = TypeVar("T")
# Not fork: a forked copy of a process that has threads and connections does not work.
_context = multiprocessing.get_context("spawn")


class ChildDiedError(Exception):
    """The process of an isolated job ended before the job did."""


class NeverRanError(Exception):
    """The child process had ended before it got the job."""


class RemoteTraceback(Exception):  # noqa: N818 - never raised, only the cause of an error
    """The child's stack trace, as text."""


@dataclass(frozen=True, slots=True)
class _Task:
    """A job and its handler, as the child gets them."""

    handler: Handler
    timeout_s: float | None
    keys: QueueKeys
    job_id: str
    token: str
    fields: dict[str, str]


class IsolatedPool:
    """The children of one worker, started on demand. While a child runs a job, a thread waits."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._idle: list[_Child] = []
        self._all: set[_Child] = set()
        # Without this, the interpreter would wait at its exit for children that ignore SIGTERM.
        atexit.register(self.close)

    def in_child(self, spec: TaskSpec) -> Call:
        """Wrap a handler so that it runs in a child. Cancelling the call kills the child."""

        async def call(job: Job) -> Any:
            task = _Task(
                spec.handler, spec.timeout_s, job.link.keys, job.id, job.token, dict(job.fields)
            )
            while True:
                child = await self._take()
                try:
                    return await self._run_in(child, task, job.link, spec.kill_after_s)
                except NeverRanError:
                    # The child had died while it was idle. The job has not started.
                    continue

        return call

    async def _run_in(
        self, child: _Child, task: _Task, link: Link, kill_after_s: float | None
    ) -> Any:
        answer = partial(_answer, link, asyncio.get_running_loop())
        waiting = self._threads.run(partial(child.run, task, answer))
        try:
            async with asyncio.timeout(kill_after_s) as timer:
                # Shielded: the thread cannot be cancelled. It waits for the child to answer or end.
                return await asyncio.shield(waiting)
        except (TimeoutError, asyncio.CancelledError) as error:
            if waiting.done():
                raise
            child.kill()
            await asyncio.wait([waiting])
            # Read the error (that the child was killed), because asyncio logs unread errors.
            waiting.exception()
            if isinstance(error, TimeoutError) and timer.expired():
                raise JobTimeoutError(f"killed after {kill_after_s:g} s") from None
            raise
        finally:
            self._put_back(child)

    async def _take(self) -> _Child:
        while self._idle:
            child = self._idle.pop()
            if child.process.is_alive():
                return child
            self._all.discard(child)
        starting = self._threads.run(self._start)
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The child goes on starting, and another job can use it.
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
        """Kill all children."""
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
        self.process: BaseProcess = _context.Process(
            target=_child_main,
            args=(theirs, current_setup()),
            name="qctl isolated job",
            daemon=True,
        )
        self.process.start()
        theirs.close()
        self._has_run = False
        self.is_usable = True

    def run(self, task: _Task, answer: Callable[[str, Any], tuple[str, Any]]) -> Any:
        """Run one job, and call ``answer`` for its requests. Block until the job ends.

        Raises:
            NeverRanError: the child had run other jobs, and had died before it got this job.
            ChildDiedError: the child died while it ran the job, or while it started.
            BaseException: the handler's error.
        """
        try:
            self._pipe.send(task)
        except OSError:
            self.kill()
            # If this child has run a job before, another child can run this job. If this child
            # died at its start, another one would die too, so the job fails below.
            if self._has_run:
                raise NeverRanError from None
        self._has_run = True
        try:
            while (message := self._pipe.recv())[0] not in {"done", "failed"}:
                self._pipe.send(answer(*message))
        except (EOFError, OSError) as error:
            self.kill()
            self.process.join(5)
            code = self.process.exitcode
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            raise ChildDiedError(f"the job's process ended: {how}") from error
        kind, value = message
        if kind == "failed":
            # Not raised inside the ``try``, which would catch an OSError of the handler.
            raise _revived(*value)
        return value

    def kill(self) -> None:
        self.is_usable = False
        self.process.kill()

    def join(self) -> None:
        """Wait for the end of a child that was killed."""
        self.process.join(5)
        self._pipe.close()


def _answer(link: Link, loop: asyncio.AbstractEventLoop, kind: str, value: Any) -> tuple[str, Any]:
    """Send a child's request over the worker's link, and return the answer for the child."""
    request = link.run_call(value) if kind == "run_call" else link.command(*value)
    try:
        return "ok", asyncio.run_coroutine_threadsafe(request, loop).result()
    except Exception as error:
        return "error", f"{type(error).__name__}: {text_of(error)}"


def _revived(pickled: bytes | None, kind: str, text: str, trace: str) -> BaseException:
    """The child's exception; a RuntimeError with the same text if unpickling fails."""
    error: BaseException = RuntimeError(f"{kind}: {text}" if text else kind)
    if pickled is not None:
        with contextlib.suppress(Exception):
            error = pickle.loads(pickled)  # noqa: S301 - from our own child
    error.__cause__ = RemoteTraceback(f"\n{trace}")
    return error


# Code that runs in the child

# Cached, because a child runs many jobs of a few handlers.
_job_handler = lru_cache(maxsize=64)(job_handler)


class _PipeLink:
    """The link of a job in a child: passes the job's requests to the parent."""

    def __init__(self, keys: QueueKeys, pipe: Connection) -> None:
        self.keys = keys
        self._pipe = pipe
        self._is_asking = False
        self._timeout: JobTimeoutError | None = None

    @property
    def state(self) -> Any:
        raise UsageError(
            "an isolated job has no state: the lifespan runs in the worker's process",
            hint="make what the job needs in the module of its task, for example in a "
            "function with @functools.cache",
        )

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
        """Raise ``error`` in the job, but not in the middle of a request."""
        if self._is_asking:
            self._timeout = error
        else:
            raise error


class IsolatedJob(SyncJob[Any, Any]):
    """A job in a child process; see ``SyncJob``."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        # ``_PipeLink`` blocks, so the coroutine ends in its first step.
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        raise AssertionError("an isolated job has no event loop")


def _child_main(pipe: Connection, setup: LogSetup | None) -> None:
    # Ctrl-C and systemd send signals to the whole process group, but only the parent may end a
    # child. SIG_IGN is not used, because processes that the app's handler starts would inherit it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if setup is not None:
        configure(setup.style, setup.level)
    while True:
        try:
            # Reading the first task imports the app.
            task: _Task = pipe.recv()
        except (EOFError, OSError):
            return
        if setup is not None:
            share_with_app()
        pipe.send(_run(task, pipe))


def _run(task: _Task, pipe: Connection) -> tuple[str, Any]:
    link = _PipeLink(task.keys, pipe)
    job = Job(task.job_id, task.fields, task.token, link, 0.0)
    set_current_job(job)
    try:
        if task.timeout_s is not None:
            late = JobTimeoutError(f"timed out after {task.timeout_s:g} s")
            signal.signal(signal.SIGALRM, lambda *_: link.time_out(late))
            signal.setitimer(signal.ITIMER_REAL, task.timeout_s)
        try:
            value = _job_handler(task.handler)(IsolatedJob(job))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        pickle.dumps(value)  # if the value cannot be sent, this raises, and the job fails
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
