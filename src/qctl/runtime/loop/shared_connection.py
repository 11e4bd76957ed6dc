"""One connection for the commands of all engines that use the same Redis on one event loop.

Each engine also has a blocking connection of its own (``listener.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from qctl.connection.address import Address, Arg
from qctl.runtime.loop.connection import AsyncConnection, Callback
from qctl.wire.scripts import ScriptCall

_Key = tuple[asyncio.AbstractEventLoop, str]


class _InUse:
    """A connection and the number of engines that use it."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self.users = 0


_in_use: dict[_Key, _InUse] = {}


class SharedConnection:
    """An engine's handle of the connection that it shares; works like an ``AsyncConnection``.

    In a cluster, the connection is not shared, because the queues may be on different servers.

    Attributes:
        is_closed: whether ``close`` was called. The other engines may still use the connection.
    """

    def __init__(self, address: Address, *, key: str) -> None:
        self.address = address
        self.is_closed = False
        self._connection = AsyncConnection(address, key=key)
        # The connection's key in ``_in_use``; None before ``open``, or if it is not shared.
        self._key: _Key | None = None

    @property
    def is_open(self) -> bool:
        """Whether commands may be sent."""
        return self._connection.is_open

    async def open(self) -> None:
        """Connect if there is no connection. Raises what ``AsyncConnection.open`` raises."""
        if self._key is None and not self.is_closed:
            self._join()
        await self._connection.open()

    async def call(self, *command: Arg) -> Any:
        """See ``AsyncConnection.call``."""
        return await self._connection.call(*command)

    async def pipeline(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        """See ``AsyncConnection.pipeline``."""
        return await self._connection.pipeline(commands)

    async def run_call(self, call: ScriptCall) -> Any:
        """See ``AsyncConnection.run_call``."""
        return await self._connection.run_call(call)

    def send(self, command: tuple[Any, ...], callback: Callback) -> None:
        """See ``AsyncConnection.send``."""
        self._connection.send(command, callback)

    async def close(self) -> None:
        """Use the connection no more, and close it if no other engine uses it."""
        if self.is_closed:
            return
        self.is_closed = True
        connection = self._connection
        if self._key is not None:
            shared = _in_use[self._key]
            shared.users -= 1
            if shared.users:
                # Calls after this fail, as on any closed connection.
                self._connection = AsyncConnection(self.address)
                await self._connection.close()
                return
            del _in_use[self._key]
        await connection.close()

    def _join(self) -> None:
        loop, url = asyncio.get_running_loop(), self.address.url
        if self.address.mode == "cluster" or not url:
            return
        for key in [key for key in _in_use if key[0].is_closed()]:
            del _in_use[key]
        self._key = loop, url
        shared = _in_use.setdefault(self._key, _InUse(self._connection))
        shared.users += 1
        self._connection = shared.connection
