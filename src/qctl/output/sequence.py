"""A sequence of drains as text: a heading for each target, and a summary at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from qctl.output.block import INDENT, Block
from qctl.output.drain.verdict import mark_of, title_of
from qctl.output.text import cells, visible
from qctl.plurals import counted

if TYPE_CHECKING:
    from qctl.ops.drain.sequence import SequenceReport, TurnBegins
    from qctl.ops.drain.steps import DrainReport


def heading(turn: TurnBegins) -> str:
    """The line above the steps of one target."""
    return f"== {visible(turn.target)} ({turn.number} of {turn.total})"


def summary_lines(report: SequenceReport, targets: Sequence[str]) -> Iterator[str]:
    """The summary for a pipe: one line for each target, and how to continue.

    Args:
        targets: all targets, as the operator named them.
    """
    width = max(len(visible(target)) for target in targets)
    reached = len(report.targets)
    for number, target in enumerate(targets):
        text = "not begun"
        if number < reached:
            text = _result(report.targets[number], _is_single(report))
        yield f"{visible(target):{width}}  {text}"
    if report.resume_from is not None:
        yield _way_on(report.resume_from)


def sequence_block(
    report: SequenceReport, targets: Sequence[str], *, width: int, colour: bool
) -> Iterator[str]:
    """How many targets were restarted, a row for each target, and how to continue.

    Args:
        targets: all targets, as the operator named them.
    """
    block = Block(width=width, colour=colour)
    marks = [mark_of(each) for each in report.targets]
    # The last mark that is not ✔ is the worst one, because a failure (✖) ends the sequence.
    mark, style = next((mark for mark in reversed(marks) if mark[0] != "✔"), marks[0])
    done = sum(each.exit_status == 0 for each in report.targets)
    which = counted(len(targets), "target")
    if done < len(targets):
        which = f"{done} of {which}"
    yield block.head(f"{mark} restarted {which}", style)
    titles = [title_of(each) for each in report.targets]
    wide = max(map(cells, titles))
    for each, title, (mark, style) in zip(report.targets, titles, marks, strict=True):
        head = f"{INDENT * 2}{block.styled(mark, style)} {title}{' ' * (wide - cells(title))}   "
        room = block.width - wide - len(INDENT * 2) - 5
        names = block.names(_labels(each, each.queues, _is_single(report)), room)
        yield f"{head}{names}".rstrip()
        if still := _labels(each, each.still_paused or (), _is_single(report)):
            text = f"still paused: {block.names(still, block.width - 24)}"
            yield f"{INDENT * 3}{block.styled(text, 'bold')}"
    for target in targets[len(titles) :]:
        yield block.styled(f"{INDENT * 2}· not begun: {visible(target)}", "dim")
    if report.resume_from is not None:
        label, _, text = _way_on(report.resume_from).partition(": ")
        yield block.hint(label, text)


def _is_single(report: SequenceReport) -> bool:
    """Whether the queues of all targets have one prefix, which is then not shown."""
    # The prefix of a drain that has not begun is unknown.
    return len({each.prefix for each in report.targets if each.begun}) <= 1


def _way_on(target: str) -> str:
    return f"to continue: the same command with --resume-from {visible(target)}"


def _labels(report: DrainReport, queues: Sequence[str], is_single: bool) -> list[str]:
    # Without a common prefix, show each queue with the queue's own prefix.
    suffix = "" if is_single or report.prefix is None else f"@{report.prefix}"
    return [visible(f"{queue}{suffix}") for queue in queues]


def _result(report: DrainReport, is_single: bool) -> str:
    """The outcome of one target with its queues."""
    text = report.outcome
    if report.queues:
        text += f"; queues: {', '.join(_labels(report, report.queues, is_single))}"
    if report.still_paused:
        text += f"; still paused: {', '.join(_labels(report, report.still_paused, is_single))}"
    return text
