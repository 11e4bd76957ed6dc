"""How jobs in hand reach Redis: while Redis is away, a call is made again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from qctl.connection import slot_moves
from qctl.connection.address import Arg
from qctl.errors import ReplyError, UnreachableError, is_outage
from qctl.runtime.loop.connection import AsyncConnection, reconnect_pauses
from qctl.wire.keys import QueueKeys
from qctl.wire.scripts import ScriptCall


class RetryingLink:
    """The connection of an engine, as its jobs use it.

    A handler that has done its work must not fail because Redis restarts. So a call ends only with
    a reply, with an error that would come again, or when the connection is closed for good.
    """

    def __init__(self, keys: QueueKeys, connection: AsyncConnection) -> None:
        self.keys = keys
        self._connection = connection

    async def run_call(self, call: ScriptCall) -> Any:
        """Run a transition, which may be run twice when its first reply is lost.

        Raises:
            ReplyError: the script failed, and would fail again.
            UnreachableError: the connection is closed.
        """
        return (await self.run_call_noting_retries(call))[0]

    async def command(self, *command: Arg) -> Any:
        """Send one command; like ``run_call``."""
        return (await self._persist(lambda: self._connection.call(*command)))[0]

    async def run_call_noting_retries(self, call: ScriptCall) -> tuple[Any, bool]:
        """Like ``run_call``; also whether Redis was away before the reply.

        Then an earlier attempt may have been done, or locks may have expired.
        """
        return await self._persist(lambda: self._connection.run_call(call))

    async def _persist(self, send: Callable[[], Awaitable[Any]]) -> tuple[Any, bool]:
        was_away = False
        pauses = reconnect_pauses()
        while True:
            is_open = False
            try:
                await self._connection.open()
                is_open = True
                return await send(), was_away
            except (UnreachableError, ReplyError) as error:
                # An error while opening passes: the same Redis let us in before.
                will_pass = not is_open or is_outage(error)
                if self._connection.is_closed or not will_pass:
                    raise
                was_away |= not slot_moves.is_refusal(error)
            await asyncio.sleep(next(pauses))
