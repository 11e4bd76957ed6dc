"""Which function runs which job: registration, middleware, sync and async handlers."""

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

Call = Callable[[Job], Awaitable[Any]]
# middleware(job, call_next) → the job's result, usually what call_next(job) returned.
Middleware = Callable[[Job, Call], Awaitable[Any]]
Handler = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A registered handler.

    Args:
        name: the job name it takes; None for every other name.
        handler: the user's function.
        kind: ``async`` (on the loop), ``thread`` or ``process`` (in a child that can be killed).
        timeout_s: a longer run is cancelled, and the attempt has failed; None for no limit. A
            function in a thread cannot be cancelled: its job fails, but the thread goes on.
        kill_after_s: only for ``process``: a longer run is killed.
    """

    name: str | None
    handler: Handler
    kind: str
    timeout_s: float | None = None
    kill_after_s: float | None = None


class Tasks:
    """The handlers of one worker, by job name."""

    def __init__(self) -> None:
        self._specs: dict[str | None, TaskSpec] = {}

    def add(self, spec: TaskSpec) -> None:
        """Register a handler.

        Raises:
            UsageError: the name has a handler already, or an option does not fit the kind.
        """
        if spec.name in self._specs:
            name = "every other name" if spec.name is None else repr(spec.name)
            raise UsageError(f"there are two tasks for {name}", hint="rename one of them")
        if spec.kill_after_s is not None and spec.kind != "process":
            raise UsageError("kill_after_s needs isolate=True", hint="add isolate=True")
        if spec.kind == "process" and inspect.iscoroutinefunction(spec.handler):
            raise UsageError("an isolated task is a plain def, not an async def")
        self._specs[spec.name] = spec

    @property
    def specs(self) -> Sequence[TaskSpec]:
        """All handlers, in the order of their registration."""
        return tuple(self._specs.values())

    def build(
        self, middleware: Sequence[Middleware], caller: Callable[[TaskSpec], Call]
    ) -> dict[str | None, tuple[TaskSpec, Call]]:
        """Each handler inside the middleware, by job name.

        Args:
            caller: makes the innermost call of a handler.
        """
        return {name: (spec, wrap(caller(spec), middleware)) for name, spec in self._specs.items()}


def wrap(call: Call, middleware: Sequence[Middleware]) -> Call:
    """``call`` inside the layers of ``middleware``, the first of which is the outermost."""
    for layer in reversed(middleware):
        call = partial(_through, layer, call)
    return call


def _through(layer: Middleware, call: Call, job: Job) -> Awaitable[Any]:
    return layer(job, call)


def in_thread(handler: Handler, threads: Threads) -> Call:
    """A plain function as an awaitable one: it runs in a thread, in the caller's context."""

    async def call(job: Job) -> Any:
        context = contextvars.copy_context()
        own = SyncJob(job, asyncio.get_running_loop())
        return await threads.run(partial(context.run, handler, own))

    return call
