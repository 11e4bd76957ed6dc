"""A table of aspect, impact and notes; texts are sentences, wrapped to fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qctl.output.console import styled
from qctl.output.text import cells, shortened, visible

# Longer lines are hard to read.
_MAX_WIDTH = 100
_MIN_WIDTH = 40
_GAP = 2
_HEADINGS = ("ASPECT", "IMPACT", "NOTES")
_MAX_IMPACT = 24
_MAX_NAMED = 5
_MAX_NAME = 40


@dataclass(frozen=True, slots=True)
class Aspect:
    """A row. Its texts contain no control characters.

    Args:
        notes: sentences or clauses, each on a line of its own.
        style: of the impact, see ``console.Cell``.
    """

    name: str
    impact: str
    notes: Sequence[str] = ()
    style: str = ""


def aspect_lines(rows: Sequence[Aspect], *, width: int, colour: bool) -> Iterator[str]:
    """The table's lines."""
    width = max(min(width, _MAX_WIDTH), _MIN_WIDTH)
    first = max(cells(row.name) for row in rows)
    second = min(max(cells(row.impact) for row in rows), _MAX_IMPACT, width // 3)
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
    """The first few names of queues, and how many more there are."""
    shown = ", ".join(visible(name, _MAX_NAME) for name in names[:_MAX_NAMED])
    more = len(names) - _MAX_NAMED
    return shown + (f" and {more:,} more" if more > 0 else "")


def wrapped(text: str, width: int) -> Iterator[str]:
    """The text in lines of at most ``width`` cells; longer words are shortened."""
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
