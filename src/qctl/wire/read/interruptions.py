"""Jobs that stalled within a span of time: what a restart at its beginning interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.connection.address import Arg, Client
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import to_dict, to_int, value_or
from qctl.wire.states import FINISHED

# Events read of one span, in steps, and finished jobs looked at.
_STEP = 1000
_STEPS = 10
_JOBS = 200


@dataclass(frozen=True, slots=True)
class Span:
    """A span of time of one queue, in epoch milliseconds by Redis' clock."""

    keys: QueueKeys
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Interruptions:
    """What is known of a span.

    Args:
        ids: jobs found stalled in it that had not begun in it, in order.
        remembered: whether all of its events are still there and were read; if not, jobs that were
            removed since are not among them, and one that had stalled before and was retried in the
            span may be.
    """

    ids: tuple[str, ...]
    remembered: bool


def stalled_within(client: Client, spans: Sequence[Span]) -> list[Interruptions]:
    """Jobs that stalled in each span: by its events, and where some of these are gone also by kept
    jobs that ran again and ended.

    At most 10,000 events and 200 ended jobs of a span are looked at.
    """
    by_event, unread = _by_events(client, spans)
    firsts = client.pipeline(
        [("XRANGE", span.keys("events"), "-", "+", "COUNT", 1) for span in spans]
    )
    remembered = []
    for index, (span, first) in enumerate(zip(spans, firsts, strict=True)):
        entries = value_or(first, [])
        began_ms = int(str(entries[0][0]).partition("-")[0]) if entries else None
        reaches_back = began_ms is not None and began_ms <= span.start_ms
        remembered.append(reaches_back and index not in unread)
    partly = [i for i, told in enumerate(remembered) if not told]
    records = dict(zip(partly, _by_records(client, [spans[i] for i in partly]), strict=True))
    return [
        Interruptions(tuple(dict.fromkeys([*events, *records.get(index, ())])), remembered[index])
        for index, events in enumerate(by_event)
    ]


def _by_events(client: Client, spans: Sequence[Span]) -> tuple[list[list[str]], set[int]]:
    """And the indexes of the spans that have more events than are read."""
    found: list[list[str]] = [[] for _ in spans]
    # Those that begin after the restart are not interrupted by it, whatever befalls them.
    begun: list[set[str]] = [set() for _ in spans]
    starts = {index: str(span.start_ms) for index, span in enumerate(spans)}
    for _ in range(_STEPS):
        if not starts:
            break
        commands: list[tuple[Arg, ...]] = [
            ("XRANGE", spans[i].keys("events"), start, spans[i].end_ms, "COUNT", _STEP)
            for i, start in starts.items()
        ]
        going_on = {}
        for index, reply in zip(starts, client.pipeline(commands), strict=True):
            entries = value_or(reply, [])
            for _, flat in entries:
                event = to_dict(flat)
                job_id = event.get("jobId", "")
                if event.get("event") == "active":
                    begun[index].add(job_id)
                elif event.get("event") == "stalled" and job_id and job_id not in begun[index]:
                    found[index].append(job_id)
            if len(entries) == _STEP:
                # What follows the last one; "(" would need Redis 6.2.
                at_ms, _, number_in_ms = str(entries[-1][0]).partition("-")
                going_on[index] = f"{at_ms}-{int(number_in_ms) + 1}"
        starts = going_on
    return found, set(starts)


def _by_records(client: Client, spans: Sequence[Span]) -> list[list[str]]:
    """Jobs that were started anew in the span, have stalled before, and have ended since."""
    if not spans:
        return []
    windows = client.pipeline(
        [
            ("ZRANGEBYSCORE", span.keys(state), span.start_ms, "+inf", "LIMIT", 0, _JOBS)
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
    rows = iter(client.pipeline(reads) if reads else ())
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
