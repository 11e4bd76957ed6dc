"""Jobs as a table whose columns depend on the state, or one job as labelled lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from qctl.ops.jobs.model import Job, JobDetail, JobList
from qctl.output.console import MIN_TEXT_WIDTH, Cell, Column, Value, cell_text, if_known
from qctl.output.details import age, json_text, labelled_lines, moment_text, time_left
from qctl.output.flows import job_name, state_text
from qctl.output.text import cells, duration, listed, short_duration, visible
from qctl.plurals import counted

# Limits in characters or lines. Longer texts are cut; JSON has the whole text.
_MAX_CELL_TEXT = 300
_MAX_BLOCK_LINES = 40
_MAX_BLOCK_TEXT = 4000
MAX_LINE_TEXT = 500
_MAX_STACKTRACES = 3
# A longer value is shown below its title, and longer JSON is indented.
_MAX_INLINE_TEXT = 60


def columns(jobs: JobList, now: datetime, width: int) -> list[Column[Job]]:
    """The columns of a table of these jobs.

    Ids are shown in full if the other texts can be shortened enough. Otherwise, the column of
    workers is left out if this makes enough room.

    Args:
        now: ages are relative to this time.
        width: of the terminal, in cells.
    """
    by_name = _columns(now)
    chosen = [by_name[name] for name in ("id", "name", *_BY_STATE[jobs.state].split())]
    widths = {column.heading: _min_width(column, jobs.jobs) for column in chosen}
    excess = sum(widths.values()) + len(chosen) - 1 - width  # each gap is one cell
    if 0 < excess <= (freed := widths.get("WORKER", -1) + 1):
        chosen.remove(by_name["worker"])
        excess -= freed
    if excess <= 0:
        # A table does not shorten columns that are aligned right, so this keeps the ids whole.
        chosen[0] = replace(chosen[0], right=True)
    return chosen


def _min_width(column: Column[Job], jobs: Sequence[Job]) -> int:
    """The width of a column when all texts except ids are shortened as far as possible."""
    widths = [cells(cell_text(column.value(job), short=True)) for job in jobs]
    longest = max([len(column.short or column.heading), *widths])
    return longest if column.right or column.heading == "ID" else min(longest, MIN_TEXT_WIDTH)


def summary(jobs: JobList, *, limit: int, filtered: bool) -> str:
    """A remark about matches, or about jobs that are not shown; "" if all jobs are shown."""
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
    """What will happen to jobs whose worker is gone; one line for each fate."""
    ids: dict[str, list[str]] = {}
    for job in jobs.jobs:
        if job.fate is not None:
            ids.setdefault(job.fate.text, []).append(job.id)
    lines = []
    for text, job_ids in ids.items():
        noun = "job" if len(job_ids) == 1 else "jobs"
        lines.append(f"{noun} {listed(job_ids)}: {visible(text)}")
    return lines


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= _MAX_CELL_TEXT:
        return text
    return text[:_MAX_CELL_TEXT] + "…"


def _name(job: Job) -> Value:
    return Cell("(missing)", "red") if job.missing else _cut(job.name)


def _attempts(job: Job) -> Value:
    return None if job.missing else f"{job.attempts_made}/{job.attempts_max}"


def _lock(job: Job) -> Value:
    if job.state == "stalled":
        return Cell("none", "red")
    return if_known(lambda ttl_ms: short_duration(ttl_ms / 1000), job.lock_ttl_ms)


_FATES = {
    "recovered": Cell("recovered", "green"),
    "fails": Cell("fails", "red"),
    "none": Cell("stays", "yellow"),
    "unknown": Cell("unknown", "yellow"),
    "held": Cell("held", "yellow"),
}


def _columns(now: datetime) -> dict[str, Column[Job]]:
    def took(job: Job) -> Value:
        return if_known(short_duration, job.runtime_s)

    return {
        "id": Column("ID", lambda j: _cut(j.id)),
        "name": Column("NAME", _name),
        "age": Column("AGE", lambda j: age(j.added_at, now), right=True),
        "due": Column("DUE", lambda j: time_left(j.due_at, now), right=True),
        "ended": Column("ENDED", lambda j: age(j.finished_at, now), right=True),
        "running": Column("RUNNING", took, right=True),
        "took": Column("TOOK", took, right=True),
        "attempts": Column("ATTEMPTS", _attempts, right=True, short="TRIES"),
        "stalls": Column("STALLS", lambda j: None if j.missing else j.stalled_count, right=True),
        "priority": Column("PRIORITY", lambda j: j.priority, right=True, short="PRIO"),
        "worker": Column("WORKER", lambda j: _cut(j.worker), optional=True),
        "lock": Column("LOCK", _lock, right=True),
        "fate": Column("FATE", lambda j: if_known(lambda fate: _FATES[fate.outcome], j.fate)),
        "reason": Column("REASON", lambda j: _cut(j.failed_reason), optional=True),
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


def detail_lines(job: JobDetail, now: datetime, prefix: str) -> Iterator[str]:
    """One job as lines, with control characters made visible; a remark shows what was cut.

    Args:
        prefix: the prefix of the job's queue.
    """
    yield from labelled_lines(facts(job, now, prefix), MAX_LINE_TEXT)
    for section in sections(job):
        if section.is_short:
            yield f"{section.title}: {section.lines[0]}"
        else:
            yield f"{section.title}:"
            yield from (f"  {line}" for line in section.lines)


class Section(NamedTuple):
    """A value of a job that may take several lines; a long value is cut to its first lines."""

    title: str
    lines: list[str]
    is_short: bool


def sections(job: JobDetail) -> Iterator[Section]:
    """The values of a job that may take several lines."""
    yield _section("data" if job.data_is_json else "data (not JSON)", job.data)
    yield _section("options", job.opts)
    for title, value in (("progress", job.progress), ("return value", job.returnvalue)):
        if value is not None:
            yield _section(title, value)
    if job.failed_reason is not None and "\n" in job.failed_reason.strip():
        # The reason was shown above on one line; its lines are readable here.
        yield _section("reason", job.failed_reason)
    for number, trace in enumerate(job.stacktrace[-_MAX_STACKTRACES:]):
        nth = max(len(job.stacktrace) - _MAX_STACKTRACES, 0) + number + 1
        yield _section(f"stack trace {nth} of {len(job.stacktrace)}", trace)


def facts(job: JobDetail, now: datetime, prefix: str) -> Iterator[tuple[str, str | None]]:
    """The short values of a job, each with its label; None if the job does not have it."""
    yield "id", job.id
    yield "name", job.name
    yield "queue", job.queue
    yield "state", "stalled (active without a lock)" if job.state == "stalled" else job.state
    if job.fate is not None:
        yield "fate", job.fate.text
    yield "added", moment_text(job.added_at, now)
    yield "due", moment_text(job.due_at, now)
    yield "started", moment_text(job.started_at, now)
    yield "finished", moment_text(job.finished_at, now)
    yield "run time", None if job.runtime_s is None else duration(job.runtime_s)
    started = f", {job.attempts_started} started" if job.attempts_started else ""
    yield "attempts", f"{job.attempts_made} made{started}, {job.attempts_max} allowed"
    yield "stalls", str(job.stalled_count) if job.stalled_count else None
    yield "priority", str(job.priority) if job.priority else None
    yield "worker", job.worker
    if job.held_by is not None:
        held = job.held_by
        of = f", {held.process}" if held.process else ""
        yield "process", f"pid {'?' if held.pid is None else held.pid} on {held.host}{of}"
    if job.lock_token is not None:
        left = "" if job.lock_ttl_ms is None else f", {job.lock_ttl_ms / 1000:.1f} s left"
        yield "lock", f"{job.lock_token}{left}"
    yield "scheduler", job.scheduler
    if job.parent is not None:
        state = state_text(job.parent.state, missing=job.parent.missing)
        yield "parent", f"{job_name(job.parent, prefix)}  {state}"
    if job.children is not None:
        c = job.children
        yield (
            "children",
            f"{c.pending} pending, {c.processed} processed, {c.ignored} ignored, {c.failed} failed",
        )
        for child in c.jobs:
            state = state_text(child.state, missing=child.missing)
            yield "child", f"{job_name(child, prefix)}  {state}"
        if c.more:
            yield "", f"and {c.more:,} more; qctl jobs tree shows the whole flow"
    yield "deduplication", job.deduplication_id
    yield "will fail with", job.deferred_failure
    yield "reason", job.failed_reason
    yield "log", f"{counted(job.log_rows, 'row')}, see qctl jobs logs" if job.log_rows else None


def _section(title: str, value: Any) -> Section:
    text = value if isinstance(value, str) else json_text(value)
    if len(text) > _MAX_INLINE_TEXT and not isinstance(value, str):
        text = json_text(value, indent=2)
    lines = text[:_MAX_BLOCK_TEXT].split("\n")
    shown = [visible(line) for line in lines[:_MAX_BLOCK_LINES]]
    if len(lines) > _MAX_BLOCK_LINES or len(text) > _MAX_BLOCK_TEXT:
        shown.append(f"… ({len(text):,} characters; --json shows all)")
    return Section(title, shown, len(lines) == 1 and len(text) <= _MAX_INLINE_TEXT)
