"""The verdict of a drain: one block for a terminal, short enough for a message to the team."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qctl.errors import ExitStatus
from qctl.ops.drain.steps import DrainReport, RunningJob
from qctl.output.block import INDENT, MAX_NAME, Block
from qctl.output.drain.facts import replaced
from qctl.output.drain.running import running_jobs
from qctl.output.text import cells, count, duration, listed, visible
from qctl.plurals import counted

# How many harmed jobs the verdict lists: about a screenful.
_MAX_HARMED = 20
_MAX_PIDS = 6
# If fewer cells than this are left for the names of several queues, show how many queues there are.
_MIN_NAMES = 20


def verdict_block(
    report: DrainReport,
    took_s: float,
    *,
    width: int,
    colour: bool,
    stopped_by: str = "Ctrl-C or another signal",
) -> Iterator[str]:
    """How the drain ended.

    Args:
        took_s: the time from the first step to the report.
        stopped_by: the keys and signals that stop a drain, for the message "stopped by …".
    """
    block = Block(width=width, colour=colour)
    mark, style = mark_of(report)
    head = f"{mark} {title_of(report)}"
    time = duration(took_s)
    room = block.width - cells(head) - cells(time) - 6
    queues = block.names(report.queues, max(room, _MIN_NAMES))
    if room < _MIN_NAMES and len(report.queues) > 1:
        queues = counted(len(report.queues), "queue")
    yield block.head(head, style) + f"   {queues}" + (f"   {time}" if report.begun else "")
    if report.outcome == "timeout":
        ran = counted(len(_blocking(report)), "job was", "jobs were")
        yield from block.paragraph(f"timed out: {ran} still running", "bold red")
    what, *why = (report.error or "").split("\n")
    if report.exit_status == ExitStatus.INTERRUPTED:
        # "interrupted" alone would look like the number of interrupted jobs.
        what = f"stopped by {stopped_by}"
    if report.hint and why and why[-1] == report.hint:
        why.pop()
    if what:
        yield from block.paragraph(visible(what), "bold red")
        for line in why:
            # Show the error's message, but not the frames of its stack, which are indented.
            if line[:1] != " " and not line.startswith("Traceback ("):
                yield from block.paragraph(visible(line), indent=INDENT * 2)
    if not report.begun:
        yield from block.paragraph("nothing was changed")
        yield from _way_on(report, block)
        return
    yield from _state_lines(report, block)
    yield from block.paragraph(_jobs_text(report))
    yield from block.paragraph(_figures(report), "red" if report.interrupted or report.lost else "")
    yield from _harmed_lines(report, block)
    if report.command and report.rule:
        yield from block.paragraph(replaced(report))
    elif report.new_pids:
        yield from block.paragraph(_pids(report))
    for note in report.notes:
        yield from block.paragraph(f"note: {visible(note)}", "dim")
    yield from _way_on(report, block)


def mark_of(report: DrainReport) -> tuple[str, str]:
    """The mark and its style: ✖ for a failure or a loss, ! for interrupted jobs or a doubt."""
    if report.exit_status != 0 or report.lost:
        return "✖", "bold red"
    if report.interrupted != 0 or report.lost is None or report.unserved:
        return "!", "yellow"
    return "✔", "green"


def title_of(report: DrainReport) -> str:
    """The title of the verdict, such as ``drained`` or ``not restarted pm2:mailer``."""
    target = visible(report.target or "", MAX_NAME)
    if report.command:
        target = f"by {visible(report.command[0], MAX_NAME)}"
    restarted, not_restarted = "restarted", "not restarted"
    if report.strategy == "roll":
        restarted, not_restarted = "rolled", "not rolled"
    if report.outcome == "drained":
        return "drained"
    if report.outcome == "restarted":
        return f"{restarted} {target}"
    if not (report.target or report.command):
        return {"timeout": "not drained: time is up"}.get(report.outcome, "not drained")
    if report.new_pids:
        done = counted(len(report.new_pids), "process", "processes")
        return f"{target}: only {done} {restarted}"
    return f"{not_restarted} {target}"


def _state_lines(report: DrainReport, block: Block) -> Iterator[str]:
    """Queues that are paused, unserved or in an unknown state; after a failure, all queues."""
    room = block.width - 40
    still = report.still_paused or ()
    if report.resumed is False and report.still_paused is None:
        names = block.names(report.queues, room)
        yield from block.paragraph(f"{names}: unknown whether still paused", "bold red")
        yield block.hint_on("try", report.prefix, "resume", report.queues)
    elif still:
        yield from block.paragraph(f"{block.names(still, room)} still paused", "bold")
        yield block.hint_on("to resume", report.prefix, "resume", still)
    served = [queue for queue in report.queues if queue not in still]
    if unserved := report.unserved or ():
        verb = "runs" if len(unserved) == 1 else "run"
        names = block.names(unserved, room)
        yield from block.paragraph(f"{names} {verb}, but no worker is connected", "bold red")
    elif report.exit_status != 0 and served and report.still_paused is not None:
        known = report.unserved is not None
        served_by = "workers connected" if known else "unknown whether workers are connected"
        yield from block.paragraph(f"{block.names(served, room)} running again, {served_by}")
    if report.resumed is None:
        yield from block.paragraph("a failover may still undo the resume", "bold")


def _jobs_text(report: DrainReport) -> str:
    """What became of the jobs that ran when the drain began."""
    has_more = report.strategy == "roll" or report.paused_again
    number = len(report.jobs) if has_more else report.active_at_start
    noun = "watched" if has_more else "in hand"
    parts = [
        f"{count(n)} {text}"
        for n, text in (
            (report.completed, "completed"),
            (report.retried, "failed and will be retried"),
            (report.failed, "failed"),
            (report.recovered, "put back"),
            (sum(job.result == "running" for job in report.jobs), "still running"),
        )
        if n
    ]
    text = f"{counted(number, 'job') if number else 'no job'} {noun}"
    return f"{text}: {', '.join(parts)}" if parts else text


def _figures(report: DrainReport) -> str:
    def figure(name: str, number: int | None) -> str:
        return f"{name} {'unknown' if number is None else count(number)}"

    lost = figure("lost", report.lost)
    if report.lost is not None and report.proof.ids:
        lost += f" of {count(report.proof.ids)}"
        if report.proof.checked != "all ids":
            lost += " checked"
    gap = "unknown" if report.idle_s is None else duration(report.idle_s)
    # The exact time when an interrupted job ended is unknown, so the gap may be shorter.
    at_most = "at most " if report.interrupted and report.idle_s is not None else ""
    parts = [figure("interrupted", report.interrupted), lost, f"longest gap {at_most}{gap}"]
    if report.strategy == "roll":
        parts.append("not paused")
    elif report.paused_s:
        parts.append(f"paused {duration(report.paused_s)}")
    return "   ".join(parts)


def _harmed_lines(report: DrainReport, block: Block) -> Iterator[str]:
    if report.lost is None and report.proof.why:
        yield from block.paragraph(f"lost is unknown: {visible(report.proof.why)}", "bold")
    unharmed = {"completed", "retried", "failed", "running"}
    harmed = [job for job in report.jobs if job.result not in unharmed]
    for job in harmed[:_MAX_HARMED]:
        was = f", was {job.was}" if job.result == "lost" else ""
        name = f"{visible(job.queue, 30)} {visible(job.id, 30)}"
        style = "red" if job.result in {"lost", "interrupted"} else ""
        yield from block.paragraph(f"{name}: {job.result}{was}", style, INDENT * 2)
    if len(harmed) > _MAX_HARMED:
        yield f"{INDENT * 2}and {len(harmed) - _MAX_HARMED:,} more; --json lists all"


def _pids(report: DrainReport) -> str:
    """``pid 9587 → 9702``, for several processes ``pids 1, 2 → 3, 4``."""
    old = listed([*map(str, report.old_pids)], _MAX_PIDS) or "none"
    new = listed([*map(str, report.new_pids)], _MAX_PIDS)
    return f"{'pid' if len(report.new_pids) == 1 else 'pids'} {old} → {new}"


def _way_on(report: DrainReport, block: Block) -> Iterator[str]:
    """What to type next after a failure or a timeout."""
    if report.still_active:
        yield f"{INDENT}still running:"
        yield from running_jobs(block, _blocking(report), INDENT * 2)
    if report.outcome == "timeout":
        yield block.hint("wait longer", "the same command with a longer --timeout")
        if report.strategy != "roll" and (report.target or report.command):
            yield block.hint("or interrupt them", "the same command with --on-timeout restart")
    if report.hint:
        yield block.hint("try", visible(report.hint))


def _blocking(report: DrainReport) -> Sequence[RunningJob]:
    """The jobs that the drain waited for and that still run.

    Jobs that started after the resume are left out, unless only such jobs still run.
    """
    waited = {(job.queue, job.id) for job in report.jobs if job.result == "running"}
    blocking = [job for job in report.still_active if (job.queue, job.id) in waited]
    return blocking or report.still_active
