"""The events of a queue, as they happen."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

from qctl.errors import QctlError, is_outage
from qctl.runtime.api.access import Access, AsyncAccess
from qctl.runtime.loop.connection import reconnect_pauses
from qctl.wire.events import Event, last_event_id, last_id_command, parse_last_id
from qctl.wire.follower import Follower, Gap

# How long one read waits for an event.
BLOCK_MS = 5000
# The name of an event that stands for a gap. BullMQ has no event of this name.
MISSED = "missed"


def follow(access: Access, after: str | None) -> Iterator[Event]:
    """See ``Queue.events``."""
    with contextlib.closing(access.new_client()) as client:
        cursor = last_event_id(client, access.keys) if after is None else after
        follower = Follower(access.keys, cursor, is_event=True)
        pauses = reconnect_pauses()
        while True:
            try:
                command = follower.read_command(BLOCK_MS)
                reply = client.call(*command, timeout_s=BLOCK_MS / 1000)
                checks = client.pipeline(follower.check_commands())
            except QctlError as error:
                if not is_outage(error):
                    raise
                time.sleep(next(pauses))
                continue
            pauses = reconnect_pauses()
            for event in _events(follower, cursor, reply, checks):
                yield event
                cursor = event.id


async def follow_async(access: AsyncAccess, after: str | None) -> AsyncGenerator[Event, None]:
    """See ``AsyncQueue.events``."""
    connection = access.new_connection(BLOCK_MS / 1000)
    try:
        cursor = after
        if cursor is None:
            cursor = parse_last_id(await connection.call(*last_id_command(access.keys)))
        follower = Follower(access.keys, cursor, is_event=True)
        pauses = reconnect_pauses()
        while True:
            try:
                reply = await connection.call(*follower.read_command(BLOCK_MS))
                checks = await connection.pipeline(follower.check_commands())
            except QctlError as error:
                if not is_outage(error):
                    raise
                await asyncio.sleep(next(pauses))
                continue
            pauses = reconnect_pauses()
            for event in _events(follower, cursor, reply, checks):
                yield event
                cursor = event.id
    finally:
        await connection.close()


def _events(follower: Follower, last_id: str, reply: Any, checks: Sequence[Any]) -> Iterator[Event]:
    """The next events. A gap becomes a ``missed`` event, with the id of the previous event."""
    for event in follower.advance(reply, checks):
        if isinstance(event, Gap):
            yield Event(last_id, MISSED, {"why": event.why})
        else:
            last_id = event.id
            yield event
