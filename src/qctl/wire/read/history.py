"""What lately happened to jobs: the newest events of many queues, without what they carry.

An event may hold a large return value, so they are read in small windows, and only their bones are
kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qctl.connection.address import Arg, Client
from qctl.wire.events import EVENT_WINDOW, previous_id
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import read_json, to_dict, to_int, value_or
from qctl.wire.states import FINISHED

# Of a reason, which may be as long as its author likes.
_MOST_REASON = 200
# Which field of the job's hash tells the same moment by the clock of whoever did it.
_CLOCKS = {
    "added": "timestamp",
    "active": "processedOn",
    **dict.fromkeys(FINISHED, "finishedOn"),
}
_BOTH_STEPS = 2


@dataclass(frozen=True, slots=True)
class PastEvent:
    """One event: what, when by Redis' clock, and to which job.

    Args:
        prev: the state that the job was in; None where that is not told.
        reason: of a failure, the beginning of its first line.
    """

    name: str
    at_ms: int
    job_id: str | None
    prev: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class History:
    """Of one queue, newest first.

    Args:
        since_ms: from when on it is complete, by Redis' clock.
        is_empty: whether the stream has no event at all: then nothing is known.
    """

    keys: QueueKeys
    events: tuple[PastEvent, ...]
    since_ms: int
    is_empty: bool


def read_histories(
    client: Client, queues: Sequence[QueueKeys], *, since_ms: int, most: int
) -> list[History]:
    """The events of each queue since a moment, in as many round trips as the longest one takes.

    Args:
        since_ms: epoch milliseconds by Redis' clock.
        most: events of each queue; where there are more, its history begins later.
    """
    found: dict[QueueKeys, list[PastEvent]] = {keys: [] for keys in queues}
    begins = dict.fromkeys(queues, since_ms)
    pending = dict.fromkeys(queues, "+")
    empty = set()
    while pending:
        commands: list[tuple[Arg, ...]] = [
            ("XREVRANGE", keys("events"), until, "-", "COUNT", EVENT_WINDOW)
            for keys, until in pending.items()
        ]
        going_on = {}
        for keys, reply in zip(pending, client.pipeline(commands), strict=True):
            entries = value_or(reply, [])
            events = [_happening(str(entry_id), flat or ()) for entry_id, flat in entries]
            recent = [event for event in events if event.at_ms >= since_ms]
            found[keys] += recent
            if len(recent) < len(events):
                continue
            if not found[keys]:
                empty.add(keys)
                continue
            begins[keys] = found[keys][-1].at_ms
            # Where the stream ends, what was before has been cut off, or never was.
            if len(entries) == EVENT_WINDOW and len(found[keys]) < most:
                going_on[keys] = previous_id(str(entries[-1][0]))
        pending = going_on
    return [History(keys, tuple(found[keys]), begins[keys], keys in empty) for keys in queues]


def _happening(entry_id: str, flat: Sequence[str]) -> PastEvent:
    fields = to_dict(flat)
    reason = fields.get("failedReason")
    return PastEvent(
        name=fields.get("event", ""),
        at_ms=int(entry_id.partition("-")[0]),
        job_id=fields.get("jobId"),
        prev=fields.get("prev"),
        reason=None if reason is None else reason.partition("\n")[0][:_MOST_REASON],
    )


@dataclass(frozen=True, slots=True)
class ClockSample:
    """What the clock of one host said of a job against that of Redis.

    A call that waits, as for a Redis that is away, makes a clock look behind, never ahead. So of a
    job's two steps the one that looks less behind counts: no single outage delays both.

    Args:
        who: name of the worker; None for one without a name, and for ``is_producer``.
        ahead_ms: of the clock against that of Redis, at least.
        is_whole: whether both steps of a worker are known, its fetch and its end.
        at_ms: of the newest step, by Redis' clock.
    """

    keys: QueueKeys
    who: str | None
    is_producer: bool
    ahead_ms: int
    is_whole: bool
    at_ms: int


def clock_samples(client: Client, histories: Sequence[History], most: int) -> list[ClockSample]:
    """What jobs tell of their hosts' clocks, in one round trip.

    The event is stamped by Redis, and the field of the same step by whoever took it.

    Args:
        most: jobs of each queue whose producer, and whose worker is looked at; twice as many where
            both steps of the worker are known.
    """
    wanted: list[tuple[QueueKeys, bool, list[PastEvent]]] = []
    for history in histories:
        added = list(_newest(history, "added").values())
        # Many at one moment may be one call that waited.
        wanted += [(history.keys, True, [event]) for event in _spread(added, most)]
        steps = defaultdict[str, list[PastEvent]](list)
        for of_step in (_newest(history, "active"), _newest(history, "completed", "failed")):
            for job_id, event in of_step.items():
                steps[job_id].append(event)
        jobs = sorted(steps.values(), key=lambda events: -events[-1].at_ms)
        whole = [events for events in jobs if len(events) == _BOTH_STEPS]
        rest = [events for events in jobs if len(events) < _BOTH_STEPS]
        chosen = whole[: 2 * most] + rest[:most]
        wanted += [(history.keys, False, events) for events in chosen]
    reads: list[tuple[Arg, ...]] = [
        (
            *("HMGET", keys(events[0].job_id or ""), "opts" if is_producer else "pb"),
            *(_CLOCKS[event.name] for event in events),
        )
        for keys, is_producer, events in wanted
    ]
    rows = client.pipeline(reads) if reads else []
    samples = []
    for (keys, is_producer, events), reply in zip(wanted, rows, strict=True):
        text, *times = value_or(reply, (None,) * (1 + len(events)))
        aheads = [
            told_ms - event.at_ms
            for event, time in zip(events, times, strict=True)
            if (told_ms := to_int(time)) is not None
        ]
        # A producer may give a job any time that it likes.
        options: Any = read_json(text, {})[0] if is_producer else {}
        if aheads and isinstance(options, dict) and "timestamp" not in options:
            samples.append(
                ClockSample(
                    keys,
                    who=None if is_producer else text,
                    is_producer=is_producer,
                    ahead_ms=max(aheads),
                    is_whole=len(aheads) == _BOTH_STEPS,
                    at_ms=events[-1].at_ms,
                )
            )
    return samples


def _newest(history: History, *names: str) -> dict[str, PastEvent]:
    """Job id → its newest event of these; the hash tells of the last of several runs alone."""
    return {e.job_id: e for e in reversed(history.events) if e.name in names and e.job_id}


def _spread(events: Sequence[PastEvent], most: int) -> list[PastEvent]:
    """Some of them, the first and the last included."""
    if len(events) <= most:
        return list(events)
    return [events[index * (len(events) - 1) // (most - 1)] for index in range(most)]
