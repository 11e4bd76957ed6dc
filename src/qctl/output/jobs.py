"""Jobs as a table whose columns depend on the state, or one job as labelled lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from qctl.ops.jobs.model import Job, JobDetail, JobList
from qctl.output.console import Cell, Column, Value
from qctl.output.json import TOO_DEEP, iso_time
from qctl.output.text import cells, short_duration, visible
from qctl.plurals import counted

# Characters of a text that a table may show. JSON has the whole text.
_CELL_TEXT = 300
_BLOCK_LINES = 40
_BLOCK_TEXT = 4000
_LINE_TEXT = 500
# console.table does not shorten a text further.
MIN_TEXT_WIDTH = 12
_STACKTRACES = 3
_IDS_NAMED = 5


@dataclass(frozen=True, slots=True)
class _Field:
    column: Column
    value: Callable[[Job, datetime], Value]


def table_of(
    jobs: JobList, now: datetime, width: int
) -> tuple[Sequence[Column], Sequence[Sequence[Value]]]:
    """Columns and rows for ``console.table``.

    Ids are shown in full; other texts are shortened first. If that is not enough, the worker is
    left out.

    Args:
        now: ages are relative to this.
        width: of the terminal, in cells.
    """
    names = ["id", "name", *_BY_STATE[jobs.state].split()]
    columns, rows = _columns_and_rows(names, jobs, now)
    if _min_width(columns, rows) > width and "worker" in names:
        names.remove("worker")
        narrow = _columns_and_rows(names, jobs, now)
        if _min_width(*narrow) <= width:
            columns, rows = narrow
    if _min_width(columns, rows) <= width:
        # Columns aligned right are not shortened.
        columns[0] = replace(columns[0], right=True)
    return columns, rows


def _columns_and_rows(
    names: Sequence[str], jobs: JobList, now: datetime
) -> tuple[list[Column], list[list[Value]]]:
    fields = [_FIELDS[name] for name in names]
    rows = [[field.value(job, now) for field in fields] for job in jobs.jobs]
    return [field.column for field in fields], rows


def _min_width(columns: Sequence[Column], rows: Sequence[Sequence[Value]]) -> int:
    """The width of the table when all texts except ids are shortened as far as possible."""
    total = len(columns) - 1
    for index, column in enumerate(columns):
        widths = [_cells_of(row[index]) for row in rows]
        longest = max([len(column.short or column.heading), *widths])
        shrinks = index > 0 and not column.right
        total += min(longest, MIN_TEXT_WIDTH) if shrinks else longest
    return total


def _cells_of(value: Value) -> int:
    text = value.value if isinstance(value, Cell) else value
    return cells(visible("-" if text is None else str(text)))


def summary(jobs: JobList, *, limit: int, filtered: bool) -> str:
    """A remark about what the table does not show; empty if it shows everything."""
    shown, where = len(jobs.jobs), f"in queue {jobs.queue}"
    if not jobs.total:
        return f"no {jobs.state} jobs {where}"
    if filtered:
        among = f"among {jobs.total:,} {jobs.state} jobs {where}"
        if not shown:
            return f"no match {among}"
        if shown >= limit:
            return f"showing the first {shown:,} matches {among}; --limit N for more"
        return f"{counted(shown, 'match', 'matches')} {among}"
    if shown < jobs.total and shown >= limit:
        return f"showing {shown:,} of {jobs.total:,}; --limit N for more"
    return ""


def fate_lines(jobs: JobList) -> list[str]:
    """What will become of jobs whose worker is gone, one line per fate."""
    ids: dict[str, list[str]] = {}
    for job in jobs.jobs:
        if job.fate is not None:
            ids.setdefault(job.fate.text, []).append(job.id)
    lines = []
    for text, those in ids.items():
        named = ", ".join(visible(job_id, 40) for job_id in those[:_IDS_NAMED])
        more = f" and {len(those) - _IDS_NAMED:,} more" if len(those) > _IDS_NAMED else ""
        noun = "job" if len(those) == 1 else "jobs"
        lines.append(f"{noun} {named}{more}: {visible(text)}")
    return lines


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= _CELL_TEXT:
        return text
    return text[:_CELL_TEXT] + "…"


def _name(job: Job, _: datetime) -> Value:
    return Cell("(missing)", "red") if job.missing else _cut(job.name)


def _since(moment: datetime | None, now: datetime) -> Value:
    return None if moment is None else short_duration((now - moment).total_seconds())


def _due(job: Job, now: datetime) -> Value:
    if job.due_at is None:
        return None
    left = (job.due_at - now).total_seconds()
    return Cell(f"-{short_duration(-left)}", "yellow") if left < 0 else short_duration(left)


def _took(job: Job, _: datetime) -> Value:
    return None if job.runtime_s is None else short_duration(job.runtime_s)


def _attempts(job: Job, _: datetime) -> Value:
    return None if job.missing else f"{job.attempts_made}/{job.attempts_max}"


def _lock(job: Job, _: datetime) -> Value:
    if job.state == "stalled":
        return Cell("none", "red")
    return None if job.lock_ttl_ms is None else short_duration(job.lock_ttl_ms / 1000)


def _stalls(job: Job, _: datetime) -> Value:
    return None if job.missing else job.stalled_count


_FATES = {
    "recovered": Cell("recovered", "green"),
    "fails": Cell("fails", "red"),
    "none": Cell("stays", "yellow"),
    "unknown": Cell("unknown", "yellow"),
    "held": Cell("held", "yellow"),
}


def _fate(job: Job, _: datetime) -> Value:
    return None if job.fate is None else _FATES[job.fate.outcome]


_FIELDS = {
    "id": _Field(Column("ID"), lambda job, _: _cut(job.id)),
    "name": _Field(Column("NAME"), _name),
    "age": _Field(Column("AGE", right=True), lambda job, now: _since(job.added_at, now)),
    "due": _Field(Column("DUE", right=True), _due),
    "ended": _Field(Column("ENDED", right=True), lambda job, now: _since(job.finished_at, now)),
    "running": _Field(Column("RUNNING", right=True), _took),
    "took": _Field(Column("TOOK", right=True), _took),
    "attempts": _Field(Column("ATTEMPTS", right=True, short="TRIES"), _attempts),
    "stalls": _Field(Column("STALLS", right=True), _stalls),
    "priority": _Field(Column("PRIORITY", right=True, short="PRIO"), lambda job, _: job.priority),
    "worker": _Field(Column("WORKER", optional=True), lambda job, _: _cut(job.worker)),
    "lock": _Field(Column("LOCK", right=True), _lock),
    "fate": _Field(Column("FATE"), _fate),
    "reason": _Field(Column("REASON", optional=True), lambda job, _: _cut(job.failed_reason)),
}
_BY_STATE = {
    "waiting": "age attempts reason",
    "active": "running attempts lock worker",
    "stalled": "running stalls fate worker",
    "delayed": "due attempts reason",
    "prioritized": "priority age attempts reason",
    "waiting-children": "age attempts",
    "completed": "ended took attempts worker",
    "failed": "ended attempts reason",
}


def detail_lines(job: JobDetail, now: datetime) -> Iterator[str]:
    """One job as lines, control characters made visible; long parts are cut with a remark."""
    labelled = [(label, text) for label, text in _facts(job, now) if text is not None]
    width = max(len(label) for label, _ in labelled)
    for label, text in labelled:
        yield f"{label:<{width}}  {visible(text[:_LINE_TEXT])}{_rest(text, _LINE_TEXT)}"
    yield from _block("data" if job.data_is_json else "data (not JSON)", job.data)
    yield from _block("options", job.opts)
    if job.progress is not None:
        yield from _block("progress", job.progress)
    if job.returnvalue is not None:
        yield from _block("return value", job.returnvalue)
    if job.failed_reason is not None and "\n" in job.failed_reason.strip():
        yield from _block("reason", job.failed_reason)
    for number, trace in enumerate(job.stacktrace[-_STACKTRACES:]):
        attempt = max(len(job.stacktrace) - _STACKTRACES, 0) + number + 1
        yield from _block(f"stack trace {attempt} of {len(job.stacktrace)}", trace)


def _facts(job: JobDetail, now: datetime) -> Iterator[tuple[str, str | None]]:
    yield "id", job.id
    yield "name", job.name
    yield "queue", job.queue
    yield "state", "stalled (active without a lock)" if job.state == "stalled" else job.state
    if job.fate is not None:
        yield "fate", job.fate.text
    yield "added", _moment(job.added_at, now)
    yield "due", _moment(job.due_at, now)
    yield "started", _moment(job.started_at, now)
    yield "finished", _moment(job.finished_at, now)
    yield "run time", None if job.runtime_s is None else short_duration(job.runtime_s)
    started = f", {job.attempts_started} started" if job.attempts_started else ""
    yield "attempts", f"{job.attempts_made} made{started}, {job.attempts_max} allowed"
    yield "stalls", str(job.stalled_count) if job.stalled_count else None
    yield "priority", str(job.priority) if job.priority else None
    yield "worker", job.worker
    if job.held_by is not None:
        of = f", {job.held_by.process}" if job.held_by.process else ""
        yield "process", f"pid {job.held_by.pid} on {job.held_by.host}{of}"
    if job.lock_token is not None:
        left = "" if job.lock_ttl_ms is None else f", {job.lock_ttl_ms / 1000:.1f} s left"
        yield "lock", f"{job.lock_token}{left}"
    yield "scheduler", job.scheduler
    if job.parent is not None:
        near = job.parent.id is not None
        yield "parent", f"{job.parent.queue} {job.parent.id}" if near else job.parent.key
    if job.children is not None:
        c = job.children
        yield (
            "children",
            f"{c.pending} pending, {c.processed} processed, {c.ignored} ignored, {c.failed} failed",
        )
    yield "deduplication", job.deduplication_id
    yield "will fail with", job.deferred_failure
    yield "reason", job.failed_reason
    yield "log", f"{counted(job.log_rows, 'row')}, see qctl jobs logs" if job.log_rows else None


def _moment(moment: datetime | None, now: datetime) -> str | None:
    if moment is None:
        return None
    seconds = (now - moment).total_seconds()
    if seconds < 0:
        return f"{iso_time(moment)}  in {short_duration(-seconds)}"
    return f"{iso_time(moment)}  {short_duration(seconds)} ago"


def _block(title: str, value: Any) -> Iterator[str]:
    text = value if isinstance(value, str) else _pretty(value)
    lines = text[:_BLOCK_TEXT].split("\n")
    if len(lines) == 1 and len(text) <= 60:
        yield f"{title}: {visible(text)}"
        return
    yield f"{title}:"
    for line in lines[:_BLOCK_LINES]:
        yield f"  {visible(line)}"
    if len(lines) > _BLOCK_LINES or len(text) > _BLOCK_TEXT:
        yield f"  … ({len(text):,} characters; --json shows all)"


def _pretty(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, default=dict)
        return text if len(text) <= 60 else json.dumps(value, ensure_ascii=False, indent=2)
    except (RecursionError, ValueError):
        return TOO_DEEP


def _rest(text: str, limit: int) -> str:
    return f"… ({len(text):,} characters)" if len(text) > limit else ""
