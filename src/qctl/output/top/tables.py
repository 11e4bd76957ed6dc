"""The rows of the live view, as lines of text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from qctl.ops.jobs.model import Job
from qctl.ops.live.events import Failure, Rates
from qctl.ops.live.view import LiveQueue, Reading
from qctl.ops.queues.workers import WorkerStatus
from qctl.output.console import Cell, Column, Value, table
from qctl.output.status import state_cell
from qctl.output.text import cells, short_duration, shortened, size, visible

_BARS = "▁▂▃▄▅▆▇█"
_UNREAD = "…"
# Below these widths the sparkline is short, then left out.
_WIDE, _NARROW = 100, 80
_NARROW_TREND = 8
_WIDE_TREND = 24

_QUEUES = (
    Column(""),
    Column("QUEUE", keep_end=True),
    Column("STATE"),
    Column("WAIT", right=True),
    Column("ACT", right=True),
    Column("STALL", right=True),
    Column("DELAY", right=True),
    Column("FAILED", right=True, short="FAIL"),
    Column("WRK", right=True),
    Column("DONE/S", right=True, short="OK/S"),
    Column("FAIL/S", right=True, short="ERR/S"),
    Column("TREND"),
)
_JOBS = (
    Column(""),
    Column("JOB", keep_end=True),
    Column("NAME", keep_end=True),
    Column("PROGRESS", short="PROG"),
    Column("RUNS", right=True),
    Column("LOCK", right=True),
    Column("STALLS", right=True),
    Column("WORKER", keep_end=True),
)
_WORKERS = (
    Column(""),
    Column("WORKER", keep_end=True),
    Column("ADDRESS", keep_end=True),
    Column("PROCESS", keep_end=True),
    Column("PID", right=True),
    Column("CPU", right=True),
    Column("MEMORY", right=True, short="MEM"),
    Column("JOBS", right=True),
)
_FAILURES = (
    Column(""),
    Column("TIME"),
    Column("QUEUE", keep_end=True),
    Column("JOB", keep_end=True),
    Column("REASON"),
)


def sparkline(points: Sequence[float | None], width: int) -> str:
    """The last ``width`` points as bars up to the highest of them; a gap where unknown."""
    shown = points[-width:]
    top = max((point for point in shown if point is not None), default=0.0)
    bars = [
        " " if point is None else _BARS[round(point / top * (len(_BARS) - 1)) if top else 0]
        for point in shown
    ]
    return "".join(bars).rjust(width)


def rate(per_s: float, rates: Rates) -> str:
    """A rate: ``0``, ``0.5``, ``120``; with ``~`` if it is estimated from a part of the time, with
    ``≥`` if events may be missing.
    """
    text = f"{per_s:.1f}" if 0 < per_s < 10 else f"{per_s:.0f}"
    return f"~{text}" if rates.sampled else f"≥{text}" if rates.at_least else text


def queue_lines(queues: Sequence[tuple[str, LiveQueue | None]], chosen: int, *, width: int) -> str:
    """Queues by name, None for a queue not read yet; ``chosen`` is the index of the marked row."""
    trend = _WIDE_TREND if width >= _WIDE else _NARROW_TREND
    shown = len(_QUEUES) - (width < _NARROW)
    rows = [
        [_mark(index == chosen), *_queue_row(name, queue, trend)][:shown]
        for index, (name, queue) in enumerate(queues)
    ]
    return table(_QUEUES[:shown], rows, width=width, colour=True)


def _mark(is_chosen: bool) -> str:
    return ">" if is_chosen else " "


def _queue_row(name: str, queue: LiveQueue | None, trend: int) -> list[Value]:
    blank: list[Value] = [""] * (len(_QUEUES) - 3)
    if queue is None:
        return [name, _UNREAD, *blank]
    status = queue.status
    if status is None:
        return [name, Cell("gone" if queue.trouble == "is gone" else "unreadable", "red"), *blank]
    counts, rates = status.counts, queue.rates
    unserved = status.workers == 0 and counts.waiting + counts.prioritized > 0
    return [
        Cell(name, "bold"),
        state_cell(status),
        counts.waiting + counts.prioritized,
        counts.active,
        Cell(counts.stalled, "bold red" if counts.stalled else ""),
        counts.delayed,
        Cell(counts.failed, "red" if counts.failed else ""),
        Cell("?" if status.workers is None else status.workers, "bold red" if unserved else ""),
        None if rates is None else rate(rates.completed_per_s, rates),
        None if rates is None else rate(rates.failed_per_s, rates),
        sparkline(queue.trend, trend),
    ]


def job_lines(jobs: Sequence[Job], chosen: int, *, width: int, elapsed_s: float) -> str:
    """Active jobs; ``elapsed_s`` is the age of the reading, which is added to their run times."""
    rows = [[_mark(index == chosen), *_job_row(job, elapsed_s)] for index, job in enumerate(jobs)]
    return table(_JOBS, rows, width=width, colour=True)


def _job_row(job: Job, elapsed_s: float) -> list[Value]:
    return [
        Cell(job.id, "bold"),
        "(no data)" if job.missing else job.name,
        _progress(job.progress),
        None if job.runtime_s is None else short_duration(job.runtime_s + elapsed_s),
        _lock(job, elapsed_s),
        Cell(job.stalled_count, "yellow" if job.stalled_count else ""),
        job.worker,
    ]


def _progress(value: Any) -> str | None:
    # BullMQ's value before a job reports progress.
    if value is None or value == 0:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:g} %"
    return shortened(value if isinstance(value, str) else json.dumps(value), 20)


def _lock(job: Job, elapsed_s: float) -> Cell:
    if job.state == "stalled":
        return Cell("stalled", "bold red")
    if job.lock_ttl_ms is None:
        return Cell("no end", "yellow")
    left_s = job.lock_ttl_ms / 1000 - elapsed_s
    # The lock may have been renewed or expired since; the next reading shows it.
    return Cell(short_duration(left_s)) if left_s > 0 else Cell("over?", "yellow")


def worker_lines(workers: Sequence[WorkerStatus], chosen: int, *, width: int) -> str:
    """Workers and the processes they run in."""
    rows: list[list[Value]] = [
        [
            _mark(index == chosen),
            worker.name or "(no name)",
            worker.address or Cell("(leaving)", "yellow"),
            worker.process,
            None if worker.pid is None else str(worker.pid),
            None if worker.cpu_percent is None else f"{worker.cpu_percent:.0f} %",
            None if worker.rss_bytes is None else size(worker.rss_bytes),
            None if worker.jobs is None else len(worker.jobs),
        ]
        for index, worker in enumerate(workers)
    ]
    return table(_WORKERS, rows, width=width, colour=True)


def failure_lines(failures: Sequence[Failure], chosen: int, *, width: int) -> str:
    """Failures, newest first."""
    rows: list[list[Value]] = [
        [
            _mark(index == chosen),
            None if failure.at is None else failure.at.astimezone().strftime("%H:%M:%S"),
            failure.queue,
            failure.id,
            Cell(shortened(failure.reason, width), "red"),
        ]
        for index, failure in enumerate(failures)
    ]
    return table(_FAILURES, rows, width=width, colour=True)


def status_line(reading: Reading, interval_s: float, *, width: int, is_old: bool) -> str:
    """The address, the server, the cost of this view, and when Redis last answered."""
    redis = reading.redis
    left = f"{redis.url}  {redis.product}  {reading.prefix}"
    if reading.context:
        # First, because it must not be cut off.
        left = f"{reading.context}  {left}"
    cost = f"{reading.commands:,} cmds {reading.took_ms:.0f} ms/{interval_s:.3g} s"
    right = f"{cost}  {'OLD' if is_old else 'ok'} {reading.at.astimezone():%H:%M:%S}"
    left = shortened(visible(left), max(width - cells(right) - 2, 0))
    return left + " " * max(width - cells(left) - cells(right), 2) + right


def note_line(reading: Reading, *, width: int) -> str:
    """What needs attention: of the chosen queue, else what could not be read."""
    for queue in reading.queues:
        if queue.name != reading.chosen:
            continue
        if queue.trouble:
            return shortened(f"{visible(queue.name)}: {visible(queue.trouble)}", width)
        if queue.status and queue.status.notes:
            note = queue.status.notes[0]
            return shortened(f"{visible(queue.name)}: {visible(note.text)}", width)
        if queue.status and queue.status.paused_by:
            by = visible(queue.status.paused_by)
            return shortened(f"{visible(queue.name)}: paused by {by}", width)
    return shortened("; ".join(map(visible, reading.remarks)), width)
