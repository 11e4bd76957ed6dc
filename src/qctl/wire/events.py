"""The event stream (wire format 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.connect import Client
from qctl.wire.jobs import pairs
from qctl.wire.keys import QueueKeys

# Events taken per read. A drain reads several times a second, so this is never the bound.
READ_COUNT = 1000


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the stream.

    Args:
        id: the stream id, ``<epoch ms of Redis>-<n>``.
        name: ``active``, ``completed`` …
        fields: the rest, all strings; ``jobId`` where the event is about a job.
    """

    id: str
    name: str
    fields: dict[str, str]

    @property
    def job_id(self) -> str | None:
        return self.fields.get("jobId")

    @property
    def at_ms(self) -> int:
        """When it was written, by Redis' clock."""
        return int(self.id.partition("-")[0])


def last_event_id(client: Client, keys: QueueKeys) -> str:
    """The id after which new events come; ``0-0`` for an empty stream."""
    newest = client.call("XREVRANGE", keys("events"), "+", "-", "COUNT", 1)
    return str(newest[0][0]) if newest else "0-0"


def read_events(
    client: Client, cursors: dict[QueueKeys, str], *, block_ms: int = 0
) -> list[tuple[QueueKeys, Event]]:
    """New events of several queues, and moves the cursors past them.

    Args:
        cursors: the last event id seen of each queue; updated in place.
        block_ms: how long to wait for the first event, in milliseconds; 0 does not wait.
    """
    if not cursors:
        return []
    by_key = {keys("events"): keys for keys in cursors}
    block = ("BLOCK", block_ms) if block_ms > 0 else ()
    reply = client.call(
        *("XREAD", "COUNT", READ_COUNT, *block, "STREAMS", *by_key, *cursors.values()),
        timeout_s=block_ms / 1000,
    )
    events = []
    for key, entries in reply or ():
        keys = by_key[key]
        for entry_id, flat in entries:
            event = _event(entry_id, flat)
            cursors[keys] = event.id
            events.append((keys, event))
    return events


def _event(entry_id: str, flat: Sequence[str] | None) -> Event:
    fields = pairs(flat or ())
    return Event(str(entry_id), fields.pop("event", ""), fields)
