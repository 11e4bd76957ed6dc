"""How a queue and its handles reach Redis: from threads, event loops and forked processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from qctl.connection.address import Address, Client
from qctl.connection.connect import connect
from qctl.errors import UsageError
from qctl.runtime.loop.connection import AsyncConnection
from qctl.runtime.loop.endings import BLOCK_S, EndingWatches
from qctl.runtime.loop.per_loop import LoopConnections
from qctl.wire import scripts
from qctl.wire.keys import QueueKeys
from qctl.wire.scripts import ScriptCall

P = ParamSpec("P")
T = TypeVar("T")
# A function of ``wire/``. Its first arguments are the client and the queue's keys.
Work = Callable[Concatenate[Client, QueueKeys, P], T]


class Access:
    """Reaches Redis over one connection, which one thread at a time uses.

    Args:
        url: the URL of Redis.
        client: an open client to use instead of a new one.
    """

    def __init__(self, keys: QueueKeys, url: str, client: Client | None = None) -> None:
        self.keys = keys
        # The running server's address. The URL ``embedded:`` would start another server each time.
        self.address: Address | None = None
        if client is None:
            self.address, client = connect(url)
        self._client = client
        # By pid: if another thread holds a lock during a fork, the lock stays locked in the child.
        self._locks: dict[int, threading.Lock] = {}

    def call(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that reads or changes the queue."""
        with self._one_at_a_time():
            return work(self._client, self.keys, *args, **kwargs)

    def call_alone(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that may take long, over a connection of its own."""
        with contextlib.closing(self.new_client()) as client:
            return work(client, self.keys, *args, **kwargs)

    def run(self, call: ScriptCall) -> Any:
        """Run a script; see ``scripts.run``."""
        with self._one_at_a_time():
            return scripts.run_call(self._client, call)

    def run_all(self, calls: Sequence[ScriptCall]) -> list[Any]:
        """Run scripts; see ``scripts.run_all``."""
        with self._one_at_a_time():
            return scripts.run_all(self._client, calls)

    def new_client(self) -> Client:
        """A connection for one thread that waits.

        Raises:
            UsageError: the queue was made with ``client=``.
        """
        if self.address is None:
            raise UsageError(
                "waiting needs another connection, and this Queue has only its client",
                hint="make the Queue without client=",
            )
        return connect(self.address.url)[1]

    def close(self) -> None:
        """Close the connection, unless ``client`` was given."""
        if self.address is not None:
            self._client.close()

    def _one_at_a_time(self) -> threading.Lock:
        return self._locks.setdefault(os.getpid(), threading.Lock())


class AsyncAccess:
    """Reaches Redis over one connection for each event loop.

    Functions that block run in a thread, over a connection that all event loops share. That
    connection is made when it is first needed.

    Args:
        url: the URL of Redis.
        given: an open connection to use instead of new ones.
    """

    def __init__(self, keys: QueueKeys, url: str, given: AsyncConnection | None = None) -> None:
        self.keys = keys
        self._given = given
        # This one also keeps an embedded Redis running.
        self._blocking = Access(keys, url if given is None else given.address.url)
        self._connections = LoopConnections(self.new_connection)
        self.endings = EndingWatches(keys, lambda: self.new_connection(BLOCK_S))

    def new_connection(self, max_block_s: float = 0.0) -> AsyncConnection:
        """Another connection, not opened yet, for commands that block for ``max_block_s``."""
        assert self._blocking.address is not None  # noqa: S101 - no client was given
        return AsyncConnection(self._blocking.address, key=self.keys(""), max_block_s=max_block_s)

    async def connection(self) -> AsyncConnection:
        """The running loop's connection."""
        return self._given or await self._connections.get()

    async def call(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that reads or changes the queue, in a thread."""
        return await asyncio.to_thread(lambda: self._blocking.call(work, *args, **kwargs))

    async def call_alone(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that may take long, in a thread and over a connection of its own."""
        return await asyncio.to_thread(lambda: self._blocking.call_alone(work, *args, **kwargs))

    async def run(self, call: ScriptCall) -> Any:
        """Run a script; see ``AsyncConnection.run_call``."""
        return await (await self.connection()).run_call(call)

    async def run_all(self, calls: Sequence[ScriptCall]) -> list[Any]:
        """Run scripts that have the same name."""
        if not calls:
            return []
        # After the first call Redis knows the script, so all other calls are sent together.
        connection = await self.connection()
        first = await connection.run_call(calls[0])
        rest = await asyncio.gather(*map(connection.run_call, calls[1:]), return_exceptions=True)
        for answer in rest:
            if isinstance(answer, BaseException):
                raise answer
        return [first, *rest]

    async def close(self) -> None:
        """Close this event loop's connections, and the shared one."""
        await self.endings.close()
        await self._connections.close()
        self._blocking.close()
