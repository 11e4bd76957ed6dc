"""What pause, resume and retry-stalled did, as one block for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qctl.ops.jobs.retry_stalled import RetriedQueue, RetryPlan, RetryReport
from qctl.ops.queues.pause import PauseResult
from qctl.output.block import INDENT, MAX_NAME, Block, job_label
from qctl.output.text import cells, count, duration, shortened, visible
from qctl.plurals import counted
from qctl.wire.keys import QueueKeys

# About a screenful.
_MAX_ROWS = 12
_MAX_IDS = 20
# (whether it is a pause and not a resume, whether it is a dry run) → what was done.
_DONE = {
    (True, False): "paused",
    (True, True): "would pause",
    (False, False): "resumed",
    (False, True): "would resume",
}


def pause_block(
    results: Sequence[PauseResult],
    *,
    prefix: str | None,
    dry_run: bool,
    width: int,
    colour: bool,
) -> Iterator[str]:
    """What a pause or resume did, or would do in a dry run.

    Args:
        prefix: the prefix to leave out; None if the queues have several prefixes.
    """
    block = Block(width=width, colour=colour)
    paused = results[0].paused
    changed = [result for result in results if result.changed]
    warned = any(result.warnings for result in results)
    mark, style = ("!", "yellow") if warned else ("✔", "green")
    if len(results) == 1:
        (result,) = results
        remark = _jobs_text(result, dry_run=dry_run)
        room = block.width - cells(remark) - 30
        name = visible(_label(result, prefix), min(max(room, 12), MAX_NAME))
        if changed:
            head, rest = f"{mark} {_DONE[paused, dry_run]}", f" {name}"
        else:
            head, rest = f"{mark} {name}", f" {_unchanged(paused, dry_run=dry_run)}"
        yield block.head(head, style) + rest + (f"   {remark}" if remark else "")
    else:
        head = f"{mark} {_DONE[paused, dry_run]} {counted(len(changed), 'queue')}"
        number = len(results) - len(changed)
        kept = f"   {count(number)} {_unchanged(paused, dry_run=dry_run)}" if number else ""
        yield block.head(head, style) + kept
        rows = []
        for result in results:
            remark = _jobs_text(result, dry_run=dry_run)
            if not result.changed:
                remark = _unchanged(paused, dry_run=dry_run) + (remark and f"; {remark}")
            rows.append((_label(result, prefix), remark))
        yield from _rows(block, rows)
    for result in results:
        for warning in result.warnings:
            yield from block.paragraph(visible(warning), "bold")
    if paused and changed and not dry_run:
        names = [_label(result, prefix) for result in changed]
        yield block.hint_on("to resume", prefix, "resume", names)
    if dry_run:
        yield from block.paragraph("dry run: nothing was changed")


def _label(result: PauseResult | RetriedQueue, prefix: str | None) -> str:
    return QueueKeys(result.prefix, result.name).label(prefix)


def _unchanged(paused: bool, *, dry_run: bool) -> str:
    if paused:
        return "is paused already" if dry_run else "was paused already"
    return "is not paused" if dry_run else "was not paused"


def _jobs_text(result: PauseResult, *, dry_run: bool) -> str:
    if not result.paused:
        moved = "would be moved back" if dry_run else "moved back"
        return f"{counted(result.moved, 'job')} {moved}" if result.moved else ""
    if not result.changed or not result.active:
        return ""
    still = "would continue" if dry_run else "still running"
    running = result.active - result.stalled
    parts = [f"{counted(running, 'job')} {still}"] if running else []
    return ", ".join(parts + ([f"{count(result.stalled)} stalled"] if result.stalled else []))


def retry_block(
    report: RetryReport,
    plan: RetryPlan,
    *,
    prefix: str | None,
    dry_run: bool,
    width: int,
    colour: bool,
) -> Iterator[str]:
    """Which stalled jobs were put back, or would be in a dry run.

    Args:
        prefix: the prefix to leave out; None if the queues have several prefixes.
    """
    block = Block(width=width, colour=colour)
    is_single = len(report.queues) == 1
    mark, style = _retry_mark(report, plan)
    jobs = counted(sum(len(queue.retried) for queue in report.queues), "job")
    done = "would put back" if dry_run else "put back"
    where = (
        f" of {visible(_label(report.queues[0], prefix), MAX_NAME)}"
        if is_single
        else f" in {counted(len(report.queues), 'queue')}"
    )
    yield block.head(f"{mark} {done} {jobs}", style) + where
    busy = [queue for queue in report.queues if queue.retried or queue.error is not None]
    if is_single:
        for queue in busy:
            ids = block.names(queue.retried[:_MAX_IDS], block.width - 8, total=len(queue.retried))
            yield from block.paragraph(_retried_text(queue, f"ids: {ids}" if ids else ""))
    else:
        yield from _rows(
            block,
            [(_label(queue, prefix), _retried_text(queue, _ids_text(queue))) for queue in busy],
        )
        quiet = len(report.queues) - len(busy)
        if busy and quiet:
            nothing = f"nothing put back in {counted(quiet, 'queue')}"
            yield block.styled(f"{INDENT}{nothing}", "dim")
    skipped = [
        (skip.reason, _named(_label(queue, prefix), skip.id, is_single))
        for queue in report.queues
        for skip in queue.skipped
    ]
    for reason in dict.fromkeys(reason for reason, _ in skipped):
        yield from block.paragraph(f"left alone: {reason}", "bold")
        names = [name for why, name in skipped if why == reason]
        yield INDENT * 2 + block.names(names, block.width - 2 * len(INDENT))
    yield from _locked_lines(block, plan, prefix, is_single=is_single)
    if dry_run:
        yield from block.paragraph("dry run: nothing was changed")


def _retry_mark(report: RetryReport, plan: RetryPlan) -> tuple[str, str]:
    if any(queue.error is not None for queue in report.queues):
        return "✖", "bold red"
    if report.left_alone or any(queue.waiting_for for queue in plan.queues):
        return "!", "yellow"
    return "✔", "green"


def _retried_text(queue: RetriedQueue, ids: str) -> str:
    if queue.error is not None:
        # The error itself follows on stderr.
        return "not done in full"
    had_failed = f"{count(queue.failed)} had failed" if queue.failed else ""
    return "   ".join(filter(None, (ids, had_failed)))


def _ids_text(queue: RetriedQueue) -> str:
    return f"{counted(len(queue.retried), 'job')}: {', '.join(map(visible, queue.retried[:3]))}" + (
        " …" if len(queue.retried) > 3 else ""
    )


def _named(label: str, job_id: str, is_single: bool) -> str:
    """A job's id, with the queue's label in front if there are several queues."""
    return job_id if is_single else job_label(label, job_id)


def _locked_lines(
    block: Block, plan: RetryPlan, prefix: str | None, *, is_single: bool
) -> Iterator[str]:
    """The jobs that cannot be put back before their locks expire, and the command that waits."""
    queues = [queue for queue in plan.queues if queue.waiting_for]
    if not queues:
        return
    names = [
        _named(queue.keys.label(prefix), job.id, is_single)
        for queue in queues
        for job in queue.waiting_for
    ]
    jobs = counted(len(names), "job is", "jobs are")
    yield from block.paragraph(f"{jobs} still locked by workers that are gone", "bold")
    yield INDENT * 2 + block.names(names, block.width - 2 * len(INDENT))
    labels = [queue.keys.label(prefix) for queue in queues]
    yield block.hint_on("to wait", prefix, "jobs retry-stalled", labels, "--wait")


def waiting_lines(
    locks: int, waited_s: float, left_s: float, *, width: int, colour: bool
) -> Iterator[str]:
    """A line that is redrawn while the locks of dead workers expire.

    Args:
        locks: how many locks have not expired yet.
        left_s: in how many seconds, at the latest, all locks have expired.
    """
    block = Block(width=width, colour=colour)
    whole_s = waited_s + left_s
    share = waited_s / whole_s if whole_s else 1.0
    text = f"waiting for {counted(locks, 'lock')} of dead workers"
    time_text = f"{duration(waited_s)} of up to {duration(whole_s)}"
    yield f"{text}  {block.bar(share)}  {time_text}"


def risk_block(plan: RetryPlan, *, prefix: str | None, width: int, colour: bool) -> Iterator[str]:
    """Why it is risky to put these jobs back: they may still be running."""
    block = Block(width=width, colour=colour)
    number = sum(len(queue.stalled) for queue in plan.risky)
    head = f"! {counted(number, 'stalled job')} may still be running"
    yield block.head(head, "yellow")
    for queue in plan.risky[:_MAX_ROWS]:
        workers = (
            "unknown whether a worker is connected"
            if queue.live_workers is None
            else f"{counted(queue.live_workers, 'worker')} connected"
        )
        name = visible(queue.keys.label(prefix), block.width - cells(workers) - 7)
        yield f"{INDENT * 2}{name}   {workers}"
        ids = [job.id for job in queue.stalled]
        room = block.width - len(INDENT) * 3
        yield INDENT * 3 + block.names(ids[:_MAX_IDS], room, total=len(ids))
    if len(plan.risky) > _MAX_ROWS:
        yield f"{INDENT * 2}and {counted(len(plan.risky) - _MAX_ROWS, 'more queue')}"
    yield from block.paragraph(
        "A connected worker whose event loop is blocked cannot renew its locks: its jobs look "
        "stalled but are still running, and would run twice. BullMQ's own stalled check also puts "
        "stalled jobs back, within about a minute."
    )


def _rows(block: Block, rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Rows of a name and a text, in aligned columns; at the end, how many rows are left out."""
    shown = [(visible(name, MAX_NAME), text) for name, text in rows[:_MAX_ROWS]]
    wide = max((cells(name) for name, _ in shown), default=0)
    room = block.width - len(INDENT) * 2 - wide - 2
    for name, text in shown:
        padding = " " * (wide - cells(name))
        yield f"{INDENT * 2}{name}{padding}  {shortened(text, room)}".rstrip()
    if len(rows) > len(shown):
        yield f"{INDENT * 2}and {counted(len(rows) - len(shown), 'more queue')}"
