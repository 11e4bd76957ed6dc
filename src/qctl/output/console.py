"""Tables that fit the terminal.

Drawn without rich, which costs 40 ms at start and seconds for ten thousand rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Generic, NamedTuple, TypeVar

from qctl.output.text import cells, count, short_count, shortened, visible

T = TypeVar("T")
K = TypeVar("K")
# In a pipe or a file nothing is cut.
UNLIMITED_WIDTH = 10_000
# Shorter names cannot be distinguished.
MIN_TEXT_WIDTH = 12

_STYLES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "cyan": "36",
    "bold red": "1;31",
}


def styled(text: str, style: str, *, colour: bool) -> str:
    """``text`` in a style of this module, or plain when ``colour`` is off."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if colour and style else text


class Cell(NamedTuple):
    """A table cell with a style: bold, dim, red, green, yellow, cyan or bold red."""

    value: str | int | None
    style: str = ""


Value = str | int | None | Cell


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A column of a table of ``T``.

    Args:
        heading: one word in capitals.
        value: what the column shows of an item: a text, a count (grouped by thousands), or None
            (shown as ``-``).
        right: aligned right, as numbers are.
        short: the heading in a narrow table.
        optional: a table that is too wide may leave the column out if all its cells are 0 or empty;
            a line below then says so.
        keep_end: cut long texts in the middle, because names often differ only at the end.
    """

    heading: str
    value: Callable[[T], Value]
    right: bool = False
    short: str = ""
    optional: bool = False
    keep_end: bool = False


def if_known(shown: Callable[[K], Value], value: K | None) -> Value:
    """How a value is shown; None, which a table shows as ``-``, if it is unknown."""
    return None if value is None else shown(value)


def table(
    columns: Sequence[Column[T]],
    items: Iterable[T],
    *,
    width: int = UNLIMITED_WIDTH,
    colour: bool = False,
) -> str:
    """A table with a row for each item as text, each line with its line end.

    Control characters in texts are made visible. Where a table is too wide, empty optional
    columns go and long texts are cut, then counts and headings (``12.3k``), then texts further,
    then the gaps.

    Args:
        width: of the terminal, in cells.
        colour: whether styles and bold headings are drawn.
    """
    rows = [[column.value(item) for column in columns] for item in items]
    draft = _Draft(columns, rows)
    left_out: list[str] = []
    if not draft.fits(width):
        draft, left_out = draft.without_empty()
        for short, min_width, gap in _TIGHTER:
            draft = draft.tightened(width, short=short, min_width=min_width, gap=gap)
            if draft.fits(width):
                break
    lines = list(draft.lines(colour))
    if left_out:
        none = shortened(f"(none: {', '.join(left_out)})", width)
        lines.append(styled(none, "dim", colour=colour))
    return "".join(f"{line}\n" for line in lines)


# Short counts, min. width of texts, gap between columns: tried in this order.
_TIGHTER = (
    (False, 24, 2),
    (True, 24, 2),
    (True, MIN_TEXT_WIDTH, 2),
    (True, MIN_TEXT_WIDTH, 1),
    # The last resort: many names then look the same.
    (True, 6, 1),
)


class _Draft:
    """A table while it is made to fit."""

    def __init__(
        self,
        columns: Sequence[Column[Any]],
        rows: Sequence[Sequence[Value]],
        *,
        short: bool = False,
        gap: int = 2,
    ) -> None:
        self.columns = columns
        self.rows = rows
        self.gap = gap
        self.headings = [c.short or c.heading if short else c.heading for c in columns]
        self.texts = [[cell_text(value, short=short) for value in row] for row in rows]
        in_columns = zip(self.headings, *self.texts, strict=True)
        self.widths = [max(map(cells, texts)) for texts in in_columns]

    @property
    def total(self) -> int:
        return sum(self.widths) + self.gap * max(len(self.widths) - 1, 0)

    def fits(self, width: int) -> bool:
        return self.total <= width

    def without_empty(self) -> tuple[_Draft, list[str]]:
        """The table without empty optional columns, and the names of those columns."""
        has_content = [
            not column.optional or any(not _is_nothing(row[index]) for row in self.rows)
            for index, column in enumerate(self.columns)
        ]
        columns = list(compress(self.columns, has_content))
        rows = [list(compress(row, has_content)) for row in self.rows]
        return _Draft(columns, rows), [c.heading.lower() for c in self.columns if c not in columns]

    def tightened(self, width: int, *, short: bool, min_width: int, gap: int) -> _Draft:
        """The table with its widest text columns narrowed to ``min_width`` until it fits."""
        draft = _Draft(self.columns, self.rows, short=short, gap=gap)
        widths = draft.widths
        while (excess := draft.total - width) > 0:
            loose = [
                index
                for index, column in enumerate(draft.columns)
                if not column.right and widths[index] > max(min_width, cells(draft.headings[index]))
            ]
            if not loose:
                break
            widest = max(loose, key=widths.__getitem__)
            # Down to the next widest, so that no column becomes tiny before the others.
            next_widest = max((widths[i] for i in loose if widths[i] < widths[widest]), default=0)
            floor = max(min_width, cells(draft.headings[widest]), next_widest)
            widths[widest] = max(min(floor, widths[widest] - 1), widths[widest] - excess)
        return draft

    def lines(self, colour: bool) -> Iterator[str]:
        yield self._line(self.headings, ["bold"] * len(self.headings), colour)
        for row, texts in zip(self.rows, self.texts, strict=True):
            styles = [value.style if isinstance(value, Cell) else "" for value in row]
            yield self._line(texts, styles, colour)

    def _line(self, texts: Sequence[str], styles: Sequence[str], colour: bool) -> str:
        parts = []
        for column, width, text, style in zip(
            self.columns, self.widths, texts, styles, strict=True
        ):
            shown = shortened(text, width, keep_end=column.keep_end)
            padding = " " * (width - cells(shown))
            drawn = styled(shown, style, colour=colour)
            parts.append(padding + drawn if column.right else drawn + padding)
        return (" " * self.gap).join(parts).rstrip(" ")


def cell_text(value: Value, *, short: bool) -> str:
    """The visible text of a cell.

    Args:
        short: whether counts are written in at most five cells.
    """
    if isinstance(value, Cell):
        value = value.value
    if value is None:
        return "-"
    if isinstance(value, int):
        return short_count(value) if short else count(value)
    return visible(value)


def _is_nothing(value: Value) -> bool:
    return not (value.value if isinstance(value, Cell) else value)
