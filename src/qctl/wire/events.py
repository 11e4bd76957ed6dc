"""The event stream (wire format 8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qctl.connection.address import Arg, Client
from qctl.errors import ReplyError
from qctl.grouping import grouped
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import checked, read_json, read_values, to_dict, to_int

# At most this many new events of a queue are read at a time; the next read returns the rest.
READ_COUNT = 1000
# How many past events one read returns. The number is small, because an event may be large.
EVENT_WINDOW = 250
# The id before the first event of any stream.
STREAM_START = "0-0"
# The highest number that an id can have after its dash.
LAST_NUMBER = 2**64 - 1
_JSON_FIELDS = frozenset({"returnvalue", "data"})
_NUMBER_FIELDS = frozenset({"delay", "count", "attemptsMade"})


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the stream.

    Args:
        id: the stream id, ``<epoch ms of Redis>-<n>``.
        name: ``active``, ``completed`` …
        fields: the entry's other fields, all strings; with ``jobId`` if the event is about a job.
    """

    id: str
    name: str
    fields: dict[str, str]

    @property
    def job_id(self) -> str | None:
        return self.fields.get("jobId")

    @property
    def values(self) -> dict[str, Any]:
        """The fields without ``jobId``; JSON is decoded.

        ``delay`` (when a delayed job is due, epoch ms), ``count`` and ``attemptsMade`` are numbers.
        """
        values: dict[str, Any] = {k: text for k, text in self.fields.items() if k != "jobId"}
        for name in _JSON_FIELDS & values.keys():
            values[name], _ = read_json(values[name], None)
        for name in _NUMBER_FIELDS & values.keys():
            number = to_int(values[name])
            values[name] = values[name] if number is None else number
        return values

    @property
    def is_forced(self) -> bool:
        """Whether ``qctl resume --force`` wrote the event."""
        return self.name == "resumed" and self.fields.get("qctl") == "force"

    @property
    def at_ms(self) -> int:
        """When the event was written, by Redis' clock."""
        return event_order(self.id)[0]


def event_order(event_id: str) -> tuple[int, int]:
    """The key by which stream ids are sorted."""
    at_ms, _, number = event_id.partition("-")
    return int(at_ms), int(number or 0)


def last_event_id(client: Client, keys: QueueKeys) -> str:
    """The id of the newest event; ``0-0`` for an empty stream."""
    return parse_last_id(client.call(*last_id_command(keys)))


def last_id_command(keys: QueueKeys) -> tuple[Arg, ...]:
    """The command of ``last_event_id``; see ``parse_last_id``."""
    return ("XREVRANGE", keys("events"), "+", "-", "COUNT", 1)


def parse_last_id(reply: Any) -> str:
    """The id in the reply to ``last_id_command``; ``0-0`` for an empty stream."""
    return str(reply[0][0]) if reply else STREAM_START


@dataclass(frozen=True, slots=True)
class Stream:
    """The events of a queue that Redis has kept.

    Args:
        oldest_id: None if there are no events.
        is_cut: whether events have been trimmed or deleted. Always True before Redis 7, which is
            the first version to report this.
        last_id: the highest id that any event of the stream has had, even if Redis no longer has
            that event.
    """

    length: int
    oldest_id: str | None
    is_cut: bool
    last_id: str


def read_stream(client: Client, keys: QueueKeys) -> Stream | None:
    """The queue's stream; None if its key does not exist. (An empty stream has a key.)"""
    try:
        flat = client.call(*stream_command(keys))
    except ReplyError as error:
        flat = error
    return parse_stream(flat)


def stream_command(keys: QueueKeys) -> tuple[Arg, ...]:
    """The command of ``read_stream``; see ``parse_stream``."""
    return ("XINFO", "STREAM", keys("events"))


def parse_stream(flat: Any) -> Stream | None:
    """The stream in the reply to ``stream_command``; None if its key does not exist."""
    if isinstance(flat, ReplyError) and "no such key" in flat.raw:
        return None
    facts: dict[str, Any] = to_dict(checked(flat))
    oldest = facts["first-entry"]
    return Stream(
        length=int(facts["length"]),
        oldest_id=str(oldest[0]) if oldest else None,
        is_cut=facts.get("entries-added") != facts["length"],
        last_id=str(facts["last-generated-id"]),
    )


def past_events(
    client: Client, keys: QueueKeys, *, since: str = "-", window: int = EVENT_WINDOW
) -> Iterator[Event]:
    """The events that Redis has kept, newest first.

    Args:
        since: the oldest id to return; ``-`` for all events.
        window: events per round trip.
    """
    until = "+"
    while True:
        entries = client.call("XREVRANGE", keys("events"), until, since, "COUNT", window)
        for entry_id, flat in entries:
            yield to_event(entry_id, flat)
        if len(entries) < window:
            return
        until = previous_id(str(entries[-1][0]))


def previous_id(entry_id: str) -> str:
    """The id just before this one, for Redis 6.0, where a range cannot exclude its end."""
    ms, _, number = entry_id.partition("-")
    if int(number) > 0:
        return f"{ms}-{int(number) - 1}"
    return f"{max(int(ms) - 1, 0)}-{LAST_NUMBER if int(ms) else 0}"


def last_event_ids(client: Client, queues: Sequence[QueueKeys]) -> list[str]:
    """Each queue's ``last_event_id``, in one round trip; ``0-0`` if the key has a wrong type."""
    newest = recent_events(client, queues, 1).values()
    return [events[0].id if events else STREAM_START for events in newest]


def first_event_ids(client: Client, queues: Sequence[QueueKeys]) -> list[str | None]:
    """The id of each queue's oldest event, in one round trip; None for a queue without events."""
    commands = [("XRANGE", keys("events"), "-", "+", "COUNT", 1) for keys in queues]
    return [str(found[0][0]) if found else None for found in read_values(client, commands, ())]


def has_missed(cursor: str, oldest: str | None) -> bool:
    """Whether events may have been trimmed before a reader could read them.

    Args:
        cursor: the id of the last event that was read.
        oldest: the id of the oldest event in the stream; None for an empty stream.
    """
    return oldest is not None and event_order(oldest) > event_order(cursor)


def read_gaps(client: Client, cursors: Mapping[QueueKeys, str]) -> list[QueueKeys]:
    """Queues whose last read may have missed events.

    Call this after the read; it takes one round trip. If the stream still has the event after which
    the read began, the read has missed nothing. If that event is gone, the stream was trimmed or
    deleted, or Redis has restarted with older data.

    Args:
        cursors: for each queue the id after which the last read began.
    """
    # If the stream was empty before the read, there is no event to look for.
    known = {keys: cursor for keys, cursor in cursors.items() if cursor != STREAM_START}
    commands = [("XRANGE", keys("events"), at, at, "COUNT", 1) for keys, at in known.items()]
    found = read_values(client, commands)
    return [keys for keys, entries in zip(known, found, strict=True) if not entries]


def read_events(
    client: Client,
    cursors: dict[QueueKeys, str],
    *,
    block_ms: int = 0,
    count: int = READ_COUNT,
) -> list[tuple[QueueKeys, Event]]:
    """The new events of several queues.

    Args:
        cursors: for each queue the id of the last event that was read; updated in place.
        block_ms: how long to wait at most if there are no new events; 0 does not wait.
        count: at most this many events of each queue are read.
    """
    groups = grouped(cursors, _slot_tag)
    events: list[tuple[QueueKeys, Event]] = []
    for group in groups.values():
        by_key = {keys("events"): keys for keys in group}
        # The groups are read in turn and share block_ms. After the first event, no read waits.
        wait_ms = 0 if events else block_ms // len(groups)
        ids = {key: cursors[keys] for key, keys in by_key.items()}
        reply = client.call(*_read_command(ids, wait_ms, count), timeout_s=wait_ms / 1000)
        for key, entries in reply or ():
            keys = by_key[key]
            for entry_id, flat in entries:
                event = to_event(entry_id, flat)
                cursors[keys] = event.id
                events.append((keys, event))
    return events


def _read_command(ids: Mapping[str, str], block_ms: int, count: int) -> tuple[Arg, ...]:
    """The command that reads new events of several streams.

    Args:
        ids: the key of each stream → the id after which to read.
    """
    block = ("BLOCK", block_ms) if block_ms > 0 else ()
    return ("XREAD", "COUNT", count, *block, "STREAMS", *ids, *ids.values())


def next_events_command(keys: QueueKeys, after: str, block_ms: int) -> tuple[Arg, ...]:
    """The command that waits for the events of one queue; see ``parse_next_events``."""
    return _read_command({keys("events"): after}, block_ms, READ_COUNT)


def parse_next_events(reply: Any) -> list[Event]:
    """The events in the reply to ``next_events_command``; none if the time was up."""
    return [to_event(*entry) for _, entries in reply or () for entry in entries]


def _slot_tag(keys: QueueKeys) -> str:
    """The hash tag that decides the slot of the queue's keys in a cluster, or "" (wire format 2.3).

    All keys of one XREAD must be in one slot, so queues with the same tag are read together.
    """
    _, brace, rest = keys("").partition("{")
    tag, closed, _ = rest.partition("}")
    return tag if brace and closed else ""


def to_event(entry_id: str, flat: Sequence[str] | None) -> Event:
    """The event in an entry of the stream; ``flat`` is ``[field, value, field, value …]``."""
    fields = to_dict(flat or ())
    return Event(str(entry_id), fields.pop("event", ""), fields)


def recent_events(
    client: Client, queues: Sequence[QueueKeys], count: int
) -> dict[QueueKeys, list[Event]]:
    """The last ``count`` events of each queue, newest first, in one round trip."""
    commands = [("XREVRANGE", keys("events"), "+", "-", "COUNT", count) for keys in queues]
    return {
        keys: [to_event(*entry) for entry in entries]
        for keys, entries in zip(queues, read_values(client, commands, ()), strict=True)
    }
