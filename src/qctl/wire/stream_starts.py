"""Where event streams begin by now: whether a reader has missed events that were cut off."""

from __future__ import annotations

from collections.abc import Sequence

from qctl.connect import Client
from qctl.wire.jobs import typed
from qctl.wire.keys import QueueKeys


def read_stream_starts(client: Client, queues: Sequence[QueueKeys]) -> list[str | None]:
    """The id of the oldest event that each stream still has, in one round trip."""
    replies = client.pipeline([("XRANGE", keys("events"), "-", "+", "COUNT", 1) for keys in queues])
    found = [typed(reply, []) for reply in replies]
    return [str(entries[0][0]) if entries else None for entries in found]


def has_missed(cursor: str, start: str | None) -> bool:
    """Whether events behind the last one read may have been cut off.

    Args:
        cursor: id of the last event read.
        start: id of the oldest one there is; None for an empty stream.
    """
    return start is not None and _parts(start) > _parts(cursor)


def _parts(event_id: str) -> tuple[int, int]:
    at_ms, _, count = event_id.partition("-")
    return int(at_ms), int(count or 0)
