"""Sends the calls of running jobs to Redis, and repeats them while Redis is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from qctl.connection import slot_moves
from qctl.connection.address import Arg
from qctl.errors import ReplyError, UnreachableError, UsageError, is_outage
from qctl.runtime.loop.connection import reconnect_pauses
from qctl.runtime.loop.shared_connection import SharedConnection
from qctl.wire.keys import QueueKeys
from qctl.wire.scripts import ScriptCall

# Not None, because a lifespan may yield None.
_NO_STATE = object()


class RetryingLink:
    """Sends the calls of running jobs over the engine's connection.

    A handler that has done its work must not fail because Redis restarts. So a call is repeated
    until Redis replies, an error is permanent, or the connection is closed.
    """

    def __init__(self, keys: QueueKeys, connection: SharedConnection) -> None:
        self.keys = keys
        self._connection = connection
        self._state: Any = _NO_STATE

    @property
    def state(self) -> Any:
        """What the worker's lifespan has yielded. Raises UsageError if there is no lifespan."""
        if self._state is _NO_STATE:
            raise UsageError(
                f"the worker of {self.keys.name} has no lifespan, so its jobs have no state",
                hint=f"Worker({self.keys.name!r}, lifespan=…)",
            )
        return self._state

    def set_state(self, state: Any) -> None:
        """Make ``state`` available to jobs."""
        self._state = state

    async def run_call(self, call: ScriptCall) -> Any:
        """Run a script. If its reply is lost, the call is sent again, so the script may run twice.

        Raises:
            ReplyError: the script failed, and would fail again.
            UnreachableError: the connection is closed.
        """
        return (await self.run_call_noting_retries(call))[0]

    async def command(self, *command: Arg) -> Any:
        """Send one command. ``run_call`` describes when it is sent again, and the errors."""
        return (await self._repeat_while_away(lambda: self._connection.call(*command)))[0]

    async def run_call_noting_retries(self, call: ScriptCall) -> tuple[Any, bool]:
        """Run a script as ``run_call`` does.

        Returns:
            the reply, and whether Redis was away before the reply. If Redis was away, the script
            may have run in an earlier attempt too, or the job's lock may have expired.
        """
        return await self._repeat_while_away(lambda: self._connection.run_call(call))

    async def _repeat_while_away(self, send: Callable[[], Awaitable[Any]]) -> tuple[Any, bool]:
        was_away = False
        pauses = reconnect_pauses()
        while True:
            is_open = False
            try:
                await self._connection.open()
                is_open = True
                return await send(), was_away
            except (UnreachableError, ReplyError) as error:
                # An error while connecting is temporary: the same Redis accepted us before.
                is_temporary = not is_open or is_outage(error)
                if self._connection.is_closed or not is_temporary:
                    raise
                was_away |= not slot_moves.is_refusal(error)
            await asyncio.sleep(next(pauses))
