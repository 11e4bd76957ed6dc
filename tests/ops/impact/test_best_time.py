"""The quietest hours, in local time, and gaps between scheduled jobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from qctl.ops.impact.best_time import HOUR_MS, WEEK_HOURS, BestTime, best_time, last_hours
from qctl.wire.read.throughput import Throughput
from qctl.wire.schedulers.iterations import Agenda
from qctl.wire.schedulers.scheduling import Scheduler
from tests.labs.build import Q

# A Tuesday.
NOW = round(datetime(2026, 11, 24, 16, 40, tzinfo=UTC).timestamp() * 1000)


def zone(name: str) -> Callable[[int], time.struct_time]:
    class At:
        def __init__(self, epoch_ms: int) -> None:
            at = datetime.fromtimestamp(epoch_ms / 1000, ZoneInfo(name))
            offset = at.utcoffset()
            assert offset is not None
            self.tm_hour, self.tm_wday = at.hour, at.weekday()
            self.tm_gmtoff, self.tm_zone = int(offset.total_seconds()), at.tzname()

    return At  # type: ignore[return-value]


def history(
    jobs_at: Callable[[datetime], int], *, days: float = 7, tz: str = "UTC", **options: Any
) -> BestTime:
    """What is told when each past hour had so many jobs."""
    local = zone(tz)
    since = NOW - round(days * 24) * HOUR_MS - HOUR_MS
    hours = [hour for hour in last_hours(NOW, local) if hour >= since]
    at = {hour: datetime.fromtimestamp(hour / 1000, ZoneInfo(tz)) for hour in hours}
    found = Throughput(Q, "completed", since, {hour: jobs_at(at[hour]) for hour in hours})
    arguments: dict[str, Any] = {"needed_s": 30.0, "usual_s": {}, "prefix": "bull", **options}
    return best_time([found], [], now_ms=NOW, local=local, **arguments)


def by_day(at: datetime) -> int:
    return 2 if 2 <= at.hour < 5 else 100


@pytest.mark.parametrize("tz", ["UTC", "Asia/Kolkata", "America/New_York"])
def test_quiet_hours_are_local(tz: str) -> None:
    told = history(by_day, tz=tz)
    quiet = told.quiet_day
    assert quiet is not None
    assert (quiet.from_hour, quiet.to_hour, quiet.jobs_per_hour) == (2, 5, 2.0)
    assert quiet.weekday is None
    next_at = quiet.next_at.astimezone(ZoneInfo(tz))
    assert (next_at.hour, next_at.minute) == (2, 0)
    assert 0 < next_at.timestamp() - NOW / 1000 < 86_400
    assert told.jobs_by_hour[:6] == (100.0, 100.0, 2.0, 2.0, 2.0, 100.0)
    assert (told.hours, told.too_little) == (WEEK_HOURS, "")


def test_quiet_hours_of_the_week_and_over_midnight() -> None:
    told = history(lambda at: 1 if at.weekday() == 6 and at.hour >= 22 else 90 + at.hour % 3)
    assert told.quiet_week is not None
    assert (told.quiet_week.weekday, told.quiet_week.from_hour, told.quiet_week.to_hour) == (
        *(6, 22, 0),
    )
    assert told.quiet_week.next_at == datetime(2026, 11, 29, 22, tzinfo=UTC)
    night = history(lambda at: 1 if at.hour >= 23 or at.hour < 1 else 90).quiet_day
    assert night is not None
    assert (night.from_hour, night.to_hour) == (23, 1)


def test_quiet_hours_that_are_now_have_begun() -> None:
    told = history(lambda at: 1 if at.hour in {15, 16, 17} else 90).quiet_day
    assert told is not None
    assert told.next_at == datetime(2026, 11, 24, 15, tzinfo=UTC)


def test_an_even_load_has_no_best_time() -> None:
    told = history(lambda at: 90 + at.hour)
    assert (told.quiet_day, told.quiet_week, told.too_little) == (None, None, "")


def test_too_little_history_tells_nothing() -> None:
    assert "22 whole hours" in history(by_day, days=0.9).too_little
    assert "jobs completed in" in history(lambda at: at.hour == 3, days=4).too_little
    short = history(by_day, days=3)
    assert short.too_little == ""
    assert (short.quiet_day is not None, short.quiet_week) == (True, None)


def test_without_any_history() -> None:
    nothing = Throughput(Q, "none", None, {})
    told = best_time(
        [nothing], [], now_ms=NOW, needed_s=1, usual_s={}, prefix="bull", local=zone("UTC")
    )
    assert (told.hours, told.jobs, told.from_at, told.quiet_day) == (0, 0, None, None)
    assert "only 0 whole hours" in told.too_little
    assert not told.is_scheduled


def test_it_rests_on_what_all_queues_tell() -> None:
    hours = last_hours(NOW, zone("UTC"))
    long = Throughput(Q, "completed", hours[0], dict.fromkeys(hours, 3))
    short = Throughput(Q, "metrics", hours[-30], dict.fromkeys(hours[-30:], 4))
    silent = Throughput(Q, "none", None, {})
    told = best_time(
        [long, short, silent], [], now_ms=NOW, needed_s=1, usual_s={}, prefix="bull",
        local=zone("UTC"),
    )  # fmt: skip
    assert (told.hours, told.jobs) == (30, 210)
    assert [history.source for history in told.histories] == ["completed", "metrics", "none"]


# Gaps


def scheduler(name: str, next_s: float, every_s: float | None, **fields: Any) -> Scheduler:
    known: dict[str, Any] = {
        "iterations": 1, "cron": None, "tz": "UTC", "offset_ms": 0, "limit": None,
        "start_ms": None, "end_ms": None, "data": {}, "opts": {}, **fields,
    }  # fmt: skip
    every_ms = None if every_s is None else round(every_s * 1000)
    return Scheduler(
        id=name, name=name, next_ms=NOW + round(next_s * 1000), every_ms=every_ms, **known
    )


def gaps(*schedulers: Scheduler, needed_s: float = 30.0, **usual_s: float) -> BestTime:
    usual = {(Q, name): seconds for name, seconds in usual_s.items()}
    return best_time(
        [], [Agenda(Q, schedulers, len(schedulers), None)],
        now_ms=NOW, needed_s=needed_s, usual_s=usual, prefix="bull", local=zone("UTC"),
    )  # fmt: skip


def seconds(told: BestTime) -> tuple[float, float]:
    assert told.next_gap is not None
    gap = told.next_gap
    return gap.from_at.timestamp() - NOW / 1000, gap.length_s


def test_the_next_gap_is_long_enough() -> None:
    sync = scheduler("sync", 40, 600)
    # Now is 40 s before the first; after it there are ten minutes.
    assert seconds(gaps(sync)) == (40, 600)
    # Its jobs still run for a while.
    assert seconds(gaps(sync, sync=90)) == (130, 510)
    assert seconds(gaps(scheduler("sync", 70, 600))) == (0, 70)
    assert gaps(scheduler("sync", 70, 600)).next_gap.is_now  # type: ignore[union-attr]
    told = gaps(sync, needed_s=700)
    assert told.next_gap is None
    assert told.longest_gap is not None
    assert told.longest_gap.length_s == 600
    assert told.is_scheduled


def test_jobs_all_the_time_leave_no_gap() -> None:
    busy = gaps(scheduler("sync", 1, 5))
    assert busy.next_gap is None
    assert busy.longest_gap is not None
    assert busy.longest_gap.length_s == 5
    assert gaps(scheduler("sync", 0, 5), sync=9).longest_gap is None


def test_a_pattern_and_an_interval_together() -> None:
    told = gaps(scheduler("nightly", 3600, None, cron="40 * * * *"), scheduler("sync", -5, 1800))
    assert seconds(told) == (0, 1795)


def test_without_schedulers_there_is_nothing_to_avoid() -> None:
    told = gaps()
    assert (told.next_gap, told.longest_gap, told.is_scheduled) == (None, None, False)
