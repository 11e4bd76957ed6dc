"""The one grammar of durations that people type."""

from __future__ import annotations

import pytest

from qctl.durations import duration_s, parse_duration_s
from qctl.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("10m", 600),
        ("10min", 600),
        ("2h", 7200),
        ("1d", 86_400),
        ("1.5h", 5400),
        (".5", 0.5),
        ("10 m", 600),
        ("90", 90),
        ("2592000000ms", 2_592_000),
    ],
)
def test_a_duration(text: str, seconds: float) -> None:
    assert duration_s(text) == parse_duration_s(f" {text} ", "--x") == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", ".", "m", "-5m", "5x", "1e9", "1h30m", "nan", "inf", "٣d"])
def test_no_duration(text: str) -> None:
    assert duration_s(text) is None
    with pytest.raises(UsageError, match="is not a duration"):
        parse_duration_s(text, "--x")


def test_where_a_number_alone_means_something_else() -> None:
    assert duration_s("90", unit_required=True) is None
    assert duration_s("90s", unit_required=True) == 90


@pytest.mark.parametrize(
    ("text", "problem"), [("0.4", "short"), ("400ms", "short"), ("2h", "long"), ("9" * 400, "long")]
)
def test_a_duration_out_of_bounds(text: str, problem: str) -> None:
    assert parse_duration_s("1m", "--x", min_s=0.5, max_s=3600) == 60
    with pytest.raises(UsageError, match=f"too {problem}"):
        parse_duration_s(text, "--x", min_s=0.5, max_s=3600)
