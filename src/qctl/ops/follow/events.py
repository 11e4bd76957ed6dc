"""The recent and the new events of a queue, from its event stream (wire format 8)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from qctl.connection.address import Arg, Client
from qctl.errors import QctlError, RefusedError, UsageError, is_outage
from qctl.ops.times import from_epoch_ms, parse_time, to_epoch_ms, utc_datetime
from qctl.similar import similar_names
from qctl.wire.events import (
    EVENT_WINDOW,
    LAST_NUMBER,
    Event,
    event_order,
    last_event_id,
    past_events,
    previous_id,
    read_stream,
)
from qctl.wire.follower import Follower, Gap
from qctl.wire.keys import QueueKeys
from qctl.wire.read.server import clock_ms
from qctl.wire.read.snapshot import QueueSnapshot

DEFAULT_LIMIT = 50
# How long one read waits for an event.
BLOCK_MS = 5000
# The pause between two attempts to reach Redis again.
RETRY_S = 0.5
_ID = re.compile(r"\d{1,19}(-\d{1,20})?", re.ASCII)
# BullMQ's own events; apps may write others (wire format 8).
BULLMQ_EVENTS = frozenset(
    {
        *("added", "waiting", "delayed", "waiting-children", "active", "progress", "completed"),
        *("failed", "retries-exhausted", "stalled", "removed", "duplicated", "deduplicated"),
        *("debounced", "drained", "paused", "resumed", "cleaned"),
    }
)


@dataclass(frozen=True, slots=True)
class QueueEvent:
    """One event.

    Args:
        id: its id in the stream; ``--since ID`` shows the events after it.
        happened_at: when it happened, by Redis' clock; None if its id is not a time.
        fields: its other fields, with BullMQ's names. JSON is decoded. ``delay`` (when a delayed
            job is due, epoch ms), ``count`` and ``attemptsMade`` are numbers.
    """

    id: str
    queue: str
    happened_at: datetime | None
    event: str
    job_id: str | None
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EventPage:
    """The last events, oldest first.

    Args:
        total: number of events in the stream, shown or not; None without a stream.
        kept_since_at: when the oldest event in the stream happened; None if unknown.
        cut: whether older events were trimmed; True if that is unknown, as before Redis 7.
        more: whether older events in the stream also match.
    """

    queue: str
    total: int | None
    kept_since_at: datetime | None
    cut: bool
    more: bool
    events: tuple[QueueEvent, ...]


@dataclass(frozen=True, slots=True)
class Remark:
    """A remark for the reader of the events; ``lost`` is True if events may be missing."""

    text: str
    lost: bool = False


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events to show; an empty filter shows all."""

    names: frozenset[str] = frozenset()
    job_id: str | None = None

    @property
    def is_set(self) -> bool:
        return bool(self.names) or self.job_id is not None

    def matches(self, event: Event) -> bool:
        if self.names and event.name not in self.names:
            return False
        return self.job_id is None or event.job_id == self.job_id


def unknown_name_remarks(names: Iterable[str]) -> list[str]:
    """A remark on each name that is not one of BullMQ's own events and may be mistyped."""
    found = []
    for name in sorted(set(names) - BULLMQ_EVENTS):
        near = similar_names(name, sorted(BULLMQ_EVENTS))
        meant = f"; did you mean {near[0]}?" if near else ""
        found.append(f"{name!r} is not one of BullMQ's own events{meant}")
    return found


def require_stream(snapshot: QueueSnapshot) -> None:
    """Make sure that a queue has an event stream.

    Raises:
        RefusedError: it is a queue of Bull 3 or 4; these queues have no event stream.
    """
    if snapshot.format == "bull":
        raise RefusedError(
            f"{snapshot.keys.name} is a queue of Bull 3 or 4",
            why="Bull publishes its events and keeps none of them",
        )


def start_id(client: Client, since: str) -> str:
    """Convert ``--since`` to a stream id; the wanted events come after this id.

    Args:
        since: the id of an event, or a time by Redis' clock.

    Raises:
        UsageError: ``since`` has another form.
    """
    # Shorter numbers are dates, such as 20260131.
    if _ID.fullmatch(since) and (len(since) > 9 or "-" in since):
        ms, sequence = event_order(since)
        if utc_datetime(ms) is None or sequence > LAST_NUMBER:
            raise UsageError(
                f"--since {since!r} is not the id of an event",
                why="an id begins with the time of the event, in milliseconds since 1970",
                hint="--since 10m, or the `id` of an event in --output ndjson",
            )
        # An id without a second part stands for all events of its millisecond, so begin before the
        # first of these events.
        return since if "-" in since else previous_id(f"{ms}-0")
    at = parse_time(since, from_epoch_ms(clock_ms(client)))
    return previous_id(f"{max(to_epoch_ms(at), 0)}-0")


def time_of(event_id: str | None) -> datetime | None:
    """When the event with this id happened; None if the id is None or not a time."""
    return None if event_id is None else utc_datetime(event_order(event_id)[0])


def recent_events(
    client: Client,
    keys: QueueKeys,
    wanted: EventFilter,
    *,
    after: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> EventPage:
    """The last events that match, read in windows from the end of the stream.

    Args:
        after: only events after this stream id.
    """
    stream = read_stream(client, keys)
    found: list[QueueEvent] = []
    since = "-" if after is None else after
    more = False
    window = EVENT_WINDOW if wanted.is_set else min(limit + 1, EVENT_WINDOW)
    for event in past_events(client, keys, since=since, window=window):
        # ``past_events`` includes the event ``after`` itself.
        if event.id == after or not wanted.matches(event):
            continue
        if len(found) == limit:
            more = True
            break
        found.append(queue_event(keys, event))
    return EventPage(
        queue=keys.name,
        total=None if stream is None else stream.length,
        kept_since_at=time_of(stream.oldest_id) if stream else None,
        cut=stream is not None and stream.is_cut,
        more=more,
        events=tuple(reversed(found)),
    )


def follow_events(
    client: Client,
    keys: QueueKeys,
    wanted: EventFilter,
    *,
    after: str | None = None,
    block_ms: int = BLOCK_MS,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[QueueEvent | Remark]:
    """Yield events as they happen, without end; an outage of Redis only interrupts them.

    Args:
        after: start after this stream id; None starts with the next event.
        block_ms: how long one read waits.

    Raises:
        QctlError: Redis cannot be reached at the start, or refuses a command at any time.
    """
    cursor = last_event_id(client, keys) if after is None else after
    follower = Follower(keys, cursor, is_event=after is None)
    away = False
    while True:
        try:
            command = follower.read_command(block_ms)
            reply = client.call(*command, timeout_s=block_ms / 1000)
            checks = _unless_away(client, follower.check_commands(), has_events=bool(reply))
        except QctlError as error:
            if not is_outage(error):
                raise
            if not away:
                yield Remark(f"{error.what}; trying again")
            away = True
            sleep(RETRY_S)
            continue
        if away:
            away = False
            yield Remark("Redis is back")
        for event in follower.advance(reply, checks):
            if isinstance(event, Gap):
                yield Remark(event.why, lost=True)
            elif wanted.matches(event):
                yield queue_event(keys, event)


def _unless_away(
    client: Client, commands: Sequence[Sequence[Arg]], *, has_events: bool
) -> list[Any] | None:
    """The replies; None if Redis is away but there are events to show.

    After the events are shown, the next read reports that Redis is away.
    """
    try:
        return client.pipeline(commands)
    except QctlError as error:
        if not has_events or not is_outage(error):
            raise
        return None


def queue_event(keys: QueueKeys, event: Event) -> QueueEvent:
    """An event of the stream, with its fields decoded."""
    happened_at = utc_datetime(event.at_ms)
    return QueueEvent(event.id, keys.name, happened_at, event.name, event.job_id, event.values)
