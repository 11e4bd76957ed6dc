"""Waits for markers while a worker has room, if its last fetch showed that no job can run now.

A marker is BullMQ's signal to one waiting worker: a job can run now, or a delayed job is due at a
certain time (wire format 7.2, 7.3).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Protocol

from qctl.connection.address import Address
from qctl.errors import QctlError
from qctl.runtime.logs import Log
from qctl.runtime.loop.connection import AsyncConnection, reconnect_pauses
from qctl.runtime.loop.options import WorkerOptions
from qctl.runtime.loop.shared_connection import SharedConnection
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import client_name
from qctl.wire.write import worker_calls

# The longest and the shortest timeout of one blocking command while a delayed job waits.
# Redis before 7.0.8 does not block for less than 2 ms.
MAX_BLOCK_S, MIN_BLOCK_S = 10.0, 0.002
# In ``leave``: how long Redis may take to end the blocking command, or to notice the disconnect.
LEAVE_S = 0.2
# How long ``leave`` takes at most, if Redis does not answer. The end of a worker waits for it.
MAX_LEAVE_S = 2.0


class Fetcher(Protocol):
    """The part of an ``Engine`` that its listener uses."""

    keys: QueueKeys
    log: Log
    # Takes commands while the listener's own connection blocks.
    connection: SharedConnection

    @property
    def has_room(self) -> bool: ...

    @property
    def wants_marker(self) -> bool: ...

    def fetch_again(self) -> None: ...


class Listener:
    """The blocking connection of an engine. Its name shows the worker in CLIENT LIST.

    Without a marker, the engine fetches again after ``drain_delay_s``. If a delayed job
    waits, the engine fetches again when that job is due, but after 10 s at the latest.
    """

    def __init__(self, fetcher: Fetcher, address: Address, options: WorkerOptions) -> None:
        self._fetcher = fetcher
        self._drain_delay_s = options.drain_delay_s
        keys = fetcher.keys
        self._connection = AsyncConnection(
            address,
            key=keys(""),
            name=client_name(keys.prefix, keys.name, options.name),
            max_block_s=max(MAX_BLOCK_S, options.drain_delay_s),
        )
        self._is_wanted = asyncio.Event()
        self._is_leaving = False
        self._next_delayed_ms = 0
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, and be ready to ``listen``. Raises what ``AsyncConnection.open`` raises."""
        await self._connection.open()
        self._task = asyncio.create_task(self._run(), name=f"listen {self._fetcher.keys.name}")

    def listen(self, next_delayed_ms: int) -> None:
        """Begin to wait for a marker, or until the next delayed job is due.

        Args:
            next_delayed_ms: when that job is due, epoch ms; 0 if no job is delayed.
        """
        self._next_delayed_ms = next_delayed_ms
        self._is_wanted.set()

    async def leave(self) -> None:
        """Stop waiting and disconnect, when the engine stops; takes ``MAX_LEAVE_S`` at most.

        Disconnecting alone could lose a marker. Until Redis notices the disconnect, Redis may send
        a marker to this connection; then no other worker is woken for that job.
        """
        task, self._task = self._task, None
        if task is None:
            return
        self._is_leaving = True
        self._is_wanted.set()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MAX_LEAVE_S):
                    await self._leave_in_order(task)
        finally:
            task.cancel()
            await self._connection.close()

    async def _leave_in_order(self, task: asyncio.Task[None]) -> None:
        commands = self._fetcher.connection
        with contextlib.suppress(QctlError):
            if self._connection.client_id:
                await commands.call(*worker_calls.unblock(self._connection.client_id))
        await asyncio.wait([task], timeout=LEAVE_S)
        if not task.done():
            # Redis does not allow CLIENT, or a marker is on its way here. After the disconnect, a
            # marker would be lost, so add another one.
            task.cancel()
            await self._connection.close()
            await asyncio.sleep(LEAVE_S)
            with contextlib.suppress(QctlError):
                await commands.call(*worker_calls.put_marker(self._fetcher.keys, "0", "0"))

    async def _run(self) -> None:
        pauses = reconnect_pauses()
        while not self._is_leaving:
            await self._is_wanted.wait()
            self._is_wanted.clear()
            try:
                await self._await_marker()
            except QctlError as error:
                self._fetcher.log.warning("cannot wait for jobs", why=error.why or error.what)
                await asyncio.sleep(next(pauses))
            else:
                pauses = reconnect_pauses()
            self._fetcher.fetch_again()

    async def _await_marker(self) -> None:
        """Wait for a marker, a due job or the timeout, or until the engine wants no marker."""
        fetcher = self._fetcher
        while fetcher.wants_marker:
            timeout_s = self._drain_delay_s
            if self._next_delayed_ms:
                left_s = self._next_delayed_ms / 1000 - time.time()
                if left_s <= 0:
                    return
                timeout_s = min(max(left_s, MIN_BLOCK_S), MAX_BLOCK_S)
            popped = await self._connection.call(
                *worker_calls.await_marker(fetcher.keys, timeout_s)
            )
            if popped is None:
                return
            _, member, score = popped
            if not fetcher.has_room:
                # The engine is full or stopping by now: put the marker back for other workers.
                await self._connection.call(*worker_calls.put_marker(fetcher.keys, member, score))
                return
            due_ms = int(float(score))
            # 0: a job can run now. Otherwise: when a delayed job is due, epoch ms.
            if not due_ms:
                return
            self._next_delayed_ms = min(due_ms, self._next_delayed_ms or due_ms)
