"""A table with a cursor; only its visible rows are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget

from qctl.output.console import Column, table
from qctl.output.top.sorting import SortKey, marked, sorted_items

T = TypeVar("T")
# Identifies a row when the list changes under the cursor.
Key = tuple[str, ...]
# Lines above the rows: the title and the column headings.
_HEAD_LINES = 2


class Panel(Widget, can_focus=True):
    """A titled table with a cursor.

    Args:
        title: shown above the table.
        sorts: heading → how to sort by that column. The key ``s`` goes through them in this order.
        newest_first: the first row is the newest; it has the cursor while the panel has no focus.
    """

    class Moved(Message):
        """Posted after a key or a resize, which may change the chosen row or the visible rows."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "move(-1000000)", show=False),
        Binding("end", "move(1000000)", show=False),
        Binding("s", "sort", show=False),
        Binding("S", "reverse", show=False),
    ]

    def __init__(
        self,
        title: str,
        *,
        id: str,  # noqa: A002 - Textual's name
        sorts: Mapping[str, SortKey],
        newest_first: bool = False,
    ) -> None:
        super().__init__(id=id)
        self._sorts = sorts
        self._sorted_by: str | None = None
        self._is_reversed = False
        self._title = title
        self._columns: Sequence[Column[Any]] = ()
        self._items: Sequence[Any] = ()
        self._keys: tuple[Key, ...] = ()
        self._empty = ""
        self._cursor = 0
        self._first = 0
        self._age = ""
        self._newest_first = newest_first
        # After a change of the order, the first row is chosen until the operator chooses another.
        self._stays_first = False

    @property
    def room(self) -> int:
        """How many rows fit."""
        return max(self.size.height - _HEAD_LINES, 0)

    @property
    def rows_to_read(self) -> int:
        """How many rows to read: those down to the last visible row, and one more screenful."""
        return self._first + 2 * self.room

    @property
    def sorted_by(self) -> str | None:
        """The heading of the column by which the rows are sorted; None for their own order."""
        return self._sorted_by

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys of all rows."""
        return self._keys

    @property
    def visible_keys(self) -> tuple[Key, ...]:
        return self._keys[self._first : self._first + self.room]

    @property
    def chosen(self) -> Key | None:
        """The key of the row under the cursor; None if there are no rows."""
        return self._keys[self._cursor] if self._keys else None

    def show(
        self,
        columns: Sequence[Column[T]],
        items: Sequence[T],
        key: Callable[[T], Key],
        *,
        title: str,
        empty: str,
        age: str,
        sortable: bool = True,
    ) -> None:
        """Show these items; the cursor stays on its row if the row still exists.

        Args:
            key: returns an item's key, which is the same in every reading.
            empty: the text to show when there are no items.
            age: the text to show beside the title when the figures are old; "" when they are not.
            sortable: False to show the items in their own order, although a column is chosen.
        """
        before = self.chosen
        if sortable and self._sorted_by is not None:
            key_of = self._sorts[self._sorted_by]
            items = sorted_items(items, key_of, is_reversed=self._is_reversed)
            columns = marked(columns, self._sorted_by, key_of.descends != self._is_reversed)
        self._columns, self._items, self._keys = columns, items, tuple(map(key, items))
        self._title, self._empty, self._age = title, empty, age
        if self._stays_first or (self._newest_first and not self.has_focus):
            self._cursor = 0
        elif before in self._keys:
            self._cursor = self._keys.index(before)
        self._settle()
        self.refresh()

    def _settle(self) -> None:
        self._cursor = max(min(self._cursor, len(self._keys) - 1), 0)
        room = max(self.room, 1)
        # Keep the cursor visible, and show no empty rows at the end while rows above are hidden.
        self._first = max(self._cursor - room + 1, min(self._first, self._cursor))
        self._first = max(min(self._first, len(self._keys) - room), 0)

    def on_resize(self) -> None:
        self._settle()
        self.post_message(self.Moved())

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def action_move(self, rows: int) -> None:
        self._stays_first = False
        self._cursor += rows
        self._settle()
        self.refresh()
        self.post_message(self.Moved())

    def action_sort(self) -> None:
        """Sort by the next column; after the last column, show the rows in their own order."""
        choices = [None, *self._sorts]
        at = choices.index(self._sorted_by)
        self._sorted_by, self._is_reversed = choices[(at + 1) % len(choices)], False
        self._to_the_first_row()

    def action_reverse(self) -> None:
        self._is_reversed = not self._is_reversed
        self._to_the_first_row()

    def _to_the_first_row(self) -> None:
        # The figures of hidden rows are read only after this, and may move another row to the top.
        # The cursor must then be on that row.
        self._stays_first = True
        self.post_message(self.Moved())

    def action_page(self, pages: int) -> None:
        self.action_move(pages * max(self.room, 1))

    def render(self) -> Text:
        """Title, heading and rows; the focus is visible even without colour."""
        count = f" {self._cursor + 1}/{len(self._keys):,}" if self._keys else ""
        mark = "▶" if self.has_focus else " "
        head = Text(
            f"{mark}{self._title}{count}", style="bold reverse" if self.has_focus else "bold"
        )
        if self._age:
            head.append(f"  {self._age}", style="bold")
        if not self._keys:
            head.append(f"\n  {self._empty}" if self._empty else "")
        else:
            marked = self._items[self._cursor]
            marks: Column[Any] = Column("", lambda item: ">" if item is marked else " ")
            rows = self._items[self._first : self._first + self.room]
            lines = table((marks, *self._columns), rows, width=self.size.width, colour=True)
            body = Text.from_ansi(lines.rstrip("\n"))
            if self._age:
                body = Text(body.plain, style="dim")
            head = Text("\n").join([head, body])
        return head
