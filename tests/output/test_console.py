"""Tables fit the terminal, lose no row, and show untrusted text harmlessly."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qctl.output.console import Cell, Column, Value, styled, table
from qctl.output.text import cells

COLUMNS: tuple[Column[Sequence[Value]], ...] = (
    Column("NAME", itemgetter(0), keep_end=True),
    Column("STATE", itemgetter(1)),
    Column("WAITING", itemgetter(2), right=True, short="WAIT"),
    Column("DELAYED", itemgetter(3), right=True, short="DELAY", optional=True),
)


def test_numbers_are_grouped_and_to_the_right() -> None:
    assert table(COLUMNS, [["a", "ok", 1234, 0], ["bb", None, 5, 7]]).splitlines() == [
        "NAME  STATE  WAITING  DELAYED",
        "a     ok       1,234        0",
        "bb    -            5        7",
    ]


def test_optional_columns_without_content_go_first_and_are_named() -> None:
    lines = table(COLUMNS, [["a", "ok", 1234, 0]], width=25).splitlines()
    assert lines == ["NAME  STATE  WAITING", "a     ok       1,234", "(none: delayed)"]


def test_optional_columns_with_content_stay() -> None:
    assert "DELAY" in table(COLUMNS, [["a", "ok", 1234, 0], ["b", "ok", 1, 3]], width=20)


def test_counts_and_headings_are_shortened_next() -> None:
    lines = table(COLUMNS, [["a", "ok", 123_456, 3]], width=26).splitlines()
    assert lines == ["NAME  STATE  WAIT  DELAY", "a     ok     123k      3"]


def test_a_long_name_keeps_both_ends() -> None:
    rows: list[list[Value]] = [["user-data-processing-europe-west-1", "ok", 1, 1]]
    line = table(COLUMNS, rows, width=40).splitlines()[1]
    assert line.startswith("user-d")
    assert "…" in line
    assert "west-1 " in line


def test_without_a_terminal_nothing_is_cut() -> None:
    name = "n" * 300
    assert name in table(COLUMNS, [[name, "ok", 123_456_789, 0]])


def test_styles_only_in_colour() -> None:
    rows = [[Cell("a", "red"), "ok", 1, 1]]
    assert "\x1b" not in table(COLUMNS, rows)
    coloured = table(COLUMNS, rows, colour=True)
    assert "\x1b[31ma\x1b[0m" in coloured
    assert "\x1b[1mNAME\x1b[0m" in coloured
    assert styled("a", "red", colour=False) == styled("a", "", colour=True) == "a"


def test_wide_characters_are_aligned() -> None:
    lines = table(COLUMNS, [["日本", "ok", 1, 1], ["abcd", "ok", 1, 1]]).splitlines()
    assert len({cells(line) for line in lines}) == 1


NAMES = st.text(st.characters(codec=None, exclude_categories=()), max_size=60)


@given(
    st.lists(st.tuples(NAMES, NAMES, st.integers(0, 10**12), st.integers(0, 10**6)), max_size=8),
    st.integers(44, 200),
)
def test_every_line_fits_and_every_row_is_there(
    rows: list[tuple[str, str, int, int]], width: int
) -> None:
    lines = table(COLUMNS, rows, width=width).split("\n")
    assert lines.pop() == ""
    assert all(cells(line) <= width for line in lines)
    assert all(line.isprintable() for line in lines)
    body = [line for line in lines[1:] if not line.startswith("(none: ")]
    assert len(body) >= len(rows)
    assert len(lines) <= len(rows) + 2


@pytest.mark.parametrize("rows", [[], [["", "", 0, 0]]])
def test_empty_tables_do_not_fail(rows: list[list[Value]]) -> None:
    assert table(COLUMNS, rows, width=10).startswith("NAME")
