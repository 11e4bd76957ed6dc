"""An app's own set-up and clean-up around the run of a worker."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from qctl.errors import FailedError, UsageError
from qctl.runtime.job.outcomes import text_of
from qctl.runtime.logs import Log
from qctl.runtime.places import place_in_app


class Worker(Protocol):
    """The part of a ``Worker`` that is needed here."""

    queue: str


# A function with ``yield``, decorated with ``contextlib.asynccontextmanager`` or not.
Lifespan = Callable[[Any], AbstractAsyncContextManager[Any] | AsyncIterator[Any]]


def check_lifespan(lifespan: Any) -> None:
    """Check a lifespan before it is needed.

    Raises:
        UsageError: ``lifespan`` is not a function of one argument, or is a coroutine function.
    """
    is_function = callable(lifespan)
    if is_function:
        try:
            inspect.signature(lifespan).bind(None)
        except TypeError:
            is_function = False
        except ValueError:
            pass  # a function whose signature is unknown
    is_wrong_kind = inspect.iscoroutinefunction(lifespan) or inspect.isgeneratorfunction(lifespan)
    if not is_function or is_wrong_kind:
        raise UsageError(
            f"{getattr(lifespan, '__name__', repr(lifespan))} cannot be a lifespan",
            why="a lifespan is an async function that takes the worker and yields once",
            hint="async def lifespan(worker): …; yield state; …",
        )


class RunningLifespan:
    """A lifespan from its ``yield`` on. Created by ``start``.

    It runs in a task of its own, because a worker may be started and stopped in different tasks,
    and task groups and timeouts must be left in the task that entered them.

    Attributes:
        state: what the lifespan has yielded.
    """

    def __init__(self, lifespan: Lifespan, worker: Worker) -> None:
        make: Callable[[Worker], Any] = lifespan
        if inspect.isasyncgenfunction(lifespan):
            make = asynccontextmanager(lifespan)
        self.state: Any = None
        self._context = make(worker)
        self._log = Log("worker", queue=worker.queue)
        self._stop = asyncio.Event()
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())

    @classmethod
    async def start(cls, lifespan: Lifespan, worker: Worker) -> RunningLifespan:
        """Run a lifespan up to its ``yield``.

        Raises:
            FailedError: the lifespan raised an error, or did not yield.
        """
        try:
            running = cls(lifespan, worker)
            try:
                await asyncio.shield(running._started)
            except asyncio.CancelledError:
                running._task.cancel()
                await asyncio.wait([running._task])
                raise
        except Exception as error:
            raise FailedError(
                f"the lifespan of the worker of {worker.queue} failed: {_describe(error)}"
            ) from error
        return running

    async def stop(self) -> None:
        """Let the lifespan go on after its ``yield``, and wait for its end. Errors are logged."""
        self._stop.set()
        await self._task

    async def _run(self) -> None:
        try:
            async with self._context as self.state:
                self._started.set_result(None)
                await self._stop.wait()
        except Exception as error:
            if not self._started.done():
                self._started.set_exception(error)
            elif self._stop.is_set():
                self._log.error("the lifespan failed at its end", why=_describe(error))
            else:
                self._log.error(
                    "the lifespan failed while the worker runs; the state it yielded may be "
                    "unusable",
                    why=_describe(error),
                )


def _describe(error: BaseException) -> str:
    text, at = text_of(error), place_in_app(error)
    kind = type(error).__name__
    return (f"{kind}: {text}" if text else kind) + (f" (in {at})" if at else "")
