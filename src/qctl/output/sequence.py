"""A sequence of drains as text: a heading for each target, and a summary at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from qctl.output.text import visible

if TYPE_CHECKING:
    from qctl.ops.drain.sequence import SequenceReport, TurnBegins
    from qctl.ops.drain.steps import DrainReport


def heading(turn: TurnBegins) -> str:
    """The line above the steps of one target."""
    return f"== {visible(turn.target)} ({turn.number} of {turn.total})"


def summary_lines(report: SequenceReport, targets: Sequence[str]) -> Iterator[str]:
    """One line for each target, and how to continue.

    Args:
        targets: all targets, as the operator named them.
    """
    width = max(len(visible(target)) for target in targets)
    reached = len(report.targets)
    is_single = len({each.prefix for each in report.targets}) == 1
    for number, target in enumerate(targets):
        text = "not begun"
        if number < reached:
            text = _result(report.targets[number], is_single=is_single)
        yield f"{visible(target):{width}}  {text}"
    if report.resume_from is not None:
        yield f"to continue: the same command with --resume-from {visible(report.resume_from)}"


def _result(report: DrainReport, *, is_single: bool) -> str:
    """The outcome of one target with its queues.

    Args:
        is_single: whether the queues of all targets have one prefix, which is then not shown.
    """

    def listed(queues: Sequence[str]) -> str:
        # Without a common prefix, show each queue with the queue's own prefix.
        suffix = "" if is_single or report.prefix is None else f"@{report.prefix}"
        return ", ".join(visible(f"{queue}{suffix}") for queue in queues)

    text = report.outcome
    if report.queues:
        text += f"; queues: {listed(report.queues)}"
    if report.still_paused:
        text += f"; still paused: {listed(report.still_paused)}"
    return text
