"""Checks of trends: a backlog that grows, jobs that fail, clocks that differ.

The checks read the events of the last 15 minutes, or of less time if a stream is shorter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from qctl.durations import duration
from qctl.grouping import grouped
from qctl.ops.doctor.examination import Examination, read_once
from qctl.ops.doctor.findings import Finding, Subject, abbreviated
from qctl.ops.doctor.redis import MAX_SKEW_MS
from qctl.ops.jobs.shape import shape_of
from qctl.plurals import counted
from qctl.wire.read.history import ClockSample, History, PastEvent, clock_samples, read_histories

WINDOW_MS = 900_000
# At most this many queues are read, this many events of all queues together, and this many events
# of one queue.
MAX_QUEUES, MAX_EVENTS, MAX_EVENTS_OF_ONE = 50, 20_000, 10_000
# Events of a shorter time show a burst, not a trend.
MIN_WINDOW_MS = 20_000
# A backlog counts as growing if it grew in each third of the time. The whole growth must be at
# least 20 jobs, and at least a tenth of the added jobs.
_PARTS, _MIN_GROWTH, _MIN_GROWTH_SHARE = 3, 20, 0.1
# A finding needs at least 20 ended jobs, of which at least 5, and at least a quarter, have failed.
_MIN_ENDED, _MIN_FAILED, _MIN_FAILED_SHARE = 20, 5, 0.25
# ``_SAMPLES`` is the ``max_jobs`` of ``clock_samples``. At least 2 jobs must show that a clock is
# ahead, or at least 3 jobs that it is behind.
_SAMPLES, _MIN_AHEAD, _MIN_BEHIND = 10, 2, 3
# A worker or producer without a job for this time may be gone.
_RECENT_MS = 300_000
# States of the jobs in a backlog.
_READY = frozenset({"wait", "paused", "prioritized"})


def growing_backlog(exam: Examination) -> Iterator[Finding | str]:
    """Queues to which jobs are added faster than workers start them."""
    histories, scope = _histories(exam)
    snapshots = {snapshot.keys: snapshot for snapshot in exam.snapshots}
    short = []
    for history in histories:
        snapshot = snapshots[history.keys]
        is_draining = snapshot.lease is not None
        if snapshot.paused or is_draining or not snapshot.backlog:
            continue
        window_ms = exam.redis_now_ms - history.since_ms
        if _is_short(exam, history):
            short.append(history)
            continue
        came = [event for event in history.events if event.name == "waiting"]
        left = [event for event in history.events if _leaves_backlog(event)]
        grown = len(came) - len(left)
        arrivals, departures = (_by_part(each, history, window_ms) for each in (came, left))
        # Growth in only some parts is a burst.
        is_steady = all(arrivals[part] > departures[part] for part in range(_PARTS))
        is_much = grown >= max(_MIN_GROWTH, _MIN_GROWTH_SHARE * len(came))
        # Jobs may leave without an event. So the backlog must be at least half of the growth that
        # the events show.
        if is_steady and is_much and snapshot.backlog >= grown // 2:
            yield Finding(
                severity="warning",
                subject=Subject("queue", history.keys.name),
                what=f"its backlog grows: in the last {duration(window_ms / 1000)} "
                f"{counted(len(came), 'job')} came and {len(left):,} left; "
                f"{counted(snapshot.backlog, 'job waits', 'jobs wait')}",
                evidence={
                    "window_s": round(window_ms / 1000, 1),
                    "came": len(came),
                    "left": len(left),
                    "waiting": snapshot.backlog,
                },
                remedy="run more workers, or more jobs at a time in each worker; find what slows "
                "the jobs; add fewer jobs",
                commands=(exam.command("workers", history.keys.name),),
            )
    yield from scope
    yield from _unknown(short)


def _is_short(exam: Examination, history: History) -> bool:
    """Whether the events reach back less than ``MIN_WINDOW_MS``."""
    return history.is_empty or exam.redis_now_ms - history.since_ms < MIN_WINDOW_MS


def _unknown(short: Sequence[History]) -> Iterator[str]:
    if short:
        yield (
            f"unknown for {counted(len(short), 'queue')} whose events reach back less than "
            f"{MIN_WINDOW_MS / 1000:.0f} s: {abbreviated([history.keys.name for history in short])}"
        )


def _leaves_backlog(event: PastEvent) -> bool:
    """Whether the event takes a job out of the backlog."""
    return event.name == "active" or (event.name == "removed" and event.prev in _READY)


def _by_part(events: Sequence[PastEvent], history: History, window_ms: int) -> Counter[int]:
    """How many of the events are in each part of the window. The first part is 0."""
    parts = ((event.at_ms - history.since_ms) * _PARTS // window_ms for event in events)
    # Clocks differ by milliseconds, so an event may be later than the end of the last part.
    return Counter(min(part, _PARTS - 1) for part in parts)


def failure_rate(exam: Examination) -> Iterator[Finding | str]:
    """Queues in which a large share of the jobs fails for good."""
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
        shapes = Counter(shape_of(event.reason) for event in failed)
        (reason, number), *_ = shapes.most_common(1)
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
            commands=(exam.command("jobs failures", name),),
        )
    yield from scope
    yield from _unknown(short)


def host_clocks(exam: Examination) -> Iterator[Finding | str]:
    """Workers and producers whose last jobs show that their clock differs from Redis' clock."""
    histories, scope = _histories(exam)
    read = clock_samples(exam.client, histories, _SAMPLES)
    hosts = grouped(read, lambda sample: (sample.keys, sample.is_producer, sample.who))
    for (keys, is_producer, who), samples in hosts.items():
        newest_ms = max(sample.at_ms for sample in samples)
        alike = _ahead(samples) or _behind(samples)
        if not alike or exam.redis_now_ms - newest_ms > _RECENT_MS:
            continue
        # If the clock is ahead, show the median. If the clock is behind, show the smallest
        # difference, because only that much is certain.
        ahead_ms = alike[len(alike) // 2] if alike[0] > 0 else alike[-1]
        side = "ahead of" if ahead_ms > 0 else "behind"
        whose = "a producer" if is_producer else f"worker {who!r}" if who else "a worker"
        yield Finding(
            severity="warning",
            subject=Subject("queue", keys.name),
            what=f"the clock of {whose} is {duration(abs(ahead_ms) / 1000)} {side} that of Redis, "
            f"as {len(alike)} of its last jobs show",
            evidence={
                "who": who,
                "is_producer": is_producer,
                "ahead_ms": ahead_ms,
                "samples": len(samples),
                "alike": len(alike),
            },
            remedy="synchronise the clock of that host (NTP): delays and schedules depend on it",
        )
    yield from scope


def _ahead(samples: Sequence[ClockSample]) -> list[int]:
    """How many ms a clock is ahead, one number for each job that agrees with the others; ascending.

    Empty if too few jobs agree. Jobs that do not agree are ignored: they may be from another host,
    because all workers without a name count as one.
    """
    aheads = sorted(s.ahead_ms for s in samples if s.ahead_ms > MAX_SKEW_MS)
    alike = max(
        ([ms for ms in aheads if 0 <= ms - least <= MAX_SKEW_MS] for least in aheads),
        key=len,
        default=[],
    )
    return alike if len(alike) >= _MIN_AHEAD else []


def _behind(samples: Sequence[ClockSample]) -> list[int]:
    """How many ms a clock is behind, one negative number for each job; ascending.

    Empty if any job does not show this, or if there are too few jobs. Also empty if a producer
    added all jobs within ``MIN_WINDOW_MS``: one wait for Redis may have delayed all of them, and
    then the producer's clock only looks behind.
    """
    found = sorted(sample.ahead_ms for sample in samples)
    if found[-1] >= -MAX_SKEW_MS:
        return []
    if samples[0].is_producer:
        times = [sample.at_ms for sample in samples]
        is_sure = len(found) >= _MIN_BEHIND and max(times) - min(times) >= MIN_WINDOW_MS
    else:
        # In a sample that is whole, the clock was read both at the start and at the end of the job.
        is_sure = sum(sample.is_whole for sample in samples) >= _MIN_BEHIND
    return found if is_sure else []


@read_once
def _histories(exam: Examination) -> tuple[Sequence[History], Sequence[str]]:
    """Events of the queues with the most waiting or failed jobs; a remark if others are unread."""
    waiting = sorted(exam.snapshots, key=lambda s: -s.backlog)
    failing = sorted(exam.snapshots, key=lambda s: -s.counts.failed)
    ordered = (s.keys for pair in zip(waiting, failing, strict=True) for s in pair)
    keys = list(dict.fromkeys(ordered))[:MAX_QUEUES]
    most = min(MAX_EVENTS // max(len(keys), 1), MAX_EVENTS_OF_ONE)
    since_ms = exam.redis_now_ms - WINDOW_MS
    found = read_histories(exam.client, keys, since_ms=since_ms, max_events=most)
    text = f"the {len(keys)} of {len(exam.snapshots):,} queues with the most jobs waiting or failed"
    return found, [text] if len(keys) < len(exam.snapshots) else []
