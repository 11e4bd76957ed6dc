"""The reports of ``status`` and ``workers`` as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qctl.output.console import Cell, Column, Value, styled, table
from qctl.output.text import short_duration, size, visible

if TYPE_CHECKING:
    from qctl.ops.queues.status import ProcessStatus, QueueStatus, StatusReport
    from qctl.ops.queues.workers import WorkersReport

_STATE_STYLES = {"broken": "bold red", "draining": "cyan", "running": "green"}
_QUEUE_COLUMNS = (
    Column("QUEUE", keep_end=True),
    Column("STATE"),
    Column("WAITING", right=True, short="WAIT"),
    Column("ACTIVE", right=True, short="ACT"),
    Column("STALLED", right=True, short="STALL", optional=True),
    Column("DELAYED", right=True, short="DELAY", optional=True),
    Column("PRIO", right=True, optional=True),
    Column("CHILDREN", right=True, short="CHILD", optional=True),
    Column("COMPLETED", right=True, short="DONE"),
    Column("FAILED", right=True, short="FAIL"),
    Column("OLDEST", right=True, short="OLD"),
    Column("WORKERS", right=True, short="WRK"),
)
_PROCESS_COLUMNS = (
    Column("PROCESS", keep_end=True),
    Column("ID", right=True),
    Column("PID", right=True),
    Column("STATUS"),
    Column("UPTIME", right=True),
    Column("RESTARTS", right=True, short="RST"),
    Column("CPU", right=True),
    Column("MEMORY", right=True, short="MEM"),
    Column("QUEUES"),
)
_WORKER_COLUMNS = (
    Column("QUEUE", keep_end=True),
    Column("WORKER", keep_end=True),
    Column("ADDRESS", keep_end=True),
    Column("PID", right=True),
    Column("PROCESS", keep_end=True),
    Column("CPU", right=True),
    Column("MEMORY", right=True, short="MEM"),
    Column("JOBS", right=True),
    Column("AGE", right=True),
)


def status_text(report: StatusReport, *, width: int, colour: bool) -> str:
    """The report as the lines of a terminal ``width`` cells wide."""
    redis = report.redis
    about = f"{redis.url}" + (f", {redis.product}" if redis.version else "")
    if redis.replica_of is not None:
        about += f", a replica of {redis.replica_of}"
    if len({queue.prefix for queue in report.queues}) == 1:
        about += f", prefix {report.queues[0].prefix}"
    parts = [styled(visible(about), "dim", colour=colour) + "\n"]
    if report.queues:
        rows = [_queue_row(queue) for queue in report.queues]
        parts.append(table(_QUEUE_COLUMNS, rows, width=width, colour=colour))
        parts += _notes(report.queues, colour)
    if report.processes:
        rows = [_process_row(process) for process in report.processes]
        parts += ["\n", table(_PROCESS_COLUMNS, rows, width=width, colour=colour)]
    return "".join(parts)


def workers_text(report: WorkersReport, *, width: int, colour: bool) -> str:
    """The workers as the lines of a terminal ``width`` cells wide."""
    rows: list[list[Value]] = [
        [
            worker.queue,
            worker.name,
            worker.address or Cell("(leaving)", "yellow"),
            _plain_number(worker.pid),
            worker.process,
            _percent(worker.cpu_percent),
            _size(worker.rss_bytes),
            None if worker.jobs is None else len(worker.jobs),
            short_duration(worker.age_s),
        ]
        for worker in report.workers
    ]
    return table(_WORKER_COLUMNS, rows, width=width, colour=colour)


def _queue_row(queue: QueueStatus) -> list[Value]:
    counts = queue.counts
    unserved = queue.workers == 0 and counts.waiting + counts.prioritized + queue.overdue > 0
    oldest = queue.oldest_waiting_s
    return [
        Cell(queue.name, "bold"),
        state_cell(queue),
        counts.waiting,
        counts.active,
        Cell(counts.stalled, "bold red" if counts.stalled else ""),
        Cell(counts.delayed, "yellow" if queue.overdue else ""),
        counts.prioritized,
        counts.waiting_children,
        counts.completed,
        Cell(counts.failed, "red" if counts.failed else ""),
        _age(oldest, counts.waiting + counts.prioritized),
        Cell("?" if queue.workers is None else queue.workers, "bold red" if unserved else ""),
    ]


def _age(seconds: float | None, backlog: int) -> Value:
    """The age of the oldest waiting job; ``?`` if it cannot be read."""
    if seconds is not None:
        return short_duration(seconds)
    return "?" if backlog else None


def state_cell(queue: QueueStatus) -> Cell:
    """Running, or why no job starts."""
    backlog = queue.counts.waiting + queue.counts.prioritized
    # Jobs wait and none runs: a limit may hold them.
    is_idle = bool(backlog) and queue.counts.active == queue.counts.stalled
    may_be_limited = queue.rate_limit is not None and queue.rate_limit.holds is None
    states = {
        "broken": queue.is_broken,
        "draining": queue.draining,
        "paused": queue.paused,
        "limited": bool(queue.rate_limited_s),
        "maxed": queue.is_maxed and bool(backlog),
        "limited?": is_idle and may_be_limited,
    }
    name = next((name for name, holds in states.items() if holds), "running")
    return Cell(name, _STATE_STYLES.get(name, "yellow"))


def _notes(queues: Sequence[QueueStatus], colour: bool) -> list[str]:
    """Remarks below the table; commands are on lines of their own, to be copied."""
    lines = [""]
    for queue in queues:
        for note in queue.notes:
            name = styled(visible(queue.name), "bold", colour=colour)
            lines.append(f"{name}: {visible(note.text)}")
            lines += [f"    {visible(command)}" for command in note.commands]
    return [f"{line}\n" for line in lines] if len(lines) > 1 else []


def _process_row(process: ProcessStatus) -> list[Value]:
    online = process.status == "online"
    uptime = process.uptime_s
    return [
        Cell(process.target, "bold"),
        process.key,
        _plain_number(process.pid),
        Cell(process.status, "green" if online else "yellow"),
        None if uptime is None else short_duration(uptime),
        process.restarts,
        _percent(process.cpu_percent),
        _size(process.rss_bytes),
        ", ".join(process.queues) or None,
    ]


def _plain_number(number: int | None) -> str | None:
    return None if number is None else str(number)


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f} %"


def _size(number: int | None) -> str | None:
    return None if number is None else size(number)
