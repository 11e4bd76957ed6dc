"""Untrusted text is shown on one line, and obeyed by nothing."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qctl.output.text import (
    cells,
    duration,
    folded,
    listed,
    short_count,
    short_duration,
    shortened,
    size,
    visible,
    wrapped,
)
from qctl.plurals import counted

# Every code point, lone surrogates too, and the dangerous ones often.
HOSTILE = st.text(
    st.one_of(
        st.sampled_from("\x00\x07\x08\x1b\r\n\t\x7f\x9b\u200b\u200d\u202e\u2066\ufeff\udc80\u3164"),
        st.characters(codec=None, exclude_categories=()),
    )
)
OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"}


@given(HOSTILE)
def test_nothing_a_terminal_would_obey_or_hide_is_left(text: str) -> None:
    shown = visible(text)
    assert not {unicodedata.category(char) for char in shown} & OBEYED
    assert shown.isprintable()
    shown.encode("utf-8")


@given(HOSTILE)
def test_making_it_visible_twice_changes_nothing_more(text: str) -> None:
    assert visible(visible(text)) == visible(text)


@given(HOSTILE, st.integers(0, 30), st.booleans())
def test_a_width_is_kept(text: str, width: int, keep_end: bool) -> None:
    shown = visible(text)
    cut = shortened(shown, width, keep_end=keep_end)
    assert cells(cut) <= width
    assert cut == shown if cells(shown) <= width else "…" in cut or width == 0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain-name_1", "plain-name_1"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\rc\td", "a\\nb\\rc\\td"),
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        ("a\u200bb", "a\\u200bb"),
        ("a\u00a0b", "a\\xa0b"),
        ("\udcff", "\\udcff"),
        ("\U000e0041", "\\U000e0041"),
        ("\u3164", "\\u3164"),
        ("a\ufe0f", "a\\ufe0f"),
        ("[bold]x[/bold]", "[bold]x[/bold]"),
        ("日本語", "日本語"),
        ("C:\\temp", "C:\\temp"),
    ],
)
def test_examples(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_cutting_in_the_middle_keeps_both_ends() -> None:
    assert shortened("user-data-processing-eu-west-1", 13, keep_end=True) == "user-d…west-1"
    assert shortened("user-data-processing-eu-west-1", 13) == "user-data-pr…"


def test_wide_characters_take_two_cells() -> None:
    assert cells("日本") == 4
    assert cells("e\u0301") == 1
    assert shortened("日本語", 4) == "日…"


@pytest.mark.parametrize(
    ("seconds", "long", "short"),
    [
        (0, "0.0 s", "0s"),
        (0.44, "0.4 s", "0s"),
        (3.21, "3.2 s", "3s"),
        (9.96, "10 s", "10s"),
        (42, "42 s", "42s"),
        (59.7, "1 min", "1m"),
        (250, "4 min 10 s", "4m10s"),
        (7500, "2 h 5 min", "2h5m"),
        (3600, "1 h", "1h"),
        (273_600, "3 d 4 h", "3d4h"),
        (-5, "-5.0 s", "0s"),
    ],
)
def test_durations(seconds: float, long: str, short: str) -> None:
    assert duration(seconds) == long
    assert short_duration(seconds) == short


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (9_999, "9,999"),
        (10_000, "10.0k"),
        (123_456, "123k"),
        (999_600, "1.0M"),
        (1_234_567, "1.2M"),
    ],
)
def test_short_counts_take_five_cells(number: int, text: str) -> None:
    assert short_count(number) == text
    assert len(text) <= 5


def test_a_list_counts_the_names_that_it_does_not_show() -> None:
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"
    assert listed(["a", "b", "c"], total=10) == "a, b, c and 7 more"


def test_counted_and_size() -> None:
    assert counted(1, "job") == "1 job"
    assert counted(1200, "job") == "1,200 jobs"
    assert counted(2, "retry", "retries") == "2 retries"
    assert size(512) == "512 B"
    assert size(1536) == "1.5 KiB"
    assert size(97_500_000) == "93 MiB"


@given(st.text(alphabet="ab 名\u0301", max_size=60), st.integers(4, 30), st.booleans())
def test_folding_keeps_every_character(text: str, width: int, keep_indent: bool) -> None:
    lines = [*folded(text, width, keep_indent=keep_indent)]
    assert all(cells(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_a_number_keeps_its_unit_beside_it() -> None:
    text = "after 1.5 s to 4.5 s, 12 % or 3 jobs"
    assert [*wrapped(text, 14)] == ["after 1.5 s to", "4.5 s, 12 % or", "3 jobs"]
    assert [*wrapped(text, 12)] == ["after 1.5 s", "to 4.5 s,", "12 % or 3", "jobs"]
    assert [*wrapped("", 5)] == [""]
