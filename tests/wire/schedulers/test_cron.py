"""When cron patterns are due, over clock changes too; compared with BullMQ in tests/interop."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from qctl.errors import UsageError
from qctl.wire.schedulers.cron import check_pattern, next_time_ms
from qctl.wire.schedulers.zones import time_zone

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


@pytest.mark.parametrize(
    ("pattern", "due"),
    [
        # Both day fields restricted: either will do.
        ("0 9 */2 * 1-5", "2027-01-03T09:00:00+00:00"),
        ("0 0 1 * */2", "2027-01-03T00:00:00+00:00"),
        ("0 0 1-31 * MON", "2027-01-03T00:00:00+00:00"),
        ("0 0 * * MON#2", "2027-01-11T00:00:00+00:00"),
        ("0 0 20 * FRIL", "2027-01-20T00:00:00+00:00"),
        ("0 0 29 2 *", "2028-02-29T00:00:00+00:00"),
        # What only one version of BullMQ makes is run all the same.
        ("0 0 * * 0,7", "2027-01-03T00:00:00+00:00"),
        ("0 8,13,13 * * *", "2027-01-02T13:00:00+00:00"),
        ("@weekdays", "2027-01-04T00:00:00+00:00"),
        ("12 3 * *", "2027-01-03T12:00:00+00:00"),
    ],
)
def test_days(pattern: str, due: str) -> None:
    assert after(pattern, "UTC", "2027-01-02T12:59") == due


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    time_zone.cache_clear()
    monkeypatch.setenv("TZ", BERLIN)
    yield
    time_zone.cache_clear()


@pytest.mark.usefixtures("in_berlin")
@pytest.mark.parametrize(
    ("tz", "hours"),
    [
        (None, 10), ("local", 10), ("System", 10), ("utc", 12), ("GMT", 12), ("UTC+3", 9),
        ("utc-03:30", 15.5), ("europe/berlin", 10), ("ASIA/KOLKATA", 6.5), ("Etc/GMT+5", 17),
    ],
)  # fmt: skip
def test_zones(tz: str | None, hours: float) -> None:
    midnight = int(datetime(2027, 6, 1, tzinfo=ZoneInfo("UTC")).timestamp() * 1000)
    assert next_time_ms("0 12 * * *", tz, midnight) == midnight + hours * 3_600_000


@pytest.mark.parametrize(
    ("pattern", "tz"),
    [
        ("x", "UTC"), ("61 * * * *", "UTC"), ("0 0 LW * *", "UTC"), ("H * * * *", "UTC"),
        ("* * * * *", "Mars/Olympus"), ("* * * * *", "../../etc/passwd"), ("", "UTC"),
        ("0 0 30 2 *", "UTC"), ("* * * * *", "UTC+24"), ("* * * * *", "+02:00"),
        ("* * * * *", "UTC+2:3"), ("* * * * *", "UTC 3"),
    ],
)  # fmt: skip
def test_not_understood(pattern: str, tz: str) -> None:
    with pytest.raises(UsageError):
        next_time_ms(pattern, tz, 0)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("0 0 * * 0,7", "BullMQ 6"), ("0 8,13,13 * * *", "BullMQ 6"), ("@weekdays", "BullMQ 6"),
        ("* ? * * *", "BullMQ 5"), ("0 0 31 2 MON", "BullMQ 5"), ("* * * *", "4 fields"),
        ("0 0 * * 5-7,0", "BullMQ 6"), ("0 0 1-31 * MON", "differently"),
        ("0 0 1 * */1", "differently"), ("0 0 1 * 1-7", "differently"),
        ("0 0 13 * 5#2", "differently"), ("0 0 * * 2-7/2", "differently"),
        ("H * * * *", "'H'"), ("0 0 * * SUNDAY", "'DAY'"),
    ],
)  # fmt: skip
def test_refused_for_a_new_scheduler(pattern: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_pattern(pattern)
    assert why in str(refused.value.why)


def test_a_day_that_the_only_month_lacks_may_be_in_the_list_twice() -> None:
    check_pattern("3 0 */5,31 9 *")
    with pytest.raises(UsageError):
        check_pattern("3 0 */5,31 9,10 *")
