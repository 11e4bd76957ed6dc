"""Where event streams begin by now: whether a reader has missed events that were cut off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qctl.connection.address import Client
from qctl.wire.events import STREAM_START, event_order
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import value_or


def read_stream_starts(client: Client, queues: Sequence[QueueKeys]) -> list[str | None]:
    """The id of the oldest event that each stream still has, in one round trip."""
    replies = client.pipeline([("XRANGE", keys("events"), "-", "+", "COUNT", 1) for keys in queues])
    found = [value_or(reply, []) for reply in replies]
    return [str(entries[0][0]) if entries else None for entries in found]


def has_missed(cursor: str, start: str | None) -> bool:
    """Whether events behind the last one read may have been cut off.

    Args:
        cursor: id of the last event read.
        start: id of the oldest one there is; None for an empty stream.
    """
    return start is not None and event_order(start) > event_order(cursor)


def read_gaps(client: Client, cursors: Mapping[QueueKeys, str]) -> list[QueueKeys]:
    """Queues whose streams no longer have the event behind which the last read began.

    To be called after that read; one round trip. As long as that event is there, none after it has
    been missed. When it is not, some may have been: it was cut off, the stream was deleted, or
    Redis has come back with older data.

    Args:
        cursors: id of the last event of the read before.
    """
    # Of a stream that had none nothing can be said.
    known = [(keys, cursor) for keys, cursor in cursors.items() if cursor != STREAM_START]
    commands = [("XRANGE", keys("events"), cursor, cursor, "COUNT", 1) for keys, cursor in known]
    replies = client.pipeline(commands) if commands else []
    return [
        keys for (keys, _), reply in zip(known, replies, strict=True) if not value_or(reply, [])
    ]
