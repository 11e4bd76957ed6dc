"""A table of a few rows whose texts are sentences: aspect, impact, notes, wrapped to fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qctl.output.console import styled
from qctl.output.text import cells, shortened, visible

# A sentence in a longer line is hard to read.
_MOST_WIDTH = 100
_LEAST_WIDTH = 40
_GAP = 2
_HEADINGS = ("ASPECT", "IMPACT", "NOTES")
_MOST_IMPACT = 24
_MOST_NAMED = 5
_MOST_NAME = 40


@dataclass(frozen=True, slots=True)
class Aspect:
    """A row; its texts are visible already.

    Args:
        notes: sentences or clauses, each on a line of its own.
        style: of the impact, see ``console.Cell``.
    """

    name: str
    impact: str
    notes: Sequence[str] = ()
    style: str = ""


def aspects(rows: Sequence[Aspect], *, width: int, colour: bool) -> Iterator[str]:
    """The table's lines."""
    width = max(min(width, _MOST_WIDTH), _LEAST_WIDTH)
    first = max(cells(row.name) for row in rows)
    second = min(max(cells(row.impact) for row in rows), _MOST_IMPACT, width // 3)
    third = width - first - second - 2 * _GAP
    widths = (first, second, third)
    yield _line(_HEADINGS, widths, ("bold", "bold", "bold"), colour)
    for row in rows:
        impact = [*wrapped(row.impact, second)]
        notes = [line for note in row.notes for line in wrapped(note, third)]
        for index in range(max(len(impact), len(notes), 1)):
            texts = (
                row.name if index == 0 else "",
                impact[index] if index < len(impact) else "",
                notes[index] if index < len(notes) else "",
            )
            yield _line(texts, widths, ("bold", row.style, ""), colour)


def named(names: Sequence[str]) -> str:
    """The first few of some queues' names, and how many more there are."""
    shown = ", ".join(visible(name, _MOST_NAME) for name in names[:_MOST_NAMED])
    more = len(names) - _MOST_NAMED
    return shown + (f" and {more:,} more" if more > 0 else "")


def wrapped(text: str, width: int) -> Iterator[str]:
    """The words of a text in lines of so many cells; a word too long is shortened."""
    line = ""
    for word in text.split(" "):
        shown = shortened(word, width, keep_end=True)
        if line and cells(line) + 1 + cells(shown) > width:
            yield line
            line = shown
        else:
            line = f"{line} {shown}" if line else shown
    yield line


def _line(texts: Sequence[str], widths: Sequence[int], styles: Sequence[str], colour: bool) -> str:
    parts = []
    for text, cell_width, style in zip(texts, widths, styles, strict=True):
        padding = " " * max(cell_width - cells(text), 0)
        parts.append((styled(text, style, colour=colour) if text else "") + padding)
    return (" " * _GAP).join(parts).rstrip(" ")
