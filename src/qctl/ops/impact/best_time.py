"""When few jobs run: quiet hours of the day and the week, and gaps between scheduled jobs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice, takewhile

from qctl.errors import UsageError
from qctl.ops.times import from_epoch_ms, utc_datetime
from qctl.plurals import counted
from qctl.wire.keys import QueueKeys
from qctl.wire.read.throughput import Throughput
from qctl.wire.schedulers.iterations import Agenda
from qctl.wire.schedulers.scheduling import Scheduler, due_times_ms

HOUR_MS = 3_600_000
WEEK_HOURS = 7 * 24
# Averages of fewer jobs mean nothing.
MIN_JOBS = 50
# An hour is quiet if it has at most min + _QUIET * (max - min) jobs. min and max are the numbers of
# jobs in the quietest and the busiest hour.
_QUIET = 0.15
# At least this share of the hours of a day or a week must be known.
_MIN_KNOWN = 0.95
GAP_HORIZON_MS = 24 * HOUR_MS
# A shorter gap is of no use to an operator.
MIN_GAP_S = 60.0
# At most this many due times of one scheduler are computed.
MAX_SLOTS = 1000


@dataclass(frozen=True, slots=True)
class History:
    """How much is known about one queue's completed jobs; see ``Throughput``."""

    queue: str
    source: str
    since_at: datetime | None
    jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """The quietest hours in a row, in local time.

    Args:
        weekday: 0 for Monday; None for hours of every day.
        from_hour, to_hour: 0 to 23; ``to_hour`` itself is not included.
        jobs_per_hour: how many jobs complete in one of these hours, on average.
        next_at: when these hours begin next; if they are going on now, when they began.
    """

    weekday: int | None
    from_hour: int
    to_hour: int
    jobs_per_hour: float
    next_at: datetime


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which no scheduled job is due, and in which probably no scheduled job runs."""

    from_at: datetime
    to_at: datetime
    length_s: float
    is_now: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BestTime:
    """When to restart.

    Args:
        zone: the local time zone of this host.
        histories: where the figures come from, one for each queue.
        from_at, to_at: the whole hours that all histories cover; None if there is no such hour.
        hours: the number of these hours.
        jobs: how many jobs completed in these hours.
        jobs_by_hour: how many jobs complete in each hour of the day, on average; None if unknown.
        quiet_day, quiet_week: None if the history is too short, or if no hour stands out.
        too_little: why the history is too short; "" if it is long enough.
        next_gap: in the next 24 hours, the first gap that is long enough for a restart.
        longest_gap: the longest gap in the next 24 hours.
        is_scheduled: whether any scheduler makes jobs for these queues.
    """

    zone: str
    histories: tuple[History, ...]
    from_at: datetime | None
    to_at: datetime | None
    hours: int
    jobs: int
    jobs_by_hour: tuple[float | None, ...]
    quiet_day: Quiet | None
    quiet_week: Quiet | None
    too_little: str
    next_gap: Gap | None
    longest_gap: Gap | None
    is_scheduled: bool


Local = Callable[[int], time.struct_time]


def local_time(epoch_ms: int) -> time.struct_time:
    """The time in this host's time zone."""
    return time.localtime(epoch_ms / 1000)


def last_hours(now_ms: int, local: Local = local_time) -> list[int]:
    """When each of the last 168 whole hours of local time began, oldest first."""
    offset_ms = (local(now_ms).tm_gmtoff or 0) * 1000
    end = (now_ms + offset_ms) // HOUR_MS * HOUR_MS - offset_ms
    return [end - back * HOUR_MS for back in range(WEEK_HOURS, 0, -1)]


def best_time(
    found: Sequence[Throughput],
    agendas: Sequence[Agenda],
    *,
    now_ms: int,
    needed_s: float,
    usual_s: Mapping[tuple[QueueKeys, str], float],
    prefix: str | None,
    local: Local = local_time,
) -> BestTime:
    """When to restart.

    Args:
        found: the throughput of each queue, for the hours that ``last_hours`` gives.
        needed_s: how long a restart takes.
        usual_s: how long jobs run, by queue and job name; 0 for names that are missing.
        prefix: the prefix that is left out of the queues' names.
    """
    since_ms = max((t.since_ms for t in found if t.since_ms is not None), default=now_ms)
    hours = [hour for hour in last_hours(now_ms, local) if hour >= since_ms]
    totals = {hour: sum(t.jobs.get(hour, 0) for t in found) for hour in hours}
    jobs = sum(totals.values())
    too_little = _too_little(len(hours), jobs)
    by_hour = _averages(totals, lambda at: local(at).tm_hour, 24)
    by_slot = _averages(totals, lambda at: local(at).tm_wday * 24 + local(at).tm_hour, WEEK_HOURS)
    gaps = _gaps(agendas, now_ms, usual_s)
    enough = [gap for gap in gaps if gap.length_s >= max(needed_s, MIN_GAP_S)]
    return BestTime(
        zone=local(now_ms).tm_zone or "UTC",
        histories=tuple(
            History(
                t.keys.label(prefix),
                t.source,
                utc_datetime(t.since_ms),
                sum(t.jobs.values()),
            )
            for t in found
        ),
        from_at=from_epoch_ms(hours[0]) if hours else None,
        to_at=from_epoch_ms(hours[-1] + HOUR_MS) if hours else None,
        hours=len(hours),
        jobs=jobs,
        jobs_by_hour=by_hour,
        quiet_day=None if too_little else _quietest(by_hour, now_ms, local),
        quiet_week=None if too_little else _quietest(by_slot, now_ms, local),
        too_little=too_little,
        next_gap=enough[0] if enough else None,
        longest_gap=max(gaps, key=lambda gap: gap.length_s, default=None),
        is_scheduled=any(agenda.schedulers for agenda in agendas),
    )


def _too_little(hours: int, jobs: int) -> str:
    if hours < 24:
        return f"only {counted(hours, 'whole hour')} of history, and 24 are needed"
    if jobs < MIN_JOBS:
        return f"only {counted(jobs, 'job')} completed in {hours} hours"
    return ""


def _averages(
    totals: Mapping[int, int], slot_of: Callable[[int], int], size: int
) -> tuple[float | None, ...]:
    sums, seen = [0] * size, [0] * size
    for hour, jobs in totals.items():
        slot = slot_of(hour)
        sums[slot] += jobs
        seen[slot] += 1
    return tuple(
        round(total / times, 1) if times else None for total, times in zip(sums, seen, strict=True)
    )


def _quietest(averages: Sequence[float | None], now_ms: int, local: Local) -> Quiet | None:
    """The longest series of quiet hours; None if unknown, or if no hour stands out."""
    # An hour stands out if it has at most half as many jobs as the busiest hour.
    known = [value for value in averages if value is not None]
    least, most = min(known, default=0.0), max(known, default=0.0)
    if len(known) < _MIN_KNOWN * len(averages) or least > most / 2:
        return None
    limit = least + _QUIET * (most - least)
    size = len(averages)
    quiet = [value is not None and value <= limit for value in averages]
    runs = [
        (start, sum(takewhile(bool, [*quiet[start:], *quiet[:start]])))
        for start in range(size)
        if quiet[start] and not quiet[start - 1]
    ]
    start, length = max(runs, key=lambda run: run[1])
    values = [averages[(start + step) % size] or 0.0 for step in range(length)]
    is_week = size == WEEK_HOURS
    if is_week and length >= 24:
        # If a whole day or more is quiet, show its first 24 hours.
        length = 24
    return Quiet(
        weekday=start // 24 if is_week else None,
        from_hour=start % 24,
        to_hour=(start + length) % 24,
        jobs_per_hour=round(sum(values) / len(values), 1),
        next_at=from_epoch_ms(_next(start, length, size, now_ms, local)),
    )


def _next(start: int, length: int, size: int, now_ms: int, local: Local) -> int:
    """When the series of hours begins next; if it is going on now, when it began.

    Args:
        start: the slot of the first hour.
        length: the number of hours in the series.
        size: the number of slots: 24 for a day, or ``WEEK_HOURS`` for a week.
    """
    at = local(now_ms)
    slot = (at.tm_wday * 24 if size == WEEK_HOURS else 0) + at.tm_hour
    hour = last_hours(now_ms, local)[-1] + HOUR_MS
    since = (slot - start) % size
    return hour - since * HOUR_MS if since < length else hour + (size - since) * HOUR_MS


# Between scheduled jobs


def _gaps(
    agendas: Sequence[Agenda], now_ms: int, usual_s: Mapping[tuple[QueueKeys, str], float]
) -> list[Gap]:
    """The gaps in the next 24 hours, in order; [] if no scheduled job is due in that time."""
    until_ms = now_ms + GAP_HORIZON_MS
    busy = sorted(_busy(agendas, now_ms, until_ms, usual_s))
    gaps, free_ms = [], now_ms
    if not busy:
        return []
    for start, end in [*busy, (until_ms, until_ms)]:
        if start > free_ms:
            from_at, to_at = from_epoch_ms(free_ms), from_epoch_ms(start)
            gaps.append(Gap(from_at, to_at, (start - free_ms) / 1000, free_ms == now_ms))
        free_ms = max(free_ms, end)
    return gaps


def _busy(
    agendas: Sequence[Agenda],
    now_ms: int,
    until_ms: int,
    usual_s: Mapping[tuple[QueueKeys, str], float],
) -> Iterable[tuple[int, int]]:
    """When scheduled jobs start and probably end. Patterns that qctl cannot read are skipped."""
    for agenda in agendas:
        for scheduler in agenda.schedulers:
            took_ms = round(usual_s.get((agenda.keys, scheduler.name), 0.0) * 1000)
            slots = []
            with contextlib.suppress(UsageError):
                slots = [*_slots(scheduler, now_ms, until_ms)]
            yield from ((slot, slot + took_ms) for slot in slots)
            if len(slots) >= MAX_SLOTS:
                # Later due times were not computed: count the rest of the time as busy.
                yield slots[-1], until_ms


def _slots(scheduler: Scheduler, now_ms: int, until_ms: int) -> Iterator[int]:
    """The due times of a scheduler from now on."""
    first = scheduler.next_ms
    if first is None or first >= until_ms:
        return
    if first >= now_ms:
        yield first
    elif scheduler.every_ms:
        first += (now_ms - first) // scheduler.every_ms * scheduler.every_ms
    yield from later_slots(scheduler, max(first, now_ms) if scheduler.cron else first, until_ms)


def later_slots(scheduler: Scheduler, after_ms: int, until_ms: int) -> Iterator[int]:
    """The due times after ``after_ms`` and before ``until_ms``, at most ``MAX_SLOTS`` of them.

    Args:
        after_ms: a due time; for a cron pattern, any time.

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
