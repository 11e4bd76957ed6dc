"""Schedulers as a table or as labelled lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime

from qctl.ops.schedules.changes import Removal, RunNow
from qctl.ops.schedules.listing import MAX_SKIPPED, Schedule, ScheduleDetail
from qctl.output.console import Cell, Column, Value
from qctl.output.json import TOO_DEEP, iso_time
from qctl.output.text import duration, short_duration, visible
from qctl.plurals import counted

_STYLES = {"overdue": "yellow", "dead": "bold red", "unknown": "yellow", "ended": "dim"}
_MAX_NAMED = 5
# What a state means that needs attention.
_STATE_TEXTS = {
    "dead": "no pending job: it runs again when the app creates it again",
    "overdue": "due, but no worker has taken the job",
    "unknown": "its pending job was not found",
}


def table_of(
    schedules: Sequence[Schedule], now: datetime
) -> tuple[list[Column], list[list[Value]]]:
    """Columns and rows of ``schedules list``."""
    columns = [
        Column("ID", keep_end=True),
        Column("QUEUE", keep_end=True),
        Column("NAME", optional=True),
        Column("SCHEDULE"),
        Column("NEXT", right=True),
        Column("LAST", right=True),
        Column("RUNS", right=True),
        Column("SKIPPED", right=True, short="SKIP", optional=True),
        Column("STATE"),
    ]
    return columns, [_row(schedule, now) for schedule in schedules]


def _row(schedule: Schedule, now: datetime) -> list[Value]:
    name = "" if schedule.name == schedule.id else schedule.name
    return [
        schedule.id,
        schedule.queue,
        name,
        rule(schedule),
        _next(schedule, now),
        None
        if schedule.last_run_at is None
        else short_duration((now - schedule.last_run_at).total_seconds()),
        _runs(schedule),
        "1000+" if schedule.skipped == MAX_SKIPPED else schedule.skipped or "",
        Cell(schedule.state, _STYLES.get(schedule.state, "")),
    ]


def rule(schedule: Schedule) -> str:
    """When it runs, in a few words."""
    if schedule.every_ms is not None:
        return f"every {_interval(schedule.every_ms)}"
    if schedule.pattern is None:
        return "(unreadable)"
    return schedule.pattern + (f" {schedule.tz}" if schedule.tz else "")


def _interval(every_ms: int) -> str:
    return f"{every_ms} ms" if every_ms % 1000 else short_duration(every_ms / 1000)


def _next(schedule: Schedule, now: datetime) -> Value:
    if schedule.next_at is None or schedule.state in {"dead", "ended"}:
        return None
    left_s = (schedule.next_at - now).total_seconds()
    if schedule.state == "running":
        return "now"
    if left_s < 0:
        return Cell(f"-{short_duration(-left_s)}", "yellow")
    return short_duration(left_s)


def _runs(schedule: Schedule) -> str | None:
    if schedule.iterations is None:
        return None
    limit = "" if schedule.limit is None else f"/{schedule.limit:,}"
    return f"{schedule.iterations:,}{limit}"


def attention_lines(schedules: Sequence[Schedule]) -> list[str]:
    """One line for each state that needs attention."""
    lines = []
    for state, text in _STATE_TEXTS.items():
        ids = [schedule.id for schedule in schedules if schedule.state == state]
        if ids:
            named = ", ".join(visible(sid, 40) for sid in ids[:_MAX_NAMED])
            more = f" and {len(ids) - _MAX_NAMED:,} more" if len(ids) > _MAX_NAMED else ""
            lines.append(f"{named}{more}: {text}")
    legacy = sum(schedule.kind == "legacy" for schedule in schedules)
    if legacy:
        lines.append(
            f"{counted(legacy, 'repeatable')} of BullMQ 5: "
            "BullMQ 6 continues them without their data, or not at all"
        )
    return lines


def detail_lines(schedule: ScheduleDetail, now: datetime) -> Iterator[str]:
    """One scheduler in full, control characters made visible."""
    facts = [(label, text) for label, text in _facts(schedule, now) if text is not None]
    width = max(len(label) for label, _ in facts)
    for label, text in facts:
        yield f"{label:<{width}}  {visible(text)}"


def _facts(schedule: ScheduleDetail, now: datetime) -> Iterator[tuple[str, str | None]]:
    yield "id", schedule.id
    yield "queue", schedule.queue
    yield "kind", "legacy repeatable of BullMQ 5" if schedule.kind == "legacy" else None
    yield "job name", schedule.name
    yield "schedule", rule(schedule)
    yield "offset", f"{schedule.offset_ms} ms" if schedule.offset_ms else None
    said = _STATE_TEXTS.get(schedule.state)
    yield "state", schedule.state + (f": {said}" if said else "")
    for number, due in enumerate(schedule.upcoming_at):
        yield ("then" if number else "next"), _moment(due, now)
    place = schedule.pending_state or "in no list"
    yield "pending job", f"{schedule.pending_id} ({place})"
    yield "last run", _moment(schedule.last_run_at, now)
    yield "runs", _runs(schedule)
    if schedule.skipped:
        more = " or more" if schedule.skipped == MAX_SKIPPED else ""
        yield "skipped", f"{counted(schedule.skipped, 'due time')}{more}"
    yield "from", _moment(schedule.start_at, now)
    yield "until", _moment(schedule.end_at, now)
    yield "data", _json(schedule.data)
    yield "options", _json(dict(schedule.opts))


def _moment(moment: datetime | None, now: datetime) -> str | None:
    if moment is None:
        return None
    seconds = (moment - now).total_seconds()
    away = f"in {duration(seconds)}" if seconds >= 0 else f"{duration(-seconds)} ago"
    return f"{iso_time(moment)}  {away}"


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (RecursionError, ValueError):
        return TOO_DEEP


def removal_lines(removal: Removal) -> list[str]:
    """What was removed, with all that is needed to create it again."""
    schedule = removal.schedule
    what = f"scheduler {schedule.id} of {schedule.queue} ({rule(schedule)}, job {schedule.name})"
    done = "removed" if removal.removed else "would be removed" if removal.dry_run else "was gone"
    lines = [f"{what} {done}" + (" (dry run)" if removal.dry_run else "")]
    if removal.job_left is not None:
        lines.append(
            f"its job {removal.job_left} is already {schedule.pending_state}, and will run"
        )
    return list(map(visible, lines))


def run_line(run: RunNow) -> str:
    """The new job, and how the schedule continues."""
    lives = run.state in {"ok", "running", "overdue"}
    after = "continues as before" if lives else f"stays {run.state}"
    job = f"job {run.id}" if run.id else "a job"
    done = "would be added" if run.dry_run else "was added"
    text = f"{job} ({run.name}) {done} to {run.queue}; scheduler {run.scheduler} {after}"
    return visible(text) + (" (dry run)" if run.dry_run else "")
