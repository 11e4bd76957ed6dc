"""The schedulers of the queues, and what they miss while no worker runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from qctl.errors import UsageError
from qctl.ops.impact.best_time import later_slots
from qctl.ops.times import utc_datetime
from qctl.wire.schedulers.iterations import Agenda
from qctl.wire.schedulers.scheduling import Scheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleImpact:
    """A scheduler, and what happens to it while its queue has no worker.

    Args:
        pattern: the cron pattern; None if the scheduler has an interval.
        next_at: when the pending job is or was due; None if its score in Redis is not a time.
        runs_late_s: how late the pending job runs; None if it becomes due while workers run.
        skipped: how many due times pass without a job, at most 1,000: BullMQ makes the next job
            only when a worker takes the pending one. None if qctl does not understand the pattern,
            the time zone or the pending job's score; else 0 if ``runs_late_s`` is None.
    """

    queue: str
    id: str
    name: str
    pattern: str | None
    every_ms: int | None
    next_at: datetime | None
    runs_late_s: float | None
    skipped: int | None


def schedule_impacts(
    agendas: Sequence[Agenda], *, now_ms: int, back_ms: int, prefix: str | None
) -> tuple[ScheduleImpact, ...]:
    """What each scheduler misses if no worker runs until ``back_ms``; sorted by ``next_at``.

    Args:
        prefix: the prefix that is left out of the queues' names.
    """
    found = [
        _schedule_impact(agenda.keys.label(prefix), scheduler, now_ms, back_ms)
        for agenda in agendas
        for scheduler in agenda.schedulers
        if not _is_over(scheduler, now_ms)
    ]
    return tuple(sorted(found, key=lambda impact: (impact.next_at is None, impact.next_at)))


def _schedule_impact(queue: str, scheduler: Scheduler, now_ms: int, back_ms: int) -> ScheduleImpact:
    due_ms = scheduler.next_ms
    skipped: int | None = None if due_ms is None else 0
    late_s = None
    if due_ms is not None and now_ms <= due_ms < back_ms:
        late_s = (back_ms - due_ms) / 1000
        try:
            skipped = sum(1 for _ in later_slots(scheduler, due_ms, back_ms))
        except UsageError:
            skipped = None
    return ScheduleImpact(
        queue=queue,
        id=scheduler.id,
        name=scheduler.name,
        pattern=scheduler.cron,
        every_ms=scheduler.every_ms,
        next_at=utc_datetime(due_ms),
        runs_late_s=late_s,
        skipped=skipped,
    )


def _is_over(scheduler: Scheduler, now_ms: int) -> bool:
    """Whether a scheduler's last job was due before now. Its record stays (wire format 6.1)."""
    ended = scheduler.end_ms is not None and scheduler.end_ms < now_ms
    spent = scheduler.limit is not None and scheduler.iterations >= scheduler.limit
    return (ended or spent) and scheduler.next_ms is not None and scheduler.next_ms < now_ms
