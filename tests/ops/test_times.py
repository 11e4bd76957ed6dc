"""Times as Redis holds them, and as people type them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qctl.errors import UsageError
from qctl.ops.times import local_time_remark, parse_time, utc_datetime

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


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is that of Berlin."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("text", "now", "at", "shown"),
    [
        (
            "03:55",
            "2026-01-31T12:00Z",
            "2026-01-31T02:55Z",
            "2026-01-31 03:55:00 local time (UTC+01:00)",
        ),
        ("3:55", "2026-01-31T12:00Z", "2026-01-31T02:55Z", "2026-01-31 03:55:00"),
        ("03:55:20", "2026-01-31T12:00Z", "2026-01-31T02:55:20Z", "2026-01-31 03:55:20"),
        # It is 13:00 here, so 13:00 is now, and 13:01 was yesterday.
        ("13:00", "2026-01-31T12:00Z", "2026-01-31T12:00Z", "2026-01-31 13:00:00"),
        ("13:01", "2026-01-31T12:00Z", "2026-01-30T12:01Z", "2026-01-30 13:01:00"),
        ("today", "2026-01-31T12:00Z", "2026-01-30T23:00Z", "2026-01-31 00:00:00"),
        ("yesterday", "2026-01-31T12:00Z", "2026-01-29T23:00Z", "2026-01-30 00:00:00"),
        # In UTC it is still the day before.
        ("today", "2026-01-30T23:30Z", "2026-01-30T23:00Z", "2026-01-31 00:00:00"),
        ("00:10", "2026-01-30T23:30Z", "2026-01-30T23:10Z", "2026-01-31 00:10:00"),
        # The clocks go forward at 2:00 on 29 March, and back at 3:00 on 25 October.
        ("01:30", "2026-03-29T12:00Z", "2026-03-29T00:30Z", "local time (UTC+01:00)"),
        ("03:30", "2026-03-29T12:00Z", "2026-03-29T01:30Z", "local time (UTC+02:00)"),
        ("yesterday", "2026-03-29T12:00Z", "2026-03-27T23:00Z", "2026-03-28 00:00:00"),
        ("today", "2026-10-25T12:00Z", "2026-10-24T22:00Z", "local time (UTC+02:00)"),
        ("2026-01-31", "2026-01-31T12:00Z", "2026-01-30T23:00Z", "2026-01-31 00:00:00"),
        ("2026-01-31T11:00", "2026-01-31T12:00Z", "2026-01-31T10:00Z", "2026-01-31 11:00:00"),
        ("2026-01-31T11:00Z", "2026-01-31T12:00Z", "2026-01-31T11:00Z", ""),
        ("2d", "2026-01-31T12:00Z", "2026-01-29T12:00Z", ""),
    ],
)
def test_times_of_local_clocks(text: str, now: str, at: str, shown: str) -> None:
    found = parse_time(text, datetime.fromisoformat(now))
    assert found == datetime.fromisoformat(at)
    remark = local_time_remark(text, found)
    assert (shown in remark) if shown else (remark == "")


def test_the_remark_of_an_event_id_is_empty() -> None:
    assert local_time_remark("1795538247317-0", NOW) == ""


@pytest.mark.parametrize("text", ["24:00", "12:60", "1:2", "12:30:99", "-1:00"])
def test_what_no_clock_shows(text: str) -> None:
    with pytest.raises(UsageError):
        parse_time(text, NOW)


@pytest.mark.parametrize(
    "text", ["", "10", "m", "-5m", "10x", "999999999d", "tomorrow", "Today", "٣d"]
)
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
