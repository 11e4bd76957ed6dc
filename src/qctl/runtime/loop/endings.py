"""Follows a queue's events, and wakes those who wait for the end of a job.

All waiters of an event loop share one connection. It is opened for the first waiter. It is closed
when a read has ended and nobody waits any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from qctl.errors import QctlError, UsageError, is_outage
from qctl.runtime.loop.connection import AsyncConnection, reconnect_pauses
from qctl.runtime.loop.per_loop import LoopConnections
from qctl.wire.events import (
    Event,
    last_id_command,
    next_events_command,
    parse_last_id,
    parse_next_events,
)
from qctl.wire.keys import QueueKeys
from qctl.wire.read.ending import Ending, ending_of

# How long one read waits for an event.
BLOCK_S = 5.0


class EndingWatches:
    """The watches of an ``AsyncQueue``, one for each event loop.

    Args:
        make_connection: makes a connection that may block for ``BLOCK_S``.
    """

    def __init__(self, keys: QueueKeys, make_connection: Callable[[], AsyncConnection]) -> None:
        self._keys = keys
        self._connections = LoopConnections(make_connection)
        self._watches: dict[asyncio.AbstractEventLoop, EndingWatch] = {}

    def get(self) -> EndingWatch:
        """The running loop's watch."""
        loop = asyncio.get_running_loop()
        for ended in [other for other in self._watches if other.is_closed()]:
            del self._watches[ended]
        return self._watches.setdefault(loop, EndingWatch(self._keys, self._connections))

    async def close(self) -> None:
        """End the running loop's watch. Its waiters get a UsageError."""
        watch = self._watches.pop(asyncio.get_running_loop(), None)
        if watch is not None:
            await watch.close()


class EndingWatch:
    """Follows the events of a queue on one event loop while anyone waits."""

    def __init__(self, keys: QueueKeys, connections: LoopConnections) -> None:
        self._keys = keys
        self._connections = connections
        self._waiters: dict[str, set[asyncio.Future[Ending]]] = {}
        self._task: asyncio.Task[None] | None = None
        # Set once no later event can be missed, or when the task has ended.
        self._is_following = asyncio.Event()

    async def add(self, job_id: str) -> asyncio.Future[Ending]:
        """A future that gets the job's ending, or an error if the events cannot be followed.

        Pass the future to ``discard`` when you no longer need it. Once this function has returned,
        no later event is missed. Then read the job's hash, because the job may have ended already.
        """
        future: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(job_id, set()).add(future)
        if self._task is None:
            self._is_following = asyncio.Event()
            self._task = asyncio.create_task(self._follow(), name=f"follow {self._keys.name}")
        try:
            await self._is_following.wait()
        except BaseException:
            self.discard(job_id, future)
            raise
        return future

    def discard(self, job_id: str, future: asyncio.Future[Ending]) -> None:
        """Forget a future of ``add``."""
        if not future.cancel() and not future.cancelled():
            # asyncio logs errors that nobody has read.
            future.exception()
        waiting = self._waiters.get(job_id, set())
        waiting.discard(future)
        if not waiting:
            self._waiters.pop(job_id, None)

    async def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _follow(self) -> None:
        why: QctlError = UsageError(f"the AsyncQueue of {self._keys.name} was closed")
        try:
            await self._read()
        except QctlError as error:
            why = error
        finally:
            # No ``await`` before ``_waiters`` is empty: a waiter added meanwhile would be lost.
            self._task = None
            self._is_following.set()
            for waiting in self._waiters.values():
                for future in waiting:
                    if not future.done():
                        future.set_exception(why)
            self._waiters = {}
            await self._connections.close()

    async def _read(self) -> None:
        connection = await self._connections.get()
        cursor = parse_last_id(await connection.call(*last_id_command(self._keys)))
        self._is_following.set()
        pauses = reconnect_pauses()
        while self._waiters:
            command = next_events_command(self._keys, cursor, round(BLOCK_S * 1000))
            try:
                found = parse_next_events(await connection.call(*command))
            except QctlError as error:
                if not is_outage(error):
                    raise
                await asyncio.sleep(next(pauses))
                continue
            pauses = reconnect_pauses()
            for event in found:
                self._wake(event)
                cursor = event.id

    def _wake(self, event: Event) -> None:
        waiting = self._waiters.get(event.job_id or "")
        ending = ending_of(event) if waiting else None
        if waiting and ending is not None:
            for future in waiting:
                if not future.done():
                    future.set_result(ending)
