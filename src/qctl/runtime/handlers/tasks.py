"""Wraps an app's handlers: in a thread, with a timeout, inside the app's middleware."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from qctl.errors import UsageError
from qctl.runtime.handlers.threads import Threads
from qctl.runtime.job.job import Job, SyncJob
from qctl.runtime.job.outcomes import JobTimeoutError

Call = Callable[[Job], Awaitable[Any]]
# middleware(job, call_next) → the job's result, usually what call_next(job) returned.
Middleware = Callable[[Job, Call], Awaitable[Any]]
Handler = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A handler and how it runs.

    Args:
        job_handler: ``handler`` as a function of the job alone; see ``payloads.py``.
        kind: ``async`` (on the event loop), ``thread`` or ``process`` (in a child process).
        timeout_s, kill_after_s: see ``Worker.task``.

    Raises:
        UsageError: an option does not fit the kind.
    """

    handler: Handler
    job_handler: Handler
    kind: str
    timeout_s: float | None = None
    kill_after_s: float | None = None

    def __post_init__(self) -> None:
        if self.kill_after_s is not None and self.kind != "process":
            raise UsageError("kill_after_s needs isolate=True", hint="add isolate=True")
        if self.kind == "process" and inspect.iscoroutinefunction(self.handler):
            raise UsageError("isolate=True needs a plain def, not an async def")


def wrap(call: Call, middleware: Sequence[Middleware]) -> Call:
    """Wrap ``call`` in the layers of ``middleware``; the first layer is the outermost."""
    for layer in reversed(middleware):
        call = partial(_through, layer, call)
    return call


def _through(layer: Middleware, call: Call, job: Job) -> Awaitable[Any]:
    return layer(job, call)


def in_time(call: Call, timeout_s: float) -> Call:
    """Wrap ``call``: after ``timeout_s``, cancel it and raise a ``JobTimeoutError``."""

    async def timed(job: Job) -> Any:
        try:
            async with asyncio.timeout(timeout_s) as timer:
                return await call(job)
        except TimeoutError:
            if not timer.expired():
                raise
            raise JobTimeoutError(f"timed out after {timeout_s:g} s") from None

    return timed


def in_thread(handler: Handler, threads: Threads) -> Call:
    """Wrap a plain function so that it runs in a thread, with the caller's context variables."""

    async def call(job: Job) -> Any:
        context = contextvars.copy_context()
        sync_job = SyncJob(job, asyncio.get_running_loop())
        return await threads.run(partial(context.run, handler, sync_job))

    return call
