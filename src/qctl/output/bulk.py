"""Commands on many jobs: the question, the progress, and what was done, for terminals and pipes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qctl.ops.bulk.actions import Action, Selection
from qctl.ops.bulk.model import BulkProgress, BulkReport, labels
from qctl.ops.processes.suggest import command
from qctl.output.block import BAR_WIDTH, INDENT, MAX_NAME, Block, job_label
from qctl.output.text import cells, count, duration, listed, short_count, shortened, visible
from qctl.plurals import counted
from qctl.wire.keys import QueueKeys

_MAX_SHOWN = 10
# A report on a terminal should fit on one screen. So it has fewer rows and ids than for a pipe.
_MAX_ROWS = 12
_MAX_IDS = 5
# Before this time, the rate is not known well enough to show it.
_MIN_MEASURED_S = 1.0
# The verb that is shown for each action: for ``jobs remove`` and ``purge``, it is "delete".
_INFINITIVE = {
    "retry": "retry",
    "promote": "promote",
    "remove": "delete",
    "purge": "delete",
    "cancel": "cancel",
}
DOING = {
    "retry": "retrying",
    "promote": "promoting",
    "remove": "deleting",
    "purge": "deleting",
    "cancel": "cancelling",
}
_DONE = {
    "retry": "retried",
    "promote": "promoted",
    "remove": "deleted",
    "purge": "deleted",
    "cancel": "cancelled",
}
# What these actions do cannot be undone.
FINAL = frozenset({"remove", "purge", "cancel"})


@dataclass(frozen=True, slots=True)
class Count:
    """How many jobs a command will change.

    Args:
        jobs: if ``exact``, the jobs that match; otherwise the most that can match.
        total: the jobs in the state.
        below: how many descendants of the matching jobs (in flows) are deleted as well.
        skipped: how many jobs match but would be left alone.
    """

    jobs: int
    total: int
    below: int = 0
    skipped: int = 0
    exact: bool = False


def queues_text(queues: Sequence[QueueKeys]) -> str:
    """The name of the queue, or how many queues there are."""
    return queues[0].name if len(queues) == 1 else f"{len(queues):,} queues"


def bulk_question(
    action: Action, queues: Sequence[QueueKeys], selection: Selection, number: Count
) -> str:
    """The question to ask before a command changes jobs. It has no question mark."""
    state = f"{selection.state} " if selection.state else ""
    which = counted(number.jobs, f"{state}job")
    if number.exact:
        which = f"{count(number.jobs)} of {counted(number.total, f'{state}job')}"
    elif selection.only.is_set and not selection.named_count:
        which = "up to " + counted(number.jobs, f"matching {state}job")
    where = "of" if len(queues) == 1 else "in"
    text = f"{_INFINITIVE[action.name].capitalize()} {which} {where} {queues_text(queues)}"
    if number.below:
        text += f" and {counted(number.below, 'job')} below {_them(number.jobs)}"
    elif action.with_children and not number.exact:
        text += f" and all jobs below {_them(number.jobs)}"
    return text


def _them(number: int) -> str:
    return "it" if number == 1 else "them"


def scan_lines(reports: Sequence[BulkReport], number: Count, *, several: bool) -> Iterator[str]:
    """What a scan before the question found.

    If the command has several queues: how many jobs each queue has. For any number of queues: how
    many further jobs match but will be left alone, and why.
    """
    if several:
        named = zip(labels(reports), reports, strict=True)
        found = [(label, report) for label, report in named if report.done]
        for label, report in found[:_MAX_ROWS]:
            yield f"{INDENT}{visible(label)}: {count(report.done)} of {count(report.total)}"
        if len(found) > _MAX_ROWS:
            yield f"{INDENT}and {counted(len(found) - _MAX_ROWS, 'more queue')}"
    if number.skipped:
        reasons = dict.fromkeys(skip.reason for report in reports for skip in report.skipped)
        more = "1 more matches" if number.skipped == 1 else f"{count(number.skipped)} more match"
        yield f"{more} and will be left alone: {'; '.join(reasons)}"


# Progress


def bulk_progress(progress: BulkProgress) -> str:
    """The progress so far, in words."""
    scanned = f"{count(progress.scanned)} of {count(progress.total)} scanned"
    below = f", {count(progress.below_count)} below them" if progress.below_count else ""
    return f"{scanned}, {count(progress.matched)} match, {count(progress.done)} done{below}"


def progress_lines(
    progress: BulkProgress,
    took_s: float,
    *,
    doing: str,
    limit: int | None,
    width: int,
    colour: bool,
) -> Iterator[str]:
    """Two lines that are redrawn: what is done to which queue, and how far it is.

    Args:
        doing: what is done, as in ``counting`` or ``retrying``.
        took_s: the time since the beginning, for the rate and the time left.
        limit: after how many changed jobs the command ends.
    """
    block = Block(width=width, colour=colour)
    share = progress.scanned / progress.total if progress.total else 0.0
    if limit:
        share = max(share, progress.done / limit)
    counting = doing == "counting"
    done = f"{count(progress.done)} {'match' if counting else 'done'}"
    if progress.below_count:
        done += f" (+{count(progress.below_count)} below)"
    figures = [f"{count(progress.scanned)}/{count(progress.total)} scanned", done]
    if took_s >= _MIN_MEASURED_S and progress.scanned:
        figures.append(f"{count(round(progress.scanned / took_s))}/s")
        if 0 < share < 1:
            figures.append(f"about {duration(took_s * (1 - share) / share)} left")
    name = visible(progress.queue)
    head = f"{doing} jobs" + (f" of {name}" if name else "")
    head = shortened(head, max(block.width - BAR_WIDTH - 2, 1), keep_end=True)
    yield f"{head}  {block.bar(share)}"
    room = block.width - len(INDENT)
    if cells("  ".join(figures)) > room:
        # Shorten the numbers, so that the time left, which is at the end, is not cut off.
        scanned, total = short_count(progress.scanned), short_count(progress.total)
        figures[0] = f"{scanned}/{total} scanned"
    yield INDENT + shortened("  ".join(figures), room)


# Reports


def bulk_lines(report: BulkReport, *, paused: bool, label: str | None = None) -> Iterator[str]:
    """What a bulk command did to one queue, or would do in a dry run: one fact per line, for pipes.

    Args:
        paused: whether the queue is paused; if so, the lines say that the jobs run after a resume.
        label: begins each line, if the command was for several queues.
    """
    queue = visible(report.queue if label is None else label)
    head = "" if label is None else f"{queue}: "
    done = ("would be " if report.dry_run else "") + _DONE[report.action]
    ids = listed(report.sample, len(report.sample), total=report.done)
    yield f"{queue}: {counted(report.done, 'job')} {done}" + (ids and f": {ids}")
    if report.below_count:
        yield f"{head}{counted(report.below_count, 'job')} below {done}"
    if report.state is not None:
        end = "" if report.complete else "; the scan ended early"
        yield (
            f"{head}{count(report.scanned)} of {count(report.total)} {report.state} scanned{end}"
        )
    for skipped in report.skipped[:_MAX_SHOWN]:
        yield f"{head}{visible(skipped.id, 40)} left alone: {visible(skipped.reason)}"
    if report.skipped_count > _MAX_SHOWN:
        yield f"{head}{counted(report.skipped_count - _MAX_SHOWN, 'more job')} left alone"
    if paused and report.done and report.action in {"retry", "promote"}:
        yield f"{queue} is paused: the jobs run after `qctl resume`"


def bulk_lines_of_several(
    reports: Sequence[BulkReport], paused: Sequence[QueueKeys]
) -> Iterator[str]:
    """``bulk_lines`` of each queue in which something was done or left alone, and the sum."""
    quiet = 0
    for label, report in zip(labels(reports), reports, strict=True):
        if _is_worth_a_row(report):
            yield from bulk_lines(report, paused=report.keys in paused, label=label)
        else:
            quiet += 1
    if quiet:
        yield f"nothing to {_INFINITIVE[reports[0].action]} in {counted(quiet, 'queue')}"
    yield _sum_text(reports)


def _is_worth_a_row(report: BulkReport) -> bool:
    return bool(report.done or report.skipped_count or not report.complete)


def _sum_text(reports: Sequence[BulkReport]) -> str:
    first = reports[0]
    done = ("would be " if first.dry_run else "") + _DONE[first.action]
    jobs = counted(sum(report.done for report in reports), "job")
    left = sum(report.skipped_count for report in reports)
    rest = f", {count(left)} left alone" if left else ""
    return f"{counted(len(reports), 'queue')}: {jobs} {done}{rest}"


def bulk_block(
    reports: Sequence[BulkReport],
    took_s: float,
    *,
    paused: Sequence[QueueKeys],
    width: int,
    colour: bool,
) -> Iterator[str]:
    """What a bulk command did, or would do in a dry run: one block for a terminal.

    Args:
        took_s: how long it took.
        paused: the queues that are paused. Their jobs run only after a resume.
    """
    block = Block(width=width, colour=colour)
    first = reports[0]
    mark, style = _mark(reports)
    jobs = counted(sum(report.done for report in reports), "job")
    done = f"would {_INFINITIVE[first.action]}" if first.dry_run else _DONE[first.action]
    several = len(reports) > 1
    head = f"{mark} {done} {jobs}"
    of = " in " if several else " of "
    time = duration(took_s)
    name = queues_text([report.keys for report in reports])
    room = block.width - cells(head) - cells(time) - 7
    name = visible(name, max(min(room, MAX_NAME), 1))
    yield block.head(head, style) + f"{of}{name}   {time}"
    yield from block.paragraph(_figures(reports))
    if several:
        yield from _queue_rows(reports, block)
    elif first.sample:
        room = block.width - len(INDENT) - len("ids: ")
        ids = block.names(first.sample[:_MAX_IDS], room, total=first.done)
        yield block.styled(f"{INDENT}ids: {ids}", "dim")
    yield from _left_alone(reports, block)
    yield from _way_on(reports, paused, block)


def _mark(reports: Sequence[BulkReport]) -> tuple[str, str]:
    """✖ if the command ended early in a queue, ! if jobs were left alone, else ✔."""
    if not all(report.complete for report in reports):
        return "✖", "bold red"
    if any(report.left_alone_count > 0 for report in reports):
        return "!", "yellow"
    return "✔", "green"


def _figures(reports: Sequence[BulkReport]) -> str:
    state = reports[0].state
    parts = []
    if state is not None:
        scanned = sum(report.scanned for report in reports)
        total = sum(report.total for report in reports)
        parts.append(f"{count(scanned)} of {count(total)} {state} scanned")
    below = sum(report.below_count for report in reports)
    if below:
        parts.append(f"{count(below)} below them deleted")
    left = sum(report.left_alone_count for report in reports)
    moved = sum(report.moved_on_count for report in reports)
    parts.append(f"{count(left)} left alone")
    if moved:
        parts.append(f"{count(moved)} had moved on")
    if not all(report.complete for report in reports):
        parts.append("ended early")
    return "   ".join(parts)


def _queue_rows(reports: Sequence[BulkReport], block: Block) -> Iterator[str]:
    named = zip(labels(reports), reports, strict=True)
    busy = [(label, report) for label, report in named if _is_worth_a_row(report)]
    rows = [
        (
            visible(label, MAX_NAME),
            count(report.done),
            _row_remark(report),
        )
        for label, report in busy[:_MAX_ROWS]
    ]
    wide = max((cells(name) for name, _, _ in rows), default=0)
    right = max((len(done) for _, done, _ in rows), default=0)
    for name, done, remark in rows:
        line = f"{INDENT * 2}{name}{' ' * (wide - cells(name))}  {done:>{right}}"
        room = block.width - cells(line) - 2
        yield f"{line}  {shortened(remark, room)}".rstrip()
    if len(busy) > len(rows):
        yield f"{INDENT * 2}and {counted(len(busy) - len(rows), 'more queue')}"
    if len(reports) > len(busy):
        nothing = f"nothing to {_INFINITIVE[reports[0].action]} in "
        yield block.styled(
            f"{INDENT * 2}{nothing}{counted(len(reports) - len(busy), 'queue')}", "dim"
        )


def _row_remark(report: BulkReport) -> str:
    if report.error is not None:
        return visible(report.error)
    left = report.left_alone_count
    return f"{count(left)} left alone" if left > 0 else ""


def _left_alone(reports: Sequence[BulkReport], block: Block) -> Iterator[str]:
    """The reasons for which jobs were left alone, each with some ids."""
    ids: dict[str, list[str]] = {}
    for label, report in zip(labels(reports), reports, strict=True):
        for skipped in report.skipped:
            # An id alone does not say in which of several queues the job is.
            name = job_label(label, skipped.id) if len(reports) > 1 else skipped.id
            ids.setdefault(skipped.reason, []).append(name)
    for reason, some in ids.items():
        yield from block.paragraph(f"left alone: {visible(reason)}", "bold")
        yield INDENT * 2 + block.names(some, block.width - 2 * len(INDENT))
    unlisted = sum(report.skipped_count - len(report.skipped) for report in reports)
    if unlisted:
        yield from block.paragraph(f"and {count(unlisted)} more left alone", "bold")


def _way_on(
    reports: Sequence[BulkReport], paused: Sequence[QueueKeys], block: Block
) -> Iterator[str]:
    """What to type next."""
    first = reports[0]
    waiting = [r.keys for r in reports if r.done and r.keys in paused]
    if waiting and first.action in {"retry", "promote"}:
        is_one = len(waiting) == 1
        names = block.names([keys.name for keys in waiting], block.width - 40)
        verb = "is" if is_one else "are"
        yield from block.paragraph(f"{names} {verb} paused: the jobs run after a resume", "bold")
        is_single = len({keys.prefix for keys in waiting}) == 1
        prefix = waiting[0].prefix if is_single else None
        labels = [keys.label(prefix) for keys in waiting]
        yield block.hint_on("to resume", prefix, "resume", labels)
    skipped = next(
        ((r, r.skipped[0]) for r in reports if r.left_alone_count > 0 and r.skipped), None
    )
    if skipped is not None:
        report, job = skipped
        yield block.hint("look", command(report.prefix, "jobs show", report.queue, job.id))
    if first.dry_run:
        yield from block.paragraph("dry run: nothing was changed")
