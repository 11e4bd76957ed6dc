"""Schedulers as a table or as labelled lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from qctl.ops.schedules.changes import Removal, RunNow
from qctl.ops.schedules.listing import MAX_SKIPPED, Schedule, ScheduleDetail
from qctl.ops.schedules.migrate import MigratedRepeatable, Migration
from qctl.ops.schedules.set import ScheduleChange
from qctl.output.console import Cell, Column, Value
from qctl.output.details import age, json_text, labelled_lines, moment_text, time_left
from qctl.output.text import listed, short_duration, visible
from qctl.plurals import counted

_STYLES = {"overdue": "yellow", "dead": "bold red", "unknown": "yellow", "ended": "dim"}
# The states that need attention, and what each means.
_STATE_TEXTS = {
    "dead": "no pending job, so no job is made until the app creates the scheduler again",
    "overdue": "due, but no worker has taken the job",
    "unknown": "its pending job was not found",
}


def columns(schedules: Sequence[Schedule], now: datetime) -> tuple[Column[Schedule], ...]:
    """The columns of ``schedules list``."""
    is_single = len({schedule.prefix for schedule in schedules}) == 1

    def queue(schedule: Schedule) -> str:
        return schedule.queue if is_single else f"{schedule.queue}@{schedule.prefix}"

    return (
        Column("ID", lambda s: s.id, keep_end=True),
        Column("QUEUE", queue, keep_end=True),
        Column("NAME", lambda s: "" if s.name == s.id else s.name, optional=True),
        Column("SCHEDULE", rule),
        Column("NEXT", lambda s: _next(s, now), right=True),
        Column("LAST", lambda s: age(s.last_run_at, now), right=True),
        Column("RUNS", _runs, right=True),
        Column("SKIPPED", _skipped, right=True, short="SKIP", optional=True),
        Column("STATE", lambda s: Cell(s.state, _STYLES.get(s.state, ""))),
    )


def _skipped(schedule: Schedule) -> Value:
    if schedule.skipped is None:
        return "?"
    return f"{MAX_SKIPPED}+" if schedule.skipped == MAX_SKIPPED else schedule.skipped or ""


def rule(schedule: Schedule | ScheduleChange | MigratedRepeatable) -> str:
    """When a scheduler makes jobs, in a few words."""
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
    return "now" if schedule.state == "running" else time_left(schedule.next_at, now)


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
            lines.append(f"{listed(ids)}: {text}")
    legacy = sum(schedule.kind == "legacy" for schedule in schedules)
    if legacy:
        lines.append(
            f"{counted(legacy, 'repeatable')} of BullMQ 5: "
            "BullMQ 6 continues them without their data, or not at all; "
            "`qctl schedules migrate QUEUE` makes schedulers of them"
        )
    return lines


def detail_lines(schedule: ScheduleDetail, now: datetime) -> Iterator[str]:
    """One scheduler in full, with control characters made visible."""
    return labelled_lines(_facts(schedule, now))


def _facts(schedule: ScheduleDetail, now: datetime) -> Iterator[tuple[str, str | None]]:
    yield "id", schedule.id
    yield "queue", schedule.queue
    yield "kind", "legacy repeatable of BullMQ 5" if schedule.kind == "legacy" else None
    yield "job name", schedule.name
    yield "schedule", rule(schedule)
    yield "offset", f"{schedule.offset_ms} ms" if schedule.offset_ms else None
    meaning = _STATE_TEXTS.get(schedule.state)
    yield "state", schedule.state + (f": {meaning}" if meaning else "")
    for number, due in enumerate(schedule.upcoming_at):
        yield ("then" if number else "next"), moment_text(due, now)
    state = schedule.pending_state or "in no list"
    yield "pending job", f"{schedule.pending_id} ({state})"
    yield "last run", moment_text(schedule.last_run_at, now)
    yield "runs", _runs(schedule)
    if schedule.skipped is None:
        yield "skipped", "unknown"
    elif schedule.skipped:
        more = " or more" if schedule.skipped == MAX_SKIPPED else ""
        yield "skipped", f"{counted(schedule.skipped, 'due time')}{more}"
    yield "from", moment_text(schedule.start_at, now)
    yield "until", moment_text(schedule.end_at, now)
    if schedule.package is not None:
        yield "made by", f"the code of the package {schedule.package}, at each start of its worker"
    yield "data", json_text(schedule.data)
    yield "options", json_text(schedule.opts)


def removal_lines(removal: Removal) -> list[str]:
    """What was removed, and whether a job of the scheduler will still run."""
    schedule = removal.schedule
    what = f"scheduler {schedule.id} of {schedule.queue} ({rule(schedule)}, job {schedule.name})"
    done = "removed" if removal.removed else "would be removed" if removal.dry_run else "was gone"
    lines = [f"{what} {done}" + (" (dry run)" if removal.dry_run else "")]
    if removal.job_left is not None:
        lines.append(
            f"its job {removal.job_left} is no longer delayed, so it is not deleted and will run"
        )
    return list(map(visible, lines))


def run_line(run: RunNow) -> str:
    """The new job, and the state of its scheduler."""
    makes_jobs = run.state in {"ok", "running", "overdue"}
    after = "continues as before" if makes_jobs else f"stays {run.state}"
    job = f"job {run.id}" if run.id else "a job"
    done = "would be added" if run.dry_run else "was added"
    text = f"{job} ({run.name}) {done} to {run.queue}; scheduler {run.scheduler} {after}"
    return visible(text) + (" (dry run)" if run.dry_run else "")


def set_question(change: ScheduleChange) -> str:
    """The question before a scheduler is changed."""
    return visible(f"Change scheduler {change.id} of {change.queue}{_difference(change)}?")


def set_line(change: ScheduleChange, now: datetime) -> str:
    """What was made or changed."""
    what = f"scheduler {change.id} of {change.queue}"
    if change.before is None:
        what += f" ({rule(change)}, job {change.name})"
    would = "would be " if change.dry_run else ""
    text = f"{what} {would}{change.outcome}{_difference(change)}{_next_job(change.next_at, now)}"
    return visible(text) + (" (dry run)" if change.dry_run else "")


def _difference(change: ScheduleChange) -> str:
    """What changes, such as ``: every 5s → 0 7 * * *``; empty if rule and job name are the same."""
    before = change.before
    if before is None:
        return ""
    pairs = [(rule(before), rule(change)), (f"job {before.name}", f"job {change.name}")]
    texts = [f"{old} → {new}" for old, new in pairs if old != new]
    return f": {', '.join(texts)}" if texts else ""


def migration_lines(migration: Migration, now: datetime) -> list[str]:
    """What became of each repeatable."""
    lines = [_migration_line(each, now) for each in migration.repeatables]
    if not lines:
        lines = ["no repeatables of old versions"]
    return [visible(line) + (" (dry run)" if migration.dry_run else "") for line in lines]


def _migration_line(each: MigratedRepeatable, now: datetime) -> str:
    what = f"{each.queue}: {each.name} ({rule(each)})"
    if each.id is None:
        todo = f"; {each.command}" if each.command else ""
        return f"{what} is left as it is ({each.key}): {each.why}{todo}"
    verb = "becomes" if each.outcome == "planned" else "is now"
    return f"{what} {verb} scheduler {each.id}{_next_job(each.next_at, now)}"


def _next_job(due: datetime | None, now: datetime) -> str:
    if due is None:
        return ""
    return f"; next job {moment_text(due, now) if due > now else 'now'}"


def migration_question(plan: Migration) -> str:
    """The question before repeatables are replaced."""
    return f"Replace {counted(plan.count('planned'), 'repeatable')} with job schedulers?"


def migration_remark(migration: Migration) -> str:
    """What the app's code has to do after a migration."""
    ids = [each.id for each in migration.repeatables if each.outcome == "migrated" and each.id]
    if not ids:
        return ""
    return (
        "code that still calls add(…, {repeat}) makes repeatables again: change it to "
        f"upsertJobScheduler({visible(repr(ids[0]))}, …)"
    )
