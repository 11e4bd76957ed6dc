"""Checks of what grows without a limit: event streams and finished jobs."""

from __future__ import annotations

from collections.abc import Iterator

from qctl.durations import duration
from qctl.ops.doctor.examination import Examination
from qctl.ops.doctor.findings import Finding, Subject
from qctl.ops.times import utc_datetime
from qctl.wire.checks.growth import kept_jobs, stream_lengths
from qctl.wire.states import FINISHED

# This many finished jobs, kept without a limit, are reported as info (MANY) or warning (VERY_MANY).
MANY, VERY_MANY = 10_000, 100_000
# Redis trims streams only roughly. A stream above limit * _FACTOR + _SLACK counts as not trimmed.
_FACTOR, _SLACK = 2, 1000
_LARGE_LIMIT = 1_000_000
# A worker's options may limit how many finished jobs stay, but Redis does not show these options.
# If the count of finished jobs is a multiple of _ROUND, qctl assumes that it is at such a limit.
_ROUND = 1000


def event_streams(exam: Examination) -> Iterator[Finding]:
    """Event streams far longer than their limit, or with a huge limit."""
    lengths = stream_lengths(exam.client, exam.keys)
    for keys, (length, limit) in zip(exam.keys, lengths, strict=True):
        evidence = {"events": length, "limit": limit}
        if length > _FACTOR * limit + _SLACK:
            yield Finding(
                severity="warning",
                subject=Subject("queue", keys.name),
                what=f"its event stream has {length:,} entries, and its limit is "
                f"{limit:,}: it is not trimmed",
                evidence=evidence,
                remedy="trim it with BullMQ's queue.trimEvents(10000), and find out who writes to "
                "it",
            )
        elif limit > _LARGE_LIMIT:
            yield Finding(
                severity="info",
                subject=Subject("queue", keys.name),
                what=f"its event stream may grow to {limit:,} entries",
                evidence=evidence,
                remedy="lower streams.events.maxLen of its Queue objects",
            )


def kept_finished_jobs(exam: Examination) -> Iterator[Finding]:
    """Completed or failed jobs that pile up: no option of the newest jobs limits how many stay."""
    counts = {
        (snapshot.keys, state): getattr(snapshot.counts, state)
        for snapshot in exam.snapshots
        for state in FINISHED
    }
    large = {pair: count for pair, count in counts.items() if count >= MANY}
    for kept in kept_jobs(exam.client, list(large), exam.now_ms):
        count = large[kept.keys, kept.state]
        if kept.bounded or not count % _ROUND:
            continue
        option = "removeOnComplete" if kept.state == "completed" else "removeOnFail"
        # ``last_day`` is None if all kept jobs ended in the last 24 hours. They may be a single
        # burst, so no rate for a whole day is estimated from them.
        pace = f", {kept.last_day:,} of them from the last 24 hours" if kept.last_day else ""
        age_ms = 0 if kept.oldest_ms is None else exam.now_ms - kept.oldest_ms
        if kept.last_day is None and age_ms > 0:
            pace = f", all from the last {duration(age_ms / 1000)}"
        yield Finding(
            severity="warning" if count >= VERY_MANY else "info",
            subject=Subject("queue", kept.keys.name),
            what=f"it keeps {count:,} {kept.state} jobs{pace}, and none of the newest has {option}",
            evidence={
                "state": kept.state,
                "count": count,
                "jobs_looked_at": kept.examined,
                "per_day": kept.last_day,
                "oldest_at": utc_datetime(kept.oldest_ms),
            },
            remedy=f"set {option} in the jobs' options, or in the workers' options (qctl "
            "cannot see the workers')",
        )
