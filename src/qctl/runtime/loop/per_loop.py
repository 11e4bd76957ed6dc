"""One connection for each event loop that uses a queue, closed together with its loop.

A module-level ``AsyncQueue`` outlives loops (``asyncio.run`` twice, a loop per thread) and forks.
A connection does not: it belongs to one loop, and its replies to one process.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable

from qctl.runtime.loop.connection import AsyncConnection

# A connection, and the generator that closes it when its loop ends.
_Entry = tuple[AsyncConnection, AsyncGenerator[None, None]]


class LoopConnections:
    """The connections of an ``AsyncQueue``.

    Args:
        make: returns a new connection, not yet open.
    """

    def __init__(self, make: Callable[[], AsyncConnection]) -> None:
        self._make = make
        self._entries: dict[asyncio.AbstractEventLoop, _Entry] = {}
        self._pid = os.getpid()
        self._inherited: list[dict[asyncio.AbstractEventLoop, _Entry]] = []

    async def get(self) -> AsyncConnection:
        """The running loop's connection, made on first use."""
        if self._pid != os.getpid():
            self._leave_to_parent()
        loop = asyncio.get_running_loop()
        if entry := self._entries.get(loop):
            return entry[0]
        for ended in [other for other in self._entries if other.is_closed()]:
            del self._entries[ended]
        connection = self._make()
        until_end = _until_loop_ends(connection)
        self._entries[loop] = connection, until_end
        # The loop remembers a generator that has begun, and ends it before it closes.
        await anext(until_end)
        return connection

    async def close(self) -> None:
        """Close the running loop's connection; others close with their loops."""
        entry = self._entries.pop(asyncio.get_running_loop(), None)
        if entry is not None and self._pid == os.getpid():
            await entry[1].aclose()

    def _leave_to_parent(self) -> None:
        """In a forked child: give up the connections of the parent."""
        self._pid = os.getpid()
        for connection, _ in self._entries.values():
            connection.close_inherited()
        # Kept for ever: to collect a loop of the parent would remove its descriptors from the epoll
        # instance that both processes share.
        self._inherited.append(self._entries)
        self._entries = {}


async def _until_loop_ends(connection: AsyncConnection) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await connection.close()
