"""When cron patterns are due, over clock changes too; compared with BullMQ in tests/interop."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from qctl.errors import UsageError
from qctl.wire.cron import next_time_ms

BERLIN = "Europe/Berlin"


def after(pattern: str, tz: str, text: str) -> str:
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(tz))
    due = next_time_ms(pattern, tz, int(moment.timestamp() * 1000))
    assert due is not None
    return datetime.fromtimestamp(due / 1000, ZoneInfo(tz)).isoformat()


@pytest.mark.parametrize(
    ("pattern", "tz", "base", "due"),
    [
        ("*/15 * * * *", "UTC", "2027-01-01T00:14:59", "2027-01-01T00:15:00+00:00"),
        ("*/15 * * * *", "UTC", "2027-01-01T00:15:00", "2027-01-01T00:30:00+00:00"),
        ("*/10 * * * * *", "UTC", "2027-01-01T00:00:05", "2027-01-01T00:00:10+00:00"),
        ("0 9 * * MON-FRI", "Asia/Kolkata", "2027-01-01T10:00", "2027-01-04T09:00:00+05:30"),
        ("0 0 ? * 7", "UTC", "2027-01-01T10:00", "2027-01-03T00:00:00+00:00"),
        ("@daily", "UTC", "2027-01-01T10:00", "2027-01-02T00:00:00+00:00"),
        ("0 0 L * *", "UTC", "2028-02-01T00:00", "2028-02-29T00:00:00+00:00"),
        # Skipped by the clock: as long after the change.
        ("30 2 * * *", BERLIN, "2027-03-27T12:00", "2027-03-28T03:30:00+02:00"),
        ("0 30 2 * * *", BERLIN, "2027-03-27T12:00", "2027-03-28T03:30:00+02:00"),
        ("0 2 * * *", "Australia/Lord_Howe", "2027-10-02T12:00", "2027-10-03T02:30:00+11:00"),
        # Shown twice: due once …
        ("30 2 * * *", BERLIN, "2027-10-31T01:00", "2027-10-31T02:30:00+02:00"),
        ("30 2 * * *", BERLIN, "2027-10-31T02:30:00+02:00", "2027-11-01T02:30:00+01:00"),
        ("30 2 * * *", BERLIN, "2027-10-31T02:10:00+01:00", "2027-11-01T02:30:00+01:00"),
        # … unless every hour is named.
        ("30 * * * *", BERLIN, "2027-10-31T02:30:00+02:00", "2027-10-31T02:30:00+01:00"),
        ("*/20 * * * *", BERLIN, "2027-10-31T02:40:00+02:00", "2027-10-31T02:00:00+01:00"),
        ("*/20 * * * *", BERLIN, "2027-10-31T02:40:00+01:00", "2027-10-31T03:00:00+01:00"),
    ],
)
def test_due(pattern: str, tz: str, base: str, due: str) -> None:
    assert after(pattern, tz, base) == due


def test_the_machines_own_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    from qctl.wire import cron  # noqa: PLC0415

    cron._zone.cache_clear()
    monkeypatch.setenv("TZ", BERLIN)
    noon = int(datetime(2027, 6, 1, tzinfo=ZoneInfo("UTC")).timestamp() * 1000)
    assert next_time_ms("0 12 * * *", None, noon) == noon + 10 * 3_600_000
    cron._zone.cache_clear()


@pytest.mark.parametrize(
    ("pattern", "tz"),
    [
        ("x", "UTC"), ("* * * *", "UTC"), ("61 * * * *", "UTC"), ("0 0 LW * *", "UTC"),
        ("* * * * *", "Mars/Olympus"), ("* * * * *", "../../etc/passwd"), ("", "UTC"),
        ("0 0 30 2 *", "UTC"),
    ],
)  # fmt: skip
def test_not_understood(pattern: str, tz: str) -> None:
    with pytest.raises(UsageError):
        next_time_ms(pattern, tz, 0)
