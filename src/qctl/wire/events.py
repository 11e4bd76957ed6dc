"""The event stream (wire format 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.connect import Client
from qctl.wire.jobs import pairs, typed
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


def last_event_ids(client: Client, queues: Sequence[QueueKeys]) -> list[str]:
    """``last_event_id`` of several queues in one round trip; ``0-0`` also for a key that is no
    stream.
    """
    commands = [("XREVRANGE", keys("events"), "+", "-", "COUNT", 1) for keys in queues]
    newest = [typed(reply, ()) for reply in client.pipeline(commands)] if commands else []
    return [str(entries[0][0]) if entries else "0-0" for entries in newest]


def read_events(
    client: Client,
    cursors: dict[QueueKeys, str],
    *,
    block_ms: int = 0,
    count: int = READ_COUNT,
) -> list[tuple[QueueKeys, Event]]:
    """New events of several queues, and moves the cursors past them.

    Args:
        cursors: the last event id seen of each queue; updated in place.
        block_ms: how long to wait for the first event, in milliseconds; 0 does not wait.
        count: the most events taken of each queue.
    """
    groups: dict[str, list[QueueKeys]] = {}
    for keys in cursors:
        groups.setdefault(_slot_tag(keys), []).append(keys)
    events = []
    for group in groups.values():
        found = _read_group(client, group, cursors, block_ms // len(groups), count)
        events += found
        if found:
            # There is news: do not wait in the groups that follow.
            block_ms = 0
    return events


def _read_group(
    client: Client,
    queues: list[QueueKeys],
    cursors: dict[QueueKeys, str],
    block_ms: int,
    count: int,
) -> list[tuple[QueueKeys, Event]]:
    by_key = {keys("events"): keys for keys in queues}
    block = ("BLOCK", block_ms) if block_ms > 0 else ()
    reply = client.call(
        *("XREAD", "COUNT", count, *block, "STREAMS", *by_key),
        *(cursors[keys] for keys in queues),
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


def _slot_tag(keys: QueueKeys) -> str:
    """What a cluster places the queue's keys by, if they have a hash tag (wire format 2.3).

    One XREAD may only name keys of one slot; where there is no cluster and no tag, all are alike.
    """
    _, brace, rest = keys("").partition("{")
    tag, closed, _ = rest.partition("}")
    return tag if brace and closed else ""


def _event(entry_id: str, flat: Sequence[str] | None) -> Event:
    fields = pairs(flat or ())
    return Event(str(entry_id), fields.pop("event", ""), fields)
