"""One connection for each event loop that uses a queue, closed at the end of that loop.

Several event loops (``asyncio.run`` twice, a loop per thread) and forked processes may use the same
``AsyncQueue``. But a connection belongs to one event loop of one process.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable

from qctl.runtime.loop.connection import AsyncConnection

# A connection, and the generator that closes it when its loop ends.
_Entry = tuple[AsyncConnection, AsyncGenerator[None, None]]


class LoopConnections:
    """The connections of an ``AsyncQueue``, each made by ``make_connection`` and opened on use."""

    def __init__(self, make_connection: Callable[[], AsyncConnection]) -> None:
        self._make_connection = make_connection
        self._entries: dict[asyncio.AbstractEventLoop, _Entry] = {}
        self._pid = os.getpid()
        self._inherited: list[dict[asyncio.AbstractEventLoop, _Entry]] = []

    async def get(self) -> AsyncConnection:
        """The running loop's connection, made on first use."""
        if self._pid != os.getpid():
            self._give_up_inherited()
        loop = asyncio.get_running_loop()
        if entry := self._entries.get(loop):
            return entry[0]
        for ended in [other for other in self._entries if other.is_closed()]:
            del self._entries[ended]
        connection = self._make_connection()
        until_end = _until_loop_ends(connection)
        self._entries[loop] = connection, until_end
        # Start the generator in this loop. Before ``asyncio.run`` closes a loop, it closes the
        # async generators that were started in that loop.
        await anext(until_end)
        return connection

    async def close(self) -> None:
        """Close the running loop's connection, but not those of other event loops."""
        entry = self._entries.pop(asyncio.get_running_loop(), None)
        if entry is not None and self._pid == os.getpid():
            await entry[1].aclose()

    def _give_up_inherited(self) -> None:
        """Give up the connections that this process, a forked child, inherited from its parent."""
        self._pid = os.getpid()
        for connection, _ in self._entries.values():
            connection.close_inherited()
        # Never garbage-collected: collecting a loop of the parent would remove the parent's
        # descriptors from the epoll instance that the parent and this process share.
        self._inherited.append(self._entries)
        self._entries = {}


async def _until_loop_ends(connection: AsyncConnection) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await connection.close()
