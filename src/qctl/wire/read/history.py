"""Reads the newest events of many queues, and compares the clocks of hosts with Redis' clock.

An event may contain a large return value, so events are read in small windows, and only a few short
fields are kept.
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

# How many characters of a failure reason are kept. A reason may have any length.
_MAX_REASON = 200
# Event → the field of the job's hash in which the host notes its own time.
_CLOCKS = {
    "added": "timestamp",
    "active": "processedOn",
    **dict.fromkeys(FINISHED, "finishedOn"),
}
# A worker takes two steps with a job: it fetches the job, and it ends the job.
_BOTH_STEPS = 2


@dataclass(frozen=True, slots=True)
class PastEvent:
    """One event.

    Args:
        at_ms: when it was written, epoch milliseconds by Redis' clock.
        prev: the job's state before the event; None if the event does not say.
        reason: the beginning of the first line of a failure reason; None if the event has none.
    """

    name: str
    at_ms: int
    job_id: str | None
    prev: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class History:
    """The events of one queue, newest first.

    Args:
        since_ms: no event after this is missing; epoch milliseconds by Redis' clock.
        is_empty: whether nothing is known: the stream has no event, or its key is no stream.
    """

    keys: QueueKeys
    events: tuple[PastEvent, ...]
    since_ms: int
    is_empty: bool


def read_histories(
    client: Client, queues: Sequence[QueueKeys], *, since_ms: int, max_events: int
) -> list[History]:
    """The events of each queue since a moment; the longest stream sets the number of round trips.

    Args:
        since_ms: epoch milliseconds by Redis' clock.
        max_events: about how many events of each queue to read at most; if there are more, the
            history begins later than ``since_ms``.
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
        unfinished = {}
        for keys, reply in zip(pending, client.pipeline(commands), strict=True):
            entries = value_or(reply, [])
            events = [_past_event(str(entry_id), flat or ()) for entry_id, flat in entries]
            recent = [event for event in events if event.at_ms >= since_ms]
            found[keys] += recent
            if len(recent) < len(events):
                continue  # The stream reaches back beyond since_ms.
            if not found[keys]:
                empty.add(keys)
                continue
            begins[keys] = found[keys][-1].at_ms
            # A short window is the end of the stream: older events were cut off, or never existed.
            if len(entries) == EVENT_WINDOW and len(found[keys]) < max_events:
                unfinished[keys] = previous_id(str(entries[-1][0]))
        pending = unfinished
    return [History(keys, tuple(found[keys]), begins[keys], keys in empty) for keys in queues]


def _past_event(entry_id: str, flat: Sequence[str]) -> PastEvent:
    fields = to_dict(flat)
    reason = fields.get("failedReason")
    return PastEvent(
        name=fields.get("event", ""),
        at_ms=int(entry_id.partition("-")[0]),
        job_id=fields.get("jobId"),
        prev=fields.get("prev"),
        reason=None if reason is None else reason.partition("\n")[0][:_MAX_REASON],
    )


@dataclass(frozen=True, slots=True)
class ClockSample:
    """How far the clock of one host is ahead of Redis' clock, computed from one job.

    Each step of a job is one call: a producer adds the job, a worker fetches it, a worker ends it.
    If a call has to wait, for example because Redis is away, the host's clock looks behind, never
    ahead. So if the two steps of a worker give different results, the higher result is closer to
    the truth, and ``ahead_ms`` is that result. A single outage does not delay both steps.

    Args:
        who: name of the worker; None for a worker without a name and for a producer.
        ahead_ms: the clock is ahead by at least this; negative if it looks behind.
        is_whole: whether both steps of the worker are known.
        at_ms: when the newer step was, epoch milliseconds by Redis' clock.
    """

    keys: QueueKeys
    who: str | None
    is_producer: bool
    ahead_ms: int
    is_whole: bool
    at_ms: int


def clock_samples(client: Client, histories: Sequence[History], max_jobs: int) -> list[ClockSample]:
    """Compare the clocks of producers and workers with Redis' clock, in one round trip.

    Redis stamps the event of a step, and the host that takes the step writes its own time into the
    job's hash.

    Args:
        max_jobs: at most this many jobs of each queue are used for producers. For workers, at most
            this many jobs with one known step are used, and twice this many with both steps.
    """
    wanted: list[tuple[QueueKeys, bool, list[PastEvent]]] = []
    for history in histories:
        added = list(_newest(history, "added").values())
        # Spread over time, because jobs added at one time may come from one call that had to wait.
        wanted += [(history.keys, True, [event]) for event in _spread(added, max_jobs)]
        steps = defaultdict[str, list[PastEvent]](list)
        for of_step in (_newest(history, "active"), _newest(history, "completed", "failed")):
            for job_id, event in of_step.items():
                steps[job_id].append(event)
        jobs = sorted(steps.values(), key=lambda events: -events[-1].at_ms)
        whole = [events for events in jobs if len(events) == _BOTH_STEPS]
        rest = [events for events in jobs if len(events) < _BOTH_STEPS]
        chosen = whole[: 2 * max_jobs] + rest[:max_jobs]
        wanted += [(history.keys, False, events) for events in chosen]
    reads: list[tuple[Arg, ...]] = [
        (
            *("HMGET", keys(events[0].job_id or ""), "opts" if is_producer else "pb"),
            *(_CLOCKS[event.name] for event in events),
        )
        for keys, is_producer, events in wanted
    ]
    rows = client.pipeline(reads)
    samples = []
    for (keys, is_producer, events), reply in zip(wanted, rows, strict=True):
        text, *times = value_or(reply, (None,) * (1 + len(events)))
        aheads = [
            host_ms - event.at_ms
            for event, time in zip(events, times, strict=True)
            if (host_ms := to_int(time)) is not None
        ]
        # Leave out jobs to which the producer gave a timestamp of its own.
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
    """For each job, the newest event with one of these names.

    Older events are of no use, because the job's hash has only the times of the last run.
    """
    return {e.job_id: e for e in reversed(history.events) if e.name in names and e.job_id}


def _spread(events: Sequence[PastEvent], count: int) -> list[PastEvent]:
    """At most ``count`` of the events, evenly spread, including the first and the last."""
    if len(events) <= count:
        return list(events)
    return [events[index * (len(events) - 1) // (count - 1)] for index in range(count)]
