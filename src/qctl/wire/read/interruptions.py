"""Jobs that stalled within a span of time: what a restart at its beginning interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.connection.address import Arg, Client
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import to_dict, to_int, value_or
from qctl.wire.states import FINISHED

# Events of one window, windows of one span, and finished jobs of each state.
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
        ids: jobs that stalled in it and had begun before it, in order.
        is_complete: whether all of its events are still there and were read. If not, jobs that were
            removed since are missing, and a job that had stalled before and was retried in the span
            may be among them.
    """

    ids: tuple[str, ...]
    is_complete: bool


def stalled_within(client: Client, spans: Sequence[Span]) -> list[Interruptions]:
    """Jobs that stalled in each span, by its events.

    Where some of these are gone, also by finished jobs that ran again. At most 10,000 events and
    400 finished jobs of a span are read.
    """
    by_event, unread = _by_events(client, spans)
    firsts = client.pipeline(
        [("XRANGE", span.keys("events"), "-", "+", "COUNT", 1) for span in spans]
    )
    complete = []
    for index, (span, first) in enumerate(zip(spans, firsts, strict=True)):
        entries = value_or(first, [])
        began_ms = int(str(entries[0][0]).partition("-")[0]) if entries else None
        reaches_back = began_ms is not None and began_ms <= span.start_ms
        complete.append(reaches_back and index not in unread)
    partly = [index for index, is_complete in enumerate(complete) if not is_complete]
    records = dict(zip(partly, _by_records(client, [spans[i] for i in partly]), strict=True))
    return [
        Interruptions(tuple(dict.fromkeys([*events, *records.get(index, ())])), complete[index])
        for index, events in enumerate(by_event)
    ]


def _by_events(client: Client, spans: Sequence[Span]) -> tuple[list[list[str]], set[int]]:
    """Jobs that stalled in each span, and the indexes of spans with more events than are read."""
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
        for index, reply in zip(starts, client.pipeline(commands), strict=True):
            entries = value_or(reply, [])
            for _, flat in entries:
                event = to_dict(flat)
                job_id = event.get("jobId", "")
                if event.get("event") == "active":
                    begun[index].add(job_id)
                elif event.get("event") == "stalled" and job_id and job_id not in begun[index]:
                    found[index].append(job_id)
            if len(entries) == _WINDOW:
                # The id after the last one; "(" would need Redis 6.2.
                at_ms, _, number_in_ms = str(entries[-1][0]).partition("-")
                unfinished[index] = f"{at_ms}-{int(number_in_ms) + 1}"
        starts = unfinished
    return found, set(starts)


def _by_records(client: Client, spans: Sequence[Span]) -> list[list[str]]:
    """Jobs that were started again in the span after they had stalled, and have ended since."""
    windows = client.pipeline(
        [
            ("ZRANGEBYSCORE", span.keys(state), span.start_ms, "+inf", "LIMIT", 0, _MAX_JOBS)
            for span in spans
            for state in FINISHED
        ]
    )
    ids = [
        [*value_or(a, []), *value_or(b, [])]
        for a, b in zip(windows[::2], windows[1::2], strict=True)
    ]
    reads: list[tuple[Arg, ...]] = [
        ("HMGET", span.keys(job_id), "stc", "processedOn")
        for span, own in zip(spans, ids, strict=True)
        for job_id in own
    ]
    rows = iter(client.pipeline(reads))
    found = []
    for span, own in zip(spans, ids, strict=True):
        stalled = []
        for job_id in own:
            stalls, started = value_or(next(rows), (None, None))
            again_ms = to_int(started) or 0
            if (to_int(stalls) or 0) and span.start_ms <= again_ms <= span.end_ms:
                stalled.append(job_id)
        found.append(stalled)
    return found
