"""Lines that fit the terminal: names, wrapped texts, bars, hints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qctl.ops.processes.suggest import command
from qctl.output.console import styled
from qctl.output.text import cells, visible, wrapped

INDENT = "  "
MAX_NAME = 40
LABEL_WIDTH = 9
BAR_WIDTH = 20
# How many cells ``job_label`` gives to the queue's name and to the job's id. With the space between
# them, a label has at most ``MAX_NAME`` cells.
_MAX_QUEUE, _MAX_ID = 22, 17
# A command that names more queues would fill the screen.
MAX_NAMED_QUEUES = 50
# Longer lines are hard to read.
_MAX_WIDTH = 100


def job_label(queue: str, job_id: str) -> str:
    """The queue's name and the job's id, each shortened if long; for jobs of several queues."""
    return f"{visible(queue, _MAX_QUEUE)} {visible(job_id, _MAX_ID)}"


class Block:
    """Lines that fit the terminal.

    Args:
        width: of the terminal, in cells.
    """

    def __init__(self, *, width: int, colour: bool) -> None:
        self.width = min(width, _MAX_WIDTH)
        self._colour = colour

    def styled(self, text: str, style: str) -> str:
        """``text`` in a style of ``output.console``."""
        return styled(text, style, colour=self._colour)

    def head(self, text: str, style: str) -> str:
        """A line that begins with a mark, such as ✔, in the style of the mark."""
        if style != "yellow":
            return self.styled(text, style)
        # Yellow is hard to read on white: only marks, labels and figures are yellow.
        mark, _, rest = text.partition(" ")
        return f"{self.styled(mark, style)} {self.styled(rest, 'bold')}"

    def bar(self, share: float) -> str:
        """A bar of ``BAR_WIDTH`` cells. ``share`` is the filled part, from 0 to 1."""
        filled = int(min(max(share, 0.0), 1.0) * BAR_WIDTH)
        return self.styled("━" * filled, "cyan") + self.styled("─" * (BAR_WIDTH - filled), "dim")

    def names(self, names: Sequence[str], width: int, *, total: int | None = None) -> str:
        """As many names as fit into ``width`` cells, and how many more there are.

        Args:
            total: the number of all names; None if ``names`` holds all of them.
        """
        shown, total = "", len(names) if total is None else total
        for number, name in enumerate(names):
            left = total - number
            more = f" and {left - 1:,} more" if left > 1 else ""
            longer = f"{shown}, " if shown else ""
            # The first name is always shown, cut if necessary so that the number of others fits.
            room = width if shown else width - cells(more)
            longer += visible(name, max(min(MAX_NAME, room), 1))
            if shown and cells(longer + more) > width:
                return f"{shown} and {left:,} more"
            shown = longer
        unlisted = total - len(names)
        return f"{shown} and {unlisted:,} more" if unlisted > 0 else shown

    def labelled(self, label: str, text: str, style: str = "") -> Iterator[str]:
        """``text`` beside its label, wrapped, with every line after the first indented."""
        indent = len(INDENT) + LABEL_WIDTH
        for number, line in enumerate(wrapped(text, self.width - indent, cut=False)):
            head = f"{INDENT}{label:<{LABEL_WIDTH}}" if number == 0 else " " * indent
            yield self.styled(head, "dim") + self.styled(line, style)

    def paragraph(self, text: str, style: str = "", indent: str = INDENT) -> Iterator[str]:
        """``text``, wrapped and indented; long words stay whole, so that they can be copied."""
        for line in wrapped(text, self.width - len(indent), cut=False):
            yield indent + self.styled(line, style)

    def hint(self, label: str, text: str) -> str:
        """What to type, never cut or wrapped, so that it can be copied."""
        return f"{INDENT}{self.styled(f'{label}:', 'bold')} {text}"

    def hint_on(
        self, label: str, prefix: str | None, verb: str, queues: Sequence[str], *options: str
    ) -> str:
        """``hint`` with a command on these queues. If there are too many, it does not name them.

        Args:
            prefix: as for ``suggest.command``; None if ``queues`` are ``NAME@PREFIX``.
        """
        if len(queues) <= MAX_NAMED_QUEUES:
            return self.hint(label, command(prefix, verb, *queues, *options))
        words = " ".join(["qctl", verb, *options])
        return self.hint(label, f"{words}, with the same queues; `qctl status` lists them")
