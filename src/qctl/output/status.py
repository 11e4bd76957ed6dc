"""The reports of ``status``, ``workers`` and ``worker list`` as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from qctl.output.console import Cell, Column, Value, if_known, styled, table
from qctl.output.text import listed, short_duration, size, visible, wrapped

if TYPE_CHECKING:
    from qctl.ops.masters.listing import Master, MasterProcess
    from qctl.ops.queues.status import ProcessStatus, QueueStatus, StatusReport
    from qctl.ops.queues.workers import WorkersReport, WorkerStatus

_STATE_STYLES = {"broken": "bold red", "draining": "cyan", "running": "green"}


def status_text(report: StatusReport, *, width: int, colour: bool) -> str:
    """The report as the lines of a terminal ``width`` cells wide."""
    redis = report.redis
    about = f"{redis.url}" + (f", {redis.product}" if redis.version else "")
    if redis.replica_of is not None:
        about += f", a replica of {redis.replica_of}"
    prefixes = list(dict.fromkeys(queue.prefix for queue in report.queues))
    if prefixes:
        about += f", prefix {prefixes[0]}" if len(prefixes) == 1 else f", {len(prefixes)} prefixes"
    if report.other_prefixes:
        about += f"; queues also under {listed(report.other_prefixes)}"
    head = wrapped(visible(about), width)
    parts = [styled(line, "dim", colour=colour) + "\n" for line in head]
    if report.queues:
        named = _queue_name(report.queues)
        columns = (Column("QUEUE", lambda q: Cell(named(q), "bold"), keep_end=True), *_QUEUES)
        parts.append(table(columns, report.queues, width=width, colour=colour))
        parts += _notes(report.queues, width, colour)
    if report.processes:
        parts += ["\n", table(_PROCESSES, report.processes, width=width, colour=colour)]
    return "".join(parts)


def workers_text(report: WorkersReport, *, width: int, colour: bool) -> str:
    """The workers as the lines of a terminal ``width`` cells wide."""
    prefixes = {worker.prefix for worker in report.workers}

    def name_of(worker: WorkerStatus) -> str:
        return worker.queue if len(prefixes) == 1 else f"{worker.queue}@{worker.prefix}"

    columns = (Column("QUEUE", name_of, keep_end=True), *WORKERS[1:])
    return table(columns, report.workers, width=width, colour=colour)


def masters_text(masters: Sequence[Master], now_s: float, *, width: int, colour: bool) -> str:
    """One row for each process of a master, and one row for a master without processes.

    Args:
        now_s: the time now in epoch seconds, for the uptimes.
        width: of the terminal, in cells.
    """
    rows = [(master, process) for master in masters for process in master.processes or (None,)]
    return table(_masters(now_s), rows, width=width, colour=colour)


def state_cell(queue: QueueStatus) -> Cell:
    """``running``, or why no job starts; ``limited?`` if a rate limit may be the reason."""
    backlog = queue.counts.waiting + queue.counts.prioritized
    # Jobs are waiting, and all active jobs are stalled.
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


def _queue_name(queues: Sequence[QueueStatus]) -> Callable[[QueueStatus], str]:
    """Show each queue by its name, or by ``NAME@PREFIX`` if these queues have several prefixes."""
    if len({queue.prefix for queue in queues}) == 1:
        return lambda queue: queue.name
    return lambda queue: f"{queue.name}@{queue.prefix}"


def _notes(queues: Sequence[QueueStatus], width: int, colour: bool) -> list[str]:
    """Remarks below the table; commands have their own lines, so that they can be copied."""
    lines = [""]
    named = _queue_name(queues)
    for queue in queues:
        for note in queue.notes:
            name = visible(named(queue), width // 2)
            first, *more = wrapped(f"{name}: {visible(note.text)}", width)
            lines += [first.replace(name, styled(name, "bold", colour=colour), 1), *more]
            lines += [f"    {visible(command)}" for command in note.commands]
    return [f"{line}\n" for line in lines] if len(lines) > 1 else []


def _percent(value: float) -> str:
    return f"{value:.0f} %"


def _status_cell(status: str) -> Cell:
    return Cell(status, "green" if status == "online" else "yellow")


def waiting_cell(queue: QueueStatus) -> Cell:
    """How many jobs are waiting; ``≥ 12`` if there may be more."""
    waiting = queue.counts.waiting
    return Cell(f"≥ {waiting:,}" if queue.waiting_is_least else waiting)


def stalled_cell(queue: QueueStatus) -> Cell:
    """How many jobs are stalled."""
    return Cell(queue.counts.stalled, "bold red" if queue.counts.stalled else "")


def delayed_cell(queue: QueueStatus) -> Cell:
    """How many jobs are delayed; yellow if some are overdue."""
    return Cell(queue.counts.delayed, "yellow" if queue.overdue else "")


def failed_cell(queue: QueueStatus) -> Cell:
    """How many jobs have failed."""
    return Cell(queue.counts.failed, "red" if queue.counts.failed else "")


def workers_cell(queue: QueueStatus) -> Cell:
    """How many workers are connected; ``?`` if unknown, red if jobs wait and there is no worker."""
    counts = queue.counts
    unserved = queue.workers == 0 and counts.waiting + counts.prioritized + queue.overdue > 0
    return Cell("?" if queue.workers is None else queue.workers, "bold red" if unserved else "")


def _oldest(queue: QueueStatus) -> Value:
    """The age of the oldest waiting job; ``?`` if it cannot be read."""
    if queue.oldest_waiting_s is not None:
        return short_duration(queue.oldest_waiting_s)
    return "?" if queue.counts.waiting + queue.counts.prioritized else None


_QUEUES: tuple[Column[QueueStatus], ...] = (
    Column("STATE", state_cell),
    Column("WAITING", waiting_cell, right=True, short="WAIT"),
    Column("ACTIVE", lambda q: q.counts.active, right=True, short="ACT"),
    Column("STALLED", stalled_cell, right=True, short="STALL", optional=True),
    Column("DELAYED", delayed_cell, right=True, short="DELAY", optional=True),
    Column("PRIO", lambda q: q.counts.prioritized, right=True, optional=True),
    Column(
        "CHILDREN", lambda q: q.counts.waiting_children, right=True, short="CHILD", optional=True
    ),
    Column("COMPLETED", lambda q: q.counts.completed, right=True, short="DONE"),
    Column("FAILED", failed_cell, right=True, short="FAIL"),
    Column("OLDEST", _oldest, right=True, short="OLD"),
    Column("WORKERS", workers_cell, right=True, short="WRK"),
)
_PROCESSES: tuple[Column[ProcessStatus], ...] = (
    Column("PROCESS", lambda p: Cell(p.target, "bold"), keep_end=True),
    Column("ID", lambda p: p.key, right=True),
    Column("PID", lambda p: if_known(str, p.pid), right=True),
    Column("STATUS", lambda p: _status_cell(p.status)),
    Column("UPTIME", lambda p: if_known(short_duration, p.uptime_s), right=True),
    Column("RESTARTS", lambda p: p.restarts, right=True, short="RST"),
    Column("CPU", lambda p: if_known(_percent, p.cpu_percent), right=True),
    Column("MEMORY", lambda p: if_known(size, p.rss_bytes), right=True, short="MEM"),
    Column("QUEUES", lambda p: ", ".join(p.queues) or None, keep_end=True),
)
WORKERS: tuple[Column[WorkerStatus], ...] = (
    Column("QUEUE", lambda w: w.queue, keep_end=True),
    Column("WORKER", lambda w: w.name, keep_end=True),
    Column("ADDRESS", lambda w: w.address or Cell("(leaving)", "yellow"), keep_end=True),
    Column("PID", lambda w: if_known(str, w.pid), right=True),
    Column("PROCESS", lambda w: w.process, keep_end=True),
    Column("CPU", lambda w: if_known(_percent, w.cpu_percent), right=True),
    Column("MEMORY", lambda w: if_known(size, w.rss_bytes), right=True, short="MEM"),
    Column("JOBS", lambda w: if_known(len, w.jobs), right=True),
    Column("AGE", lambda w: short_duration(w.age_s), right=True),
)


def _masters(now_s: float) -> tuple[Column[tuple[Master, MasterProcess | None]], ...]:
    def of(value: Callable[[MasterProcess], Value]) -> Callable[..., Value]:
        return lambda row: if_known(value, row[1])

    def uptime(process: MasterProcess) -> Value:
        return if_known(lambda ms: short_duration(now_s - ms / 1000), process.started_at_ms)

    return (
        Column("PROCESS", _process_cell, keep_end=True),
        Column("STATUS", lambda row: _status_cell((row[1] or row[0]).status)),
        Column("PID", of(lambda p: if_known(str, p.pid)), right=True),
        Column("UPTIME", of(uptime), right=True),
        Column("RESTARTS", of(lambda p: p.restarts), right=True, short="RST"),
        Column("MEMORY", of(lambda p: if_known(size, p.rss_bytes)), right=True, short="MEM"),
        Column("BUSY", of(lambda p: p.busy), right=True),
        Column("DONE", of(lambda p: p.done), right=True),
        Column("QUEUES", of(lambda p: ", ".join(p.queues) or None)),
    )


def _process_cell(row: tuple[Master, MasterProcess | None]) -> Cell:
    master, process = row
    return Cell(f"{master.target}/{process.slot}" if process else master.target, "bold")
