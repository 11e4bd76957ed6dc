"""Waits for markers while a worker has room and found nothing to fetch (wire format 7.2, 7.3)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from qctl.connection.address import Address
from qctl.errors import QctlError
from qctl.runtime.loop.connection import AsyncConnection
from qctl.runtime.loop.reconnect import RECONNECT_S
from qctl.wire.write import worker_calls as working

if TYPE_CHECKING:
    from qctl.runtime.loop.engine import Engine

LONGEST_BLOCK_S = 10.0
# Redis before 7.0.8 does not block for less.
SHORTEST_BLOCK_S = 0.002
# How long Redis may take to let go of a worker that leaves.
LEAVE_S = 0.2


class Listener:
    """The blocking connection of an engine; its name is how others see the worker."""

    def __init__(self, engine: Engine, address: Address, client_name: str) -> None:
        self._engine = engine
        patience_s = max(LONGEST_BLOCK_S, engine.options.drain_delay_s)
        self.connection = AsyncConnection(
            address, key=engine.keys(""), name=client_name, patience_s=patience_s
        )
        self._wanted = asyncio.Event()
        self._due_ms = 0
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, and wait for markers whenever there is reason to.

        Raises:
            UnreachableError, ReplyError: Redis cannot be reached, or does not let us in.
        """
        await self.connection.open()
        self._task = asyncio.create_task(self._run(), name=f"listen {self._engine.keys.name}")

    def listen(self, due_ms: int) -> None:
        """Begin to wait.

        Args:
            due_ms: when the next delayed job is due, epoch ms; 0 for none.
        """
        self._due_ms = due_ms
        self._wanted.set()

    async def leave(self) -> None:
        """Stop waiting and disconnect, once the engine is stopping.

        Merely to disconnect would not do: until Redis notices, it may give us a marker, and wake
        nobody else for the job that the marker stands for.
        """
        task, self._task = self._task, None
        if task is None:
            return
        self._wanted.set()
        with contextlib.suppress(QctlError):
            if self.connection.client_id:
                command = working.unblock(self.connection.client_id)
                await self._engine.connection.call(*command)
        await asyncio.wait([task], timeout=LEAVE_S)
        if not task.done():
            # It may not use CLIENT, or the answer is on its way still.
            task.cancel()
            await self.connection.close()
            await asyncio.sleep(LEAVE_S)
            with contextlib.suppress(QctlError):
                await self._engine.connection.call(*working.put_marker(self._engine.keys, "0", "0"))
        await self.connection.close()

    async def _run(self) -> None:
        pause_s, most_s = RECONNECT_S
        while not self._engine.is_stopping:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._await_marker()
            except QctlError as error:
                self._engine.log.warning("cannot wait for jobs", why=error.why or error.what)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, most_s)
            else:
                pause_s = RECONNECT_S[0]
            self._engine.may_be_more()

    async def _await_marker(self) -> None:
        engine = self._engine
        while engine.is_drained and not engine.is_limited and not engine.is_stopping:
            timeout_s = engine.options.drain_delay_s
            if self._due_ms:
                left_s = self._due_ms / 1000 - time.time()
                if left_s <= 0:
                    return
                timeout_s = min(max(left_s, SHORTEST_BLOCK_S), LONGEST_BLOCK_S)
            popped = await self.connection.call(*working.await_marker(engine.keys, timeout_s))
            if popped is None:
                return
            _, member, score = popped
            if not engine.has_room or engine.is_stopping:
                # Not for us after all.
                await self.connection.call(*working.put_marker(engine.keys, member, score))
                return
            due_ms = int(float(score))
            if not due_ms:
                return
            self._due_ms = min(due_ms, self._due_ms or due_ms)
