"""One connection for each event loop that uses a queue, closed together with its loop.

A module-level ``AsyncQueue`` outlives loops (``asyncio.run`` twice, a loop per thread) and forks. A
connection does not: it belongs to the loop that made it, and its replies to that process.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable

from qctl.runtime.loop.connection import AsyncConnection

_Held = tuple[AsyncConnection, AsyncGenerator[None, None]]


class LoopConnections:
    """The connections of an ``AsyncQueue``.

    Args:
        make: a connection that is not open yet.
    """

    def __init__(self, make: Callable[[], AsyncConnection]) -> None:
        self._make = make
        self._held: dict[asyncio.AbstractEventLoop, _Held] = {}
        self._pid = os.getpid()
        self._inherited: list[dict[asyncio.AbstractEventLoop, _Held]] = []

    async def get(self) -> AsyncConnection:
        """The running loop's connection, made on first use."""
        if self._pid != os.getpid():
            self._leave_to_parent()
        loop = asyncio.get_running_loop()
        if held := self._held.get(loop):
            return held[0]
        for ended in [other for other in self._held if other.is_closed()]:
            del self._held[ended]
        connection = self._make()
        until_end = _until_loop_ends(connection)
        self._held[loop] = connection, until_end
        # The loop notes a generator that was begun, and ends it before it closes.
        await anext(until_end)
        return connection

    async def close(self) -> None:
        """Close the running loop's connection; others close with their loops."""
        held = self._held.pop(asyncio.get_running_loop(), None)
        if held is not None and self._pid == os.getpid():
            await held[1].aclose()

    def _leave_to_parent(self) -> None:
        """In a forked child: give up what is the parent's."""
        self._pid = os.getpid()
        for connection, _ in self._held.values():
            connection.close_inherited()
        # Kept: collecting a loop of the parent's would take its descriptors out of the epoll
        # instance that both processes share.
        self._inherited.append(self._held)
        self._held = {}


async def _until_loop_ends(connection: AsyncConnection) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await connection.close()
