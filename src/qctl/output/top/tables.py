"""The live view's table columns, status line and note line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from qctl.ops.jobs.model import Job
from qctl.ops.live.events import Failure, Rates
from qctl.ops.live.view import GONE, LiveQueue, Reading
from qctl.ops.queues.status import QueueStatus
from qctl.ops.queues.workers import WorkerStatus
from qctl.output.console import Cell, Column, Value
from qctl.output.status import (
    WORKERS,
    delayed_cell,
    failed_cell,
    stalled_cell,
    state_cell,
    workers_cell,
)
from qctl.output.text import cells, short_duration, shortened, visible

K = TypeVar("K")
_BARS = "▁▂▃▄▅▆▇█"
# Sparklines are short on screens narrower than _WIDE, and left out below _NARROW (in cells).
_WIDE, _NARROW = 100, 80
_NARROW_TREND = 8
_WIDE_TREND = 24


def sparkline(points: Sequence[float | None], width: int) -> str:
    """The last ``width`` points as bars, scaled to the highest; an unknown point is a space."""
    shown = points[-width:]
    top = max((point for point in shown if point is not None), default=0.0)
    bars = [
        " " if point is None else _BARS[round(point / top * (len(_BARS) - 1)) if top else 0]
        for point in shown
    ]
    return "".join(bars).rjust(width)


def rate(per_s: float, rates: Rates) -> str:
    """A rate as text, e.g. ``0.5`` or ``120``.

    ``~`` marks an estimate from a sample; ``≥`` marks a rate that may be higher.
    """
    text = f"{per_s:.1f}" if 0 < per_s < 10 else f"{per_s:.0f}"
    return f"~{text}" if rates.sampled else f"≥{text}" if rates.at_least else text


def _backlog(queue: QueueStatus) -> Value:
    waiting = queue.counts.waiting + queue.counts.prioritized
    return f"≥ {waiting:,}" if queue.waiting_is_least else waiting


def or_unknown(shown: Callable[[K], Value], value: K | None) -> Value:
    """``shown(value)``, or ``?`` if the value could not be read."""
    return "?" if value is None else shown(value)


def queue_columns(width: int) -> tuple[Column[LiveQueue], ...]:
    """The columns of the queues, for a screen ``width`` cells wide."""

    def of_status(value: Callable[[QueueStatus], Value]) -> Callable[[LiveQueue], Value]:
        return lambda queue: _without(queue) if queue.status is None else value(queue.status)

    def of_rates(per_s: Callable[[Rates], float]) -> Callable[[LiveQueue], Value]:
        return lambda queue: (
            _without(queue)
            if queue.status is None
            else or_unknown(lambda r: rate(per_s(r), r), queue.rates)
        )

    def trend(queue: LiveQueue) -> Value:
        points = _WIDE_TREND if width >= _WIDE else _NARROW_TREND
        return "" if queue.status is None else sparkline(queue.trend, points)

    columns: tuple[Column[LiveQueue], ...] = (
        Column("QUEUE", lambda q: Cell(q.name, "bold" if q.status else ""), keep_end=True),
        Column("STATE", _state),
        Column("WAIT", of_status(_backlog), right=True),
        Column("ACT", of_status(lambda s: s.counts.active), right=True),
        Column("STALL", of_status(stalled_cell), right=True),
        Column("DELAY", of_status(delayed_cell), right=True),
        Column("FAILED", of_status(failed_cell), right=True, short="FAIL"),
        Column("WRK", of_status(workers_cell), right=True),
        Column("DONE/S", of_rates(lambda r: r.completed_per_s), right=True, short="OK/S"),
        Column("FAIL/S", of_rates(lambda r: r.failed_per_s), right=True, short="ERR/S"),
        Column("TREND", trend),
    )
    return columns if width >= _NARROW else columns[:-1]


def _without(queue: LiveQueue) -> str:
    """The cell of a queue without figures: ``?`` if they could not be read."""
    return "?" if queue.trouble not in {None, GONE} else ""


def unread(name: str) -> LiveQueue:
    """The row of a queue that has not been read yet."""
    return LiveQueue(name, None, None, None, ())


def _state(queue: LiveQueue) -> Value:
    if queue.status is not None:
        return state_cell(queue.status)
    if queue.trouble is None:
        return "…"
    return Cell("gone" if queue.trouble == GONE else "unreadable", "red")


def job_columns(elapsed_s: float) -> tuple[Column[Job], ...]:
    """The columns of active jobs.

    Args:
        elapsed_s: the age of the reading. It is added to run times and subtracted from lock times.
    """

    def runs(job: Job) -> Value:
        return or_unknown(lambda ran_s: short_duration(ran_s + elapsed_s), job.runtime_s)

    return (
        Column("JOB", lambda j: Cell(j.id, "bold"), keep_end=True),
        Column("NAME", lambda j: "(no data)" if j.missing else j.name, keep_end=True),
        Column("PROGRESS", lambda j: _progress(j.progress), short="PROG"),
        Column("RUNS", runs, right=True),
        Column("LOCK", lambda j: _lock(j, elapsed_s), right=True),
        Column(
            "STALLS",
            lambda j: "?" if j.missing else Cell(j.stalled_count, "yellow" * bool(j.stalled_count)),
            right=True,
        ),
        Column("WORKER", lambda j: j.worker, keep_end=True),
    )


def _progress(value: Any) -> str | None:
    # BullMQ stores 0 before a job reports progress.
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
    # The lock may have been renewed or have expired since; the next reading shows which.
    return Cell(short_duration(left_s)) if left_s > 0 else Cell("over?", "yellow")


def _figure(column: Column[WorkerStatus]) -> Column[WorkerStatus]:
    def shown(worker: WorkerStatus) -> Value:
        value = column.value(worker)
        return "?" if value is None else value

    return replace(column, value=shown)


_BY_HEADING = {column.heading: column for column in WORKERS}
WORKER_COLUMNS: tuple[Column[WorkerStatus], ...] = (
    Column("WORKER", lambda w: w.name or "(no name)", keep_end=True),
    *map(_BY_HEADING.__getitem__, ("ADDRESS", "PROCESS")),
    *(_figure(_BY_HEADING[heading]) for heading in ("PID", "CPU", "MEMORY", "JOBS")),
)
FAILURE_COLUMNS: tuple[Column[Failure], ...] = (
    Column("TIME", lambda f: or_unknown(lambda at: f"{at.astimezone():%H:%M:%S}", f.at)),
    Column("QUEUE", lambda f: f.queue, keep_end=True),
    Column("JOB", lambda f: f.id, keep_end=True),
    Column("REASON", lambda f: Cell(f.reason, "red")),
)


def status_line(reading: Reading, interval_s: float, *, width: int, is_old: bool) -> str:
    """The context, Redis, the prefix, and the cost and time of the last reading."""
    redis = reading.redis
    left = f"{redis.url}  {redis.product}  {reading.prefix}"
    if reading.context:
        # The context comes first, because it must not be cut off.
        left = f"{reading.context}  {left}"
    cost = f"{reading.commands:,} cmds {reading.took_ms:.0f} ms/{interval_s:.3g} s"
    right = f"{cost}  {'OLD' if is_old else 'ok'} {reading.at.astimezone():%H:%M:%S}"
    left = shortened(visible(left), max(width - cells(right) - 2, 0))
    return left + " " * max(width - cells(left) - cells(right), 2) + right


def note_line(reading: Reading, *, width: int) -> str:
    """The chosen queue's trouble; else its first note; else who paused it; else the remarks."""
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
