"""Tables that fit the terminal.

Rich is not used: its import takes 40 ms, and its tables take seconds for ten thousand rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from qctl.output.text import cells, count, short_count, shortened, visible

T = TypeVar("T")
K = TypeVar("K")
# The width of a pipe or a file: nothing is cut.
UNLIMITED_WIDTH = 10_000
_GAP = 2
# If names are cut to fewer cells, many look the same.
MIN_TEXT_WIDTH = 12

_STYLES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "cyan": "36",
    "bold red": "1;31",
    # White on red.
    "banner": "1;37;41",
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
        value: returns an item's cell: a text, a count (shown with thousands separated), or None
            (shown as ``-``).
        right: whether cells are aligned right, as for numbers.
        short: the heading in a narrow table.
        optional: a table that is too wide may leave the column out if all its cells are 0 or empty;
            a line below the table names such columns.
        keep_end: cut long texts in the middle, because names often differ only at the end.
    """

    heading: str
    value: Callable[[T], Value]
    right: bool = False
    short: str = ""
    optional: bool = False
    keep_end: bool = False


def if_known(shown: Callable[[K], Value], value: K | None) -> Value:
    """``shown(value)``, or None if the value is None; tables show None as ``-``."""
    return None if value is None else shown(value)


def table(
    columns: Sequence[Column[T]],
    items: Sequence[T],
    *,
    width: int = UNLIMITED_WIDTH,
    colour: bool = False,
) -> str:
    """A table as text, with a row for each item; each line has its line end.

    Control characters in texts are made visible. If the table is too wide, empty optional columns
    are left out and long texts are cut. If that is not enough, counts and headings are shortened
    (``12.3k``), texts are cut further, gaps are narrowed, and finally texts are cut to 6 cells.
    A table that does not fit even then stays too wide.

    Args:
        width: of the terminal, in cells.
        colour: whether styles and bold headings are drawn.
    """
    drawn = [_Drawn(column, [column.value(item) for item in items]) for column in columns]
    gap = _GAP
    left_out: list[str] = []
    if not _narrow_to_fit(drawn, width, gap):
        kept = [
            one for one in drawn if not one.column.optional or any(map(_has_content, one.values))
        ]
        left_out = [one.heading.lower() for one in drawn if one not in kept]
        for short, min_width, gap in _TIGHTER:
            drawn = [_Drawn(one.column, one.values, short=short) for one in kept]
            if _narrow_to_fit(drawn, width, gap, min_width):
                break
    rows = zip(*(one.lines(colour) for one in drawn), strict=True)
    lines = [(" " * gap).join(row).rstrip(" ") for row in rows]
    if left_out:
        none = shortened(f"(none: {', '.join(left_out)})", width)
        lines.append(styled(none, "dim", colour=colour))
    return "".join(f"{line}\n" for line in lines)


# Tried in this order. Each has: whether counts and headings are short, minimum text width, gap.
_TIGHTER = (
    (False, 24, _GAP),
    (True, 24, _GAP),
    (True, MIN_TEXT_WIDTH, _GAP),
    (True, MIN_TEXT_WIDTH, 1),
    # The last resort: at this width, many names look the same.
    (True, 6, 1),
)


class _Drawn:
    """A column that can be narrowed. If ``short``, its counts and its heading are short."""

    def __init__(
        self, column: Column[Any], values: Sequence[Value], *, short: bool = False
    ) -> None:
        self.column = column
        self.values = values
        self.heading = column.short or column.heading if short else column.heading
        self.texts = [cell_text(value, short=short) for value in values]
        self.width = max(map(cells, (self.heading, *self.texts)))

    def lines(self, colour: bool) -> Iterator[str]:
        """The heading and the cells, all of the same width."""
        styles = (value.style if isinstance(value, Cell) else "" for value in self.values)
        for text, style in ((self.heading, "bold"), *zip(self.texts, styles, strict=True)):
            shown = shortened(text, self.width, keep_end=self.column.keep_end)
            padding = " " * (self.width - cells(shown))
            styled_text = styled(shown, style, colour=colour)
            yield padding + styled_text if self.column.right else styled_text + padding


def _narrow_to_fit(
    drawn: Sequence[_Drawn], width: int, gap: int, min_width: int = UNLIMITED_WIDTH
) -> bool:
    """Narrow the widest text columns, but not below ``min_width``, until the table fits.

    With the default ``min_width``, nothing is narrowed: the call checks whether the table fits.

    Returns:
        whether the table fits.
    """
    room = width - gap * (len(drawn) - 1)
    while (excess := sum(one.width for one in drawn) - room) > 0:
        narrowable = [
            one
            for one in drawn
            if not one.column.right and one.width > max(min_width, cells(one.heading))
        ]
        if not narrowable:
            return False
        widest = max(narrowable, key=lambda one: one.width)
        # Stop at the width of the next widest column, so that none is tiny while others are wide.
        next_widest = max((one.width for one in narrowable if one.width < widest.width), default=0)
        floor = max(min_width, cells(widest.heading), next_widest)
        widest.width = max(min(floor, widest.width - 1), widest.width - excess)
    return True


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


def _has_content(value: Value) -> bool:
    return bool(value.value if isinstance(value, Cell) else value)
