"""The best time for a restart, as a small chart by hour and a few sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from qctl.output.text import duration, listed, wrapped
from qctl.plurals import counted

if TYPE_CHECKING:
    from qctl.ops.impact.best_time import BestTime, Gap, Quiet

_BARS = " ▁▂▃▄▅▆▇█"
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
# Three cells for each hour.
_CHART_WIDTH = 24 * 3


def best_time_lines(best: BestTime, *, width: int) -> Iterator[str]:
    """The best time, a chart, the history that both are based on, and gaps in the schedules."""
    yield from wrapped(f"Best time: {_answer(best)}", width)
    if best.jobs:
        yield from _chart(best.jobs_by_hour, best.zone, width)
    if best.from_at is not None or any(h.since_at is None for h in best.histories):
        yield from wrapped(_basis(best), width)
    for line in _gaps(best):
        yield from wrapped(line, width)


def _answer(best: BestTime) -> str:
    if best.too_little:
        return f"unknown: {best.too_little}"
    quiet = [_quiet(each, best) for each in (best.quiet_day, best.quiet_week) if each is not None]
    return "; ".join(quiet) or "no hour stands out: the load is even"


def _quiet(quiet: Quiet, best: BestTime) -> str:
    begin, end = f"{quiet.from_hour:02}:00", f"{quiet.to_hour:02}:00"
    rate = f"{best.zone}, {quiet.jobs_per_hour:,.0f} jobs an hour"
    if quiet.weekday is None:
        known = [value for value in best.jobs_by_hour if value is not None]
        return f"daily {begin}-{end} {rate} (the busiest hour has {max(known):,.0f})"
    if quiet.to_hour <= quiet.from_hour:
        end = f"{_DAYS[(quiet.weekday + 1) % 7]} {end}"
    return f"{_DAYS[quiet.weekday]} {begin} to {end} {rate}"


def _chart(averages: Sequence[float | None], zone: str, width: int) -> Iterator[str]:
    """A bar for each hour of the day, its height rounded up; a dot for an hour without history."""
    most = max(value for value in averages if value is not None) or 1.0
    bars = [
        "·" if value is None else _BARS[-(-round(value / most * 800) // 100)] for value in averages
    ]
    if width >= _CHART_WIDTH:
        yield "".join(f" {bar * 2}" for bar in bars).rstrip(" ")
        yield "".join(f" {hour:02}" for hour in range(24))
    else:
        yield "".join(bars).rstrip(" ")
        yield "0     6     12    18"
    yield f"completed jobs by hour, {zone}; the highest is {most:,.0f}"


def _basis(best: BestTime) -> str:
    if best.from_at is None or best.to_at is None:
        return f"no completed jobs are kept in {_queues_without_history(best)}"
    begin, end = best.from_at.astimezone(), best.to_at.astimezone()
    text = (
        f"based on {counted(best.jobs, 'job')} in {counted(best.hours, 'hour')}, "
        f"{begin:%a %d %b %H:%M} to {end:%a %d %b %H:%M}"
    )
    if any(history.source == "metrics" for history in best.histories):
        text += ", by BullMQ's metrics"
    queues = _queues_without_history(best)
    return text + (f"; no completed jobs are kept in {queues}" if queues else "")


def _queues_without_history(best: BestTime) -> str:
    return listed([history.queue for history in best.histories if history.since_at is None])


def _gaps(best: BestTime) -> Iterator[str]:
    if not best.is_scheduled:
        return
    if best.next_gap is not None:
        yield f"next gap between scheduled jobs: {_gap(best.next_gap)}"
    elif best.longest_gap is not None:
        yield (
            "no gap between scheduled jobs is long enough in the next 24 hours; the longest: "
            f"{_gap(best.longest_gap)}"
        )
    else:
        yield "scheduled jobs leave no gap in the next 24 hours"


def _gap(gap: Gap) -> str:
    begin = "now" if gap.is_now else f"{gap.from_at.astimezone():%H:%M:%S}"
    return f"{begin} to {gap.to_at.astimezone():%H:%M:%S} ({duration(gap.length_s)})"
