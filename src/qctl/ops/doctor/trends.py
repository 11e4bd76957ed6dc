"""Trends: a backlog that grows, jobs that fail, clocks that differ.

All by the events of the last minutes, as far as the streams reach back. What happened before is
unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from qctl.durations import duration
from qctl.grouping import grouped
from qctl.ops.doctor.examination import Examination, read_once
from qctl.ops.doctor.findings import Finding, Subject, some
from qctl.plurals import counted
from qctl.wire.read.history import ClockSample, History, PastEvent, clock_samples, read_histories

WINDOW_MS = 900_000
# Queues whose events are read; events of all of them together, and of one.
MAX_QUEUES, MAX_EVENTS, MAX_EVENTS_OF_ONE = 50, 20_000, 10_000
# A shorter time shows a burst, not a trend.
MIN_WINDOW_MS = 20_000
# A backlog grows if it does in each part of the time, and by so many jobs and such a share.
_PARTS, _MIN_GROWTH, _MIN_GROWTH_SHARE = 3, 20, 0.1
_MIN_ENDED, _MIN_FAILED, _MIN_FAILED_SHARE = 20, 5, 0.25
# As for the clock of this host (redis.MAX_SKEW_MS).
MAX_SKEW_MS = 1000
_SAMPLES, _MIN_AHEAD, _MIN_BEHIND = 10, 2, 3
# A worker or producer that has done nothing since may be gone.
_RECENT_MS = 300_000
_READY = frozenset({"wait", "paused", "prioritized"})


def growing_backlog(exam: Examination) -> Iterator[Finding | str]:
    """Queues to which jobs come faster than workers take them."""
    histories, scope = _histories(exam)
    snapshots = {snapshot.keys: snapshot for snapshot in exam.snapshots}
    short = []
    for history in histories:
        snapshot = snapshots[history.keys]
        if snapshot.paused or snapshot.lease is not None or not snapshot.backlog:
            continue
        window_ms = exam.redis_now_ms - history.since_ms
        if _is_short(exam, history):
            short.append(history)
            continue
        came = [event for event in history.events if event.name == "waiting"]
        left = [event for event in history.events if _has_left(event)]
        grown = len(came) - len(left)
        arrivals, departures = (_by_part(each, history, window_ms) for each in (came, left))
        # In each part, or it was one burst.
        is_steady = all(arrivals[part] > departures[part] for part in range(_PARTS))
        is_much = grown >= max(_MIN_GROWTH, _MIN_GROWTH_SHARE * len(came))
        if is_steady and is_much and snapshot.backlog >= grown // 2:
            yield Finding(
                severity="warning",
                subject=Subject("queue", history.keys.name),
                what=f"its backlog grows: in the last {duration(window_ms / 1000)} "
                f"{counted(len(came), 'job came', 'jobs came')} and {len(left):,} left; "
                f"{counted(snapshot.backlog, 'job waits', 'jobs wait')}",
                evidence={
                    "window_s": round(window_ms / 1000, 1),
                    "came": len(came),
                    "left": len(left),
                    "waiting": snapshot.backlog,
                },
                remedy="run more workers or more jobs at a time, find what slows them, or add less",
                commands=(exam.command("workers", history.keys.name),),
            )
    yield from scope
    yield from _unknown(short)


def _is_short(exam: Examination, history: History) -> bool:
    """Whether its events do not reach back far enough."""
    return history.is_empty or exam.redis_now_ms - history.since_ms < MIN_WINDOW_MS


def _unknown(short: Sequence[History]) -> Iterator[str]:
    if short:
        yield (
            f"unknown of {len(short):,}, whose events reach back less than "
            f"{MIN_WINDOW_MS / 1000:.0f} s: {some([history.keys.name for history in short])}"
        )


def _has_left(event: PastEvent) -> bool:
    return event.name == "active" or (event.name == "removed" and event.prev in _READY)


def _by_part(events: Sequence[PastEvent], history: History, window_ms: int) -> Counter[int]:
    """How many of the events are in each part of the window, from 0."""
    parts = ((event.at_ms - history.since_ms) * _PARTS // window_ms for event in events)
    # The last part has no end, since clocks differ by milliseconds.
    return Counter(min(part, _PARTS - 1) for part in parts)


def failure_rate(exam: Examination) -> Iterator[Finding | str]:
    """Queues in which a large part of the jobs fail for good."""
    histories, scope = _histories(exam)
    counts = {snapshot.keys: snapshot.counts for snapshot in exam.snapshots}
    short = []
    for history in histories:
        failed = [event for event in history.events if event.name == "failed"]
        ended = len(failed) + sum(event.name == "completed" for event in history.events)
        if ended < _MIN_ENDED or len(failed) < max(_MIN_FAILED, _MIN_FAILED_SHARE * ended):
            if counts[history.keys].failed and _is_short(exam, history):
                short.append(history)
            continue
        window_ms = exam.redis_now_ms - history.since_ms
        (reason, number), *_ = Counter(event.reason or "" for event in failed).most_common(1)
        name = history.keys.name
        yield Finding(
            severity="warning",
            subject=Subject("queue", name),
            what=f"{len(failed):,} of the {ended:,} jobs that ended in the last "
            f"{duration(window_ms / 1000)} failed for good ({len(failed) / ended:.0%})"
            + (f", {number:,} of them with {reason!r}" if reason else ""),
            evidence={
                "window_s": round(window_ms / 1000, 1),
                "failed": len(failed),
                "ended": ended,
                "reason": reason or None,
            },
            remedy="see why; once that is fixed, qctl jobs retry-failed runs them again",
            commands=(exam.command("jobs list", name, "--state", "failed"),),
        )
    yield from scope
    yield from _unknown(short)


def host_clocks(exam: Examination) -> Iterator[Finding | str]:
    """Workers and producers whose clock differs from that of Redis, by their last jobs."""
    histories, scope = _histories(exam)
    read = clock_samples(exam.client, histories, _SAMPLES)
    hosts = grouped(read, lambda sample: (sample.keys, sample.is_producer, sample.who))
    for (keys, is_producer, who), samples in hosts.items():
        newest_ms = max(sample.at_ms for sample in samples)
        alike = _ahead(samples) or _behind(samples)
        if not alike or exam.redis_now_ms - newest_ms > _RECENT_MS:
            continue
        ahead_ms = alike[len(alike) // 2] if alike[0] > 0 else alike[-1]
        side = "ahead of" if ahead_ms > 0 else "behind"
        whose = "a producer" if is_producer else f"worker {who!r}" if who else "a worker"
        yield Finding(
            severity="warning",
            subject=Subject("queue", keys.name),
            what=f"the clock of {whose} is {duration(abs(ahead_ms) / 1000)} {side} that of Redis, "
            f"by {len(alike)} of its last jobs",
            evidence={
                "who": who,
                "is_producer": is_producer,
                "ahead_ms": ahead_ms,
                "samples": len(samples),
                "alike": len(alike),
            },
            remedy="synchronise that host's clock (NTP): delays and schedules go by it",
        )
    yield from scope


def _ahead(samples: Sequence[ClockSample]) -> list[int]:
    """By how much a clock is ahead, by each job that shows it, ascending; empty if it is not.

    Jobs that do not show it are no evidence against it: workers without a name may be several.
    """
    far = sorted(s.ahead_ms for s in samples if s.ahead_ms > MAX_SKEW_MS)
    alike = max(
        ([ms for ms in far if 0 <= ms - least <= MAX_SKEW_MS] for least in far),
        key=len,
        default=[],
    )
    return alike if len(alike) >= _MIN_AHEAD else []


def _behind(samples: Sequence[ClockSample]) -> list[int]:
    """By how much a clock is behind, ascending; empty if it is not.

    Every job must show it, since one call that waited for Redis looks the same. The least of them
    is what is certain.
    """
    found = sorted(sample.ahead_ms for sample in samples)
    if found[-1] >= -MAX_SKEW_MS:
        return []
    if samples[0].is_producer:
        times = [sample.at_ms for sample in samples]
        is_sure = len(found) >= _MIN_BEHIND and max(times) - min(times) >= MIN_WINDOW_MS
    else:
        is_sure = sum(sample.is_whole for sample in samples) >= _MIN_BEHIND
    return found if is_sure else []


@read_once
def _histories(exam: Examination) -> tuple[Sequence[History], Sequence[str]]:
    """Of the queues with the most failed jobs and the longest backlogs."""
    waiting = sorted(exam.snapshots, key=lambda s: -s.backlog)
    failing = sorted(exam.snapshots, key=lambda s: -s.counts.failed)
    ordered = (s.keys for pair in zip(waiting, failing, strict=True) for s in pair)
    keys = list(dict.fromkeys(ordered))[:MAX_QUEUES]
    most = min(MAX_EVENTS // max(len(keys), 1), MAX_EVENTS_OF_ONE)
    since_ms = exam.redis_now_ms - WINDOW_MS
    found = read_histories(exam.client, keys, since_ms=since_ms, max_events=most)
    text = f"the {len(keys)} of {len(exam.snapshots):,} queues with the most jobs waiting or failed"
    return found, [text] if len(keys) < len(exam.snapshots) else []
