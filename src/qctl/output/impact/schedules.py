"""The schedules of an impact: what runs late, and what is skipped."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from qctl.output.impact.table import Aspect
from qctl.output.text import duration, visible
from qctl.plurals import counted

if TYPE_CHECKING:
    from qctl.ops.impact.assess import Impact

_MAX_ROWS = 4
# A job that is late by less is on its way to a worker.
_OVERDUE = timedelta(seconds=5)


def scheduled(impact: Impact) -> Aspect:
    """What an absence does to the schedules, and which are already overdue."""
    away = duration(impact.away_s)
    if impact.schedules is None:
        return Aspect("Scheduled", "unknown", ())
    unread = _unread(impact.schedules_unread or 0)
    if not impact.schedules:
        return Aspect("Scheduled", "unknown" if unread else "none", unread)
    late = [row for row in impact.schedules if row.runs_late_s is not None]
    overdue = [
        row for row in impact.schedules if row.next_at and row.next_at < impact.asked_at - _OVERDUE
    ]
    unknown = sum(row.next_at is None for row in impact.schedules)
    skipped = sum(row.skipped or 0 for row in late)
    notes = []
    if overdue:
        notes.append("overdue: the job waits for a worker; later due times are skipped")
    if not late:
        text = "none missed"
        if overdue or unknown:
            text = f"{len(overdue):,} overdue" if overdue else f"{unknown:,} unknown"
        notes.append(f"if it is away for {away}")
    else:
        least = "at least " if any(row.skipped is None for row in impact.schedules) else ""
        text = f"{len(late):,} late, {least}{skipped:,} skipped"
        notes.append(f"if it is away for {away}; BullMQ runs one of them late and skips the others")
    for row in (late or overdue or impact.schedules)[:_MAX_ROWS]:
        how = f"cron {visible(row.pattern, 30)}" if row.pattern else _every(row.every_ms)
        due = "unknown" if row.next_at is None else when(row.next_at, impact.asked_at)
        text_of = f"{visible(row.id, 30)} ({how}): next due {due}"
        if row.skipped is None and row.next_at is not None:
            text_of += "; its pattern is not understood"
        elif row.skipped:
            text_of += f"; {row.skipped:,} skipped"
        notes.append(text_of)
    more = len(late or overdue or impact.schedules) - _MAX_ROWS
    if more > 0:
        notes.append(f"and {more:,} more")
    notes += unread
    return Aspect("Scheduled", text, notes, "yellow" if skipped or overdue else "")


def _every(every_ms: int | None) -> str:
    return "no interval" if every_ms is None else f"every {duration(every_ms / 1000)}"


def _unread(number: int) -> list[str]:
    if not number:
        return []
    return [
        f"{counted(number, 'more was', 'more were')} not looked at: repeatables of old versions, "
        "without a record, or far in the future"
    ]


def when(at: datetime, now: datetime) -> str:
    """``in 4 min``, ``now`` or ``2 h ago``."""
    left_s = (at - now).total_seconds()
    if left_s < -1:
        return f"{duration(-left_s)} ago"
    return "now" if left_s < 1 else f"in {duration(left_s)}"
