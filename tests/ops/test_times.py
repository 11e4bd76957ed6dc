"""Times as Redis holds them, and as people type them."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qctl.errors import UsageError
from qctl.ops.times import parse_time, utc_datetime

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("30s", timedelta(seconds=30)),
        ("10m", timedelta(minutes=10)),
        ("2h", timedelta(hours=2)),
        ("1.5h", timedelta(minutes=90)),
        (" 3d ", timedelta(days=3)),
        ("0s", timedelta()),
        ("2026-01-31T11:00:00Z", timedelta(hours=1)),
        ("2026-01-31T11:00:00+01:00", timedelta(hours=2)),
    ],
)
def test_since(text: str, ago: timedelta) -> None:
    assert parse_time(text, NOW) == NOW - ago


def test_since_without_an_offset_is_local_time() -> None:
    naive = datetime(2026, 1, 31, 11)
    assert parse_time("2026-01-31T11:00", NOW) == naive.astimezone(UTC)


@pytest.mark.parametrize("text", ["", "10", "m", "-5m", "10x", "999999999d", "yesterday", "٣d"])
def test_since_refuses_the_rest(text: str) -> None:
    with pytest.raises(UsageError):
        parse_time(text, NOW)


@given(st.text(max_size=12) | st.from_regex(r"[0-9.]{0,12}[smhd]"))
def test_since_never_crashes(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert parse_time(text, NOW).tzinfo is not None


@pytest.mark.parametrize("epoch_ms", [None, 10**18, -(10**18), float("inf"), float("nan")])
def test_what_no_datetime_can_hold_is_none(epoch_ms: float | None) -> None:
    assert utc_datetime(epoch_ms) is None
    assert utc_datetime(0) == datetime(1970, 1, 1, tzinfo=UTC)
