"""Whether a reader of event streams has missed events that were cut off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qctl.connection.address import Client
from qctl.wire.events import STREAM_START, event_order
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import value_or


def read_stream_starts(client: Client, queues: Sequence[QueueKeys]) -> list[str | None]:
    """The id of the oldest event in each stream, in one round trip; None for an empty stream."""
    replies = client.pipeline([("XRANGE", keys("events"), "-", "+", "COUNT", 1) for keys in queues])
    found = [value_or(reply, []) for reply in replies]
    return [str(entries[0][0]) if entries else None for entries in found]


def has_missed(cursor: str, start: str | None) -> bool:
    """Whether events after the last one read may have been cut off.

    Args:
        cursor: id of the last event read.
        start: id of the oldest event in the stream; None for an empty stream.
    """
    return start is not None and event_order(start) > event_order(cursor)


def read_gaps(client: Client, cursors: Mapping[QueueKeys, str]) -> list[QueueKeys]:
    """Queues whose streams no longer have the event after which the last read began.

    Call this after that read; one round trip. As long as that event is there, no later one has been
    missed. If it is gone, some may have been: it was cut off, the stream was deleted, or Redis has
    come back with older data.

    Args:
        cursors: for each queue the id after which the last read began.
    """
    # With a stream that was empty, nothing can be said.
    known = [(keys, cursor) for keys, cursor in cursors.items() if cursor != STREAM_START]
    commands = [("XRANGE", keys("events"), cursor, cursor, "COUNT", 1) for keys, cursor in known]
    replies = client.pipeline(commands)
    return [
        keys for (keys, _), reply in zip(known, replies, strict=True) if not value_or(reply, [])
    ]
