"""What schedulers have due next, and what they skip while no worker is connected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from qctl.errors import UsageError
from qctl.ops.times import utc_datetime
from qctl.wire.schedulers.iterations import Agenda
from qctl.wire.schedulers.scheduling import Scheduler, due_times_ms

# At most this many due times of one scheduler are computed.
MAX_SLOTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleImpact:
    """A scheduler, and what happens to it while its queue has no worker.

    Args:
        pattern: the cron pattern; None if the scheduler has an interval.
        next_at: when the pending job is or was due; None if its score is not a time.
        runs_late_s: how late the pending job runs; None unless it becomes due in this time.
        skipped: how many due times pass without a job, because BullMQ makes the next job only when
            a worker takes the pending one. None if qctl does not understand the pattern, the time
            zone or the pending job's score.
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
    agendas: Sequence[Agenda], *, now_ms: int, back_ms: int
) -> tuple[ScheduleImpact, ...]:
    """What happens to each scheduler without a worker until ``back_ms``; sorted by ``next_at``."""
    found = [
        _impact(agenda.keys.name, scheduler, now_ms, back_ms)
        for agenda in agendas
        for scheduler in agenda.schedulers
        if not _is_over(scheduler, now_ms)
    ]
    return tuple(sorted(found, key=lambda impact: (impact.next_at is None, impact.next_at)))


def unread_schedules(agendas: Sequence[Agenda]) -> int:
    """How many schedulers ``schedule_impacts`` leaves out."""
    return sum(agenda.total_schedulers - len(agenda.schedulers) for agenda in agendas)


def _impact(queue: str, scheduler: Scheduler, now_ms: int, back_ms: int) -> ScheduleImpact:
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


def later_slots(scheduler: Scheduler, after_ms: int, until_ms: int) -> Iterator[int]:
    """The due times after the due time ``after_ms`` and before ``until_ms``, up to ``MAX_SLOTS``.

    Raises:
        UsageError: qctl does not understand the pattern or the time zone.
    """
    left = MAX_SLOTS
    if scheduler.limit is not None:
        left = max(min(left, scheduler.limit - scheduler.iterations), 0)
    due = due_times_ms(scheduler.cron, scheduler.tz, scheduler.every_ms, after_ms)
    for slot in islice(due, left):
        if slot >= until_ms or (scheduler.end_ms is not None and slot > scheduler.end_ms):
            return
        yield slot


def _is_over(scheduler: Scheduler, now_ms: int) -> bool:
    """Whether a scheduler makes no more jobs. BullMQ keeps its record (wire format 6.1)."""
    ended = scheduler.end_ms is not None and scheduler.end_ms < now_ms
    spent = scheduler.limit is not None and scheduler.iterations >= scheduler.limit
    return (ended or spent) and scheduler.next_ms is not None and scheduler.next_ms < now_ms
