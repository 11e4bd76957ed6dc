"""A table with the columns aspect, impact and notes, whose texts are wrapped to fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from operator import itemgetter

from qctl.output.console import Cell, Column, Value, table
from qctl.output.text import cells, wrapped

# Longer lines are hard to read.
MAX_WIDTH = 100
_MIN_WIDTH = 40
_MAX_IMPACT = 24


@dataclass(frozen=True, slots=True)
class Aspect:
    """A row of the table. Its texts contain no control characters.

    Args:
        notes: sentences or clauses; each begins a new line.
        style: the style of the text ``impact``, see ``console.Cell``.
    """

    name: str
    impact: str
    notes: Sequence[str] = ()
    style: str = ""


def aspect_table(aspects: Sequence[Aspect], *, width: int, colour: bool) -> str:
    """The table as text, each line with its line end."""
    width = max(min(width, MAX_WIDTH), _MIN_WIDTH)
    first = max(cells(aspect.name) for aspect in aspects)
    second = min(max(cells(aspect.impact) for aspect in aspects), _MAX_IMPACT, width // 3)
    third = width - first - second - 4
    lines: list[Sequence[Value]] = []
    for aspect in aspects:
        impact = [Cell(line, aspect.style) for line in wrapped(aspect.impact, second)]
        notes = [line for note in aspect.notes for line in wrapped(note, third)]
        lines += zip_longest([Cell(aspect.name, "bold")], impact, notes, fillvalue="")
    columns: tuple[Column[Sequence[Value]], ...] = (
        Column("ASPECT", itemgetter(0)),
        Column("IMPACT".ljust(second), itemgetter(1)),
        Column("NOTES", itemgetter(2)),
    )
    return table(columns, lines, colour=colour)
