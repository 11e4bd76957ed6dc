"""A sequence of drains as text: a heading for each target, and one line for each at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from qctl.output.text import visible

if TYPE_CHECKING:
    from qctl.ops.drain.sequence import SequenceReport, TurnBegins


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
    for number, target in enumerate(targets):
        text = "not begun"
        if number < reached:
            each = report.targets[number]
            queues = ", ".join(map(visible, each.queues))
            text = f"{each.outcome}; queues: {queues}" if queues else each.outcome
        yield f"{visible(target):{width}}  {text}"
    if report.resume_from is not None:
        yield f"to continue: the same command with --resume-from {visible(report.resume_from)}"
