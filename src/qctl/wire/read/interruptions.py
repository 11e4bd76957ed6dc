"""Finds the jobs that a restart interrupted: the jobs that stalled in a span of time after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.connection.address import Arg, Client
from qctl.wire.events import event_order, first_event_ids
from qctl.wire.jobs import read_fields
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import read_values, to_dict, to_int
from qctl.wire.states import FINISHED

# Limits: events per window, windows per span, and finished jobs per state and span.
_WINDOW = 1000
_MAX_WINDOWS = 10
_MAX_JOBS = 200


@dataclass(frozen=True, slots=True)
class Span:
    """A span of time of one queue, in epoch milliseconds by Redis' clock."""

    keys: QueueKeys
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Interruptions:
    """The jobs that a restart at the beginning of a span interrupted.

    Args:
        ids: jobs that began before the span and stalled in it.
        is_complete: whether all events of the span still exist and were read. If False, jobs that
            have been removed may be missing from ``ids``, and ``ids`` may include jobs that stalled
            before the span and began their last run in the span.
    """

    ids: tuple[str, ...]
    is_complete: bool


def stalled_within(client: Client, spans: Sequence[Span]) -> list[Interruptions]:
    """The jobs that stalled in each span, found in its events.

    If some events of a span are gone or were not read, the result also has the finished jobs that
    have stalled and began their last run in the span. At most 10,000 events and 400 finished jobs
    are read for each span.
    """
    by_event, unread = _by_events(client, spans)
    firsts = first_event_ids(client, [span.keys for span in spans])
    complete = [
        first is not None and event_order(first)[0] <= span.start_ms and index not in unread
        for index, (span, first) in enumerate(zip(spans, firsts, strict=True))
    ]
    partly = [index for index, is_complete in enumerate(complete) if not is_complete]
    records = dict(zip(partly, _by_records(client, [spans[i] for i in partly]), strict=True))
    return [
        Interruptions(tuple(dict.fromkeys([*events, *records.get(index, ())])), complete[index])
        for index, events in enumerate(by_event)
    ]


def _by_events(client: Client, spans: Sequence[Span]) -> tuple[list[list[str]], set[int]]:
    """Jobs that stalled in each span, and indexes of the spans with events that were not read."""
    found: list[list[str]] = [[] for _ in spans]
    # A restart does not interrupt jobs that begin after it.
    begun: list[set[str]] = [set() for _ in spans]
    starts = {index: str(span.start_ms) for index, span in enumerate(spans)}
    for _ in range(_MAX_WINDOWS):
        if not starts:
            break
        commands: list[tuple[Arg, ...]] = [
            ("XRANGE", spans[i].keys("events"), start, spans[i].end_ms, "COUNT", _WINDOW)
            for i, start in starts.items()
        ]
        unfinished = {}
        for index, entries in zip(starts, read_values(client, commands, ()), strict=True):
            for _, flat in entries:
                event = to_dict(flat)
                job_id = event.get("jobId", "")
                if event.get("event") == "active":
                    begun[index].add(job_id)
                elif event.get("event") == "stalled" and job_id and job_id not in begun[index]:
                    found[index].append(job_id)
            if len(entries) == _WINDOW:
                # The next window begins after the last id. ("(ID" would also exclude that id, but
                # needs Redis 6.2.)
                at_ms, number = event_order(str(entries[-1][0]))
                unfinished[index] = f"{at_ms}-{number + 1}"
        starts = unfinished
    return found, set(starts)


def _by_records(client: Client, spans: Sequence[Span]) -> list[list[str]]:
    """For each span, the finished jobs that have stalled and began their last run in the span."""
    commands = [
        ("ZRANGEBYSCORE", span.keys(state), span.start_ms, "+inf", "LIMIT", 0, _MAX_JOBS)
        for span in spans
        for state in FINISHED
    ]
    lists = iter(read_values(client, commands, ()))
    ids = [[*next(lists), *next(lists)] for _ in spans]
    jobs = [(span.keys, job_id) for span, own in zip(spans, ids, strict=True) for job_id in own]
    rows = iter(read_fields(client, jobs, "stc", "processedOn"))
    found = []
    for span, own in zip(spans, ids, strict=True):
        stalled = []
        for job_id in own:
            stalls, started = next(rows)
            again_ms = to_int(started) or 0
            if (to_int(stalls) or 0) and span.start_ms <= again_ms <= span.end_ms:
                stalled.append(job_id)
        found.append(stalled)
    return found
