"""The reports of ``status``, ``workers`` and ``worker list`` as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from qctl.ops.processes.suggest import command
from qctl.output.console import Cell, Column, Value, if_known, styled, table
from qctl.output.text import (
    cells,
    duration,
    listed,
    short_duration,
    shortened,
    size,
    visible,
    wrapped,
)
from qctl.plurals import counted

if TYPE_CHECKING:
    from qctl.ops.doctor_errors import DoctorErrors
    from qctl.ops.masters.listing import Master, MasterProcess
    from qctl.ops.queues.problems import Problem
    from qctl.ops.queues.status import ProcessStatus, QueueStatus, StatusReport
    from qctl.ops.queues.workers import WorkersReport, WorkerStatus

_STATE_STYLES = {"broken": "bold red", "draining": "cyan", "running": "green"}
# The styles are those of doctor. The order matters: the worst severity comes first.
_SEVERITY_STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan", "unknown": "yellow"}
_INDENT = " " * 9
_COMMAND_INDENT = " " * 4
# How many of the doctor's errors are shown, and how many cells the title of each may have.
_MAX_DOCTOR_ERRORS = 2
_MAX_TITLE = 120


class _Line(NamedTuple):
    """A line of the report.

    Args:
        kind: ``problem``, ``queue`` or ``process`` for the first line of one of these; "" for every
            other line.
    """

    text: str
    kind: str = ""


def status_text(
    report: StatusReport, *, width: int, colour: bool, height: int | None = None
) -> str:
    """The report as the lines of a terminal ``width`` cells wide.

    Args:
        height: if the report has more lines, it is cut, and a last line says what is missing. None
            to show everything.
    """
    # The sort is stable: queues of one severity stay in their order.
    queues = sorted(report.queues, key=_rank)
    # There may be thousands of queues: draw only as many as may fit on the screen.
    drawn = replace(report, queues=tuple(queues[:height]))
    lines = _report_lines(drawn, width, colour, with_commands=True)
    if height is not None and len(lines) > height:
        lines = _report_lines(drawn, width, colour, with_commands=False)
        lines = [*_cut(lines, height, width, colour, len(queues) - len(drawn.queues))]
    return "".join(f"{line.text}\n" for line in lines)


def watch_text(
    report: StatusReport | None,
    remarks: Sequence[str],
    *,
    banner: str,
    foot: str,
    width: int,
    height: int,
    colour: bool,
) -> str:
    """A screen of ``status --watch``: at most ``height`` lines, without a final line end.

    Args:
        report: None if there is none yet.
        remarks: what could not be read.
        banner: what keeps Redis from answering; "" if it answers.
        foot: the last line.
    """
    lines = []
    if banner:
        # All of the line is red.
        text = visible(banner, width)
        lines.append(styled(text + " " * (width - cells(text)), "banner", colour=colour))
    ends = [line for remark in remarks for line in wrapped(visible(remark), width)]
    # Remarks may take a quarter of the screen.
    ends = [*ends[: height // 4], styled(visible(foot, width), "dim", colour=colour)]
    room = max(height - len(lines) - len(ends), 1)
    if report is not None:
        text = status_text(report, width=width, colour=colour, height=room)
        lines += text.removesuffix("\n").split("\n")
    return "\n".join([*lines, *ends])


def summary_line(report: StatusReport) -> str:
    """The line to show below a long report: it counts the problems at the top of the report."""
    queues = {label for problem in report.problems for label in problem.queues}
    found = counted(len(report.problems), "problem")
    return f"{found} in {counted(len(queues), 'queue')}, listed at the top"


def _report_lines(
    report: StatusReport, width: int, colour: bool, *, with_commands: bool
) -> list[_Line]:
    about = wrapped(_about(report), width)
    lines = [_Line(styled(line, "dim", colour=colour)) for line in about]
    for problem in report.problems:
        lines += _problem(problem, width, colour, with_commands=with_commands)
    if report.doctor_errors is not None:
        errors = report.doctor_errors
        lines += _doctor_errors(errors, width, colour, with_commands=with_commands)
    if (report.problems or report.doctor_errors) and report.queues:
        lines.append(_Line(""))
    if report.queues:
        named = _queue_name(report.queues)
        columns = (Column("QUEUE", lambda q: Cell(named(q), "bold"), keep_end=True), *_QUEUES)
        rows = table(columns, report.queues, width=width, colour=colour)
        lines += _rows(rows, len(report.queues), "queue")
        lines += map(_Line, _notes(report.queues, width, colour))
    if report.processes:
        rows = table(_PROCESSES, report.processes, width=width, colour=colour)
        lines += [_Line(""), *_rows(rows, len(report.processes), "process")]
    return lines


def _about(report: StatusReport) -> str:
    """The line on Redis and the prefixes."""
    redis = report.redis
    about = f"{redis.url}" + (f", {redis.product}" if redis.version else "")
    if redis.replica_of is not None:
        about += f", a replica of {redis.replica_of}"
    prefixes = list(dict.fromkeys(queue.prefix for queue in report.queues))
    if prefixes:
        about += f", prefix {prefixes[0]}" if len(prefixes) == 1 else f", {len(prefixes)} prefixes"
    if report.other_prefixes:
        about += f"; queues also under {listed(report.other_prefixes)}"
    return visible(about)


def _rank(queue: QueueStatus) -> int:
    """Queues with the worst problems have the lowest rank."""
    ranks = [*_SEVERITY_STYLES]
    return len(ranks) if queue.severity is None else ranks.index(queue.severity)


def _problem(problem: Problem, width: int, colour: bool, *, with_commands: bool) -> Iterator[_Line]:
    """The severity and the text, and the commands if they have room."""
    style = _SEVERITY_STYLES[problem.severity]
    yield from _labelled(problem.severity, style, problem.text, width, colour)
    if with_commands:
        yield from map(_command, problem.commands)


def _doctor_errors(
    errors: DoctorErrors, width: int, colour: bool, *, with_commands: bool
) -> Iterator[_Line]:
    """What the doctor has found, with its age, because it may be fixed by now."""
    shown = errors.first[:_MAX_DOCTOR_ERRORS]
    more = errors.count - len(shown)
    texts = [*(shortened(visible(text), _MAX_TITLE) for text in shown), f"{more:,} more"]
    found = f"found {counted(errors.count, 'error')} {duration(errors.age_s)} ago"
    text = f"{found}: {'; '.join(texts if more > 0 else texts[:-1])}"
    yield from _labelled("doctor", "bold red", text, width, colour)
    if with_commands:
        yield _command(command(None, "doctor"))


def _labelled(label: str, style: str, text: str, width: int, colour: bool) -> Iterator[_Line]:
    head = styled(label.ljust(len(_INDENT) - 1), style, colour=colour)
    first, *rest = wrapped(visible(text), width - len(_INDENT))
    yield _Line(f"{head} {first}", "problem")
    yield from (_Line(_INDENT + line) for line in rest)


def _command(text: str) -> _Line:
    """A command on its own line, so that it can be copied."""
    return _Line(_COMMAND_INDENT + visible(text))


def _rows(text: str, number: int, kind: str) -> Iterator[_Line]:
    """The lines of a table with ``number`` items; the heading comes before them."""
    for index, line in enumerate(text.removesuffix("\n").split("\n")):
        yield _Line(line, kind if 1 <= index <= number else "")


def _cut(
    lines: Sequence[_Line], height: int, width: int, colour: bool, more_queues: int
) -> Iterator[_Line]:
    """The first lines, and a line that says what is missing.

    Args:
        more_queues: how many queues have no line.
    """
    shown = max(height - 1, 0)
    left_out = [line.kind for line in lines[shown:]] + ["queue"] * more_queues
    parts = [
        counted(number, f"more {kind}", f"more {kind}es" if kind == "process" else "")
        for kind in ("problem", "queue", "process")
        if (number := left_out.count(kind))
    ]
    yield from lines[:shown]
    text = f"and {', '.join(parts)}" if parts else "and more"
    yield _Line(styled(shortened(text, width), "dim", colour=colour))


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
    if name == "running" and queue.severity is not None:
        # Green would say that all is well.
        return Cell(name)
    return Cell(name, _STATE_STYLES.get(name, "yellow"))


def _queue_name(queues: Sequence[QueueStatus]) -> Callable[[QueueStatus], str]:
    """Show each queue by its name, or by ``NAME@PREFIX`` if these queues have several prefixes."""
    if len({queue.prefix for queue in queues}) == 1:
        return lambda queue: queue.name
    return lambda queue: f"{queue.name}@{queue.prefix}"


def _notes(queues: Sequence[QueueStatus], width: int, colour: bool) -> list[str]:
    """The remarks below the table. They are about facts that are no problems."""
    lines = [""]
    named = _queue_name(queues)
    for queue in queues:
        for note in queue.notes:
            if note.severity is not None:
                continue
            name = visible(named(queue), width // 2)
            first, *rest = wrapped(f"{name}: {visible(note.text)}", width)
            lines += [first.replace(name, styled(name, "bold", colour=colour), 1), *rest]
            lines += [_COMMAND_INDENT + visible(text) for text in note.commands]
    return lines if len(lines) > 1 else []


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
    Column("AGE", lambda w: if_known(short_duration, w.age_s) or "?", right=True),
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
