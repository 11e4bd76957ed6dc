"""Cron patterns are due when BullMQ says so, over clock changes too; what differs is listed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from random import Random
from zoneinfo import ZoneInfo, available_timezones

import pytest

from qctl.connection.address import Client
from qctl.errors import UsageError
from qctl.wire.schedulers.cron import check_pattern, next_time_ms
from tests.interop.cron_patterns import random_case
from tests.labs.build import Q
from tests.labs.node import NodeBull, NodeError

BASES = [
    ("Europe/Berlin", "2035-03-24T12:00:00"),
    ("Europe/Berlin", "2035-03-25T01:10:00"),
    ("Europe/Berlin", "2035-03-25T01:59:59"),
    ("Europe/Berlin", "2035-03-25T03:10:00"),
    ("Europe/Berlin", "2035-10-27T12:00:00"),
    ("Europe/Berlin", "2035-10-28T01:10:00"),
    ("Europe/Berlin", "2035-10-28T02:10:00+02:00"),
    ("Europe/Berlin", "2035-10-28T02:50:00+02:00"),
    ("Europe/Berlin", "2035-10-28T02:10:00+01:00"),
    ("Europe/Berlin", "2035-10-28T02:50:00+01:00"),
    ("America/New_York", "2035-03-11T00:10:00"),
    ("America/New_York", "2035-11-04T00:10:00"),
    ("America/New_York", "2035-11-04T01:40:00-04:00"),
    ("Australia/Lord_Howe", "2035-10-06T12:00:00"),
    ("Australia/Lord_Howe", "2035-04-01T01:40:00+11:00"),
    ("Asia/Kolkata", "2035-02-27T05:00:00"),
    ("Pacific/Apia", "2035-12-31T12:00:00"),
    ("UTC", "2035-01-31T23:59:58"),
]
PATTERNS = [
    "* * * * *", "*/5 * * * *", "5/15 * * * *", "0-59/7 * * * *", "0 * * * *", "30 * * * *",
    "30 1 * * *", "0 2 * * *", "30 2 * * *", "0 3 * * *", "15 1,2,3 * * *", "*/20 2 * * *",
    "0 */2 * * *", "0 9-17 * * MON-FRI", "0 0 1 * *", "0 0 L * *", "0 0 31 * *", "0 0 29 2 *",
    "0 12 * * 1-5", "0 0 * * 0", "0 0 * * 7", "0 0 13 * 5", "0 0 1-7 * 1", "0 0 * * 5L",
    "0 0 * * MON#2", "0 0 1 JAN *", "0 9 * JAN-MAR MON", "0 0 ? * 1", "0 0 */2 * *", "@hourly",
    "@daily", "@weekly", "@monthly", "@yearly", "*/10 * * * * *", "0 30 2 * * *", "15 10 3 * * *",
]  # fmt: skip
YEAR_MS = 365 * 86_400_000
# (pattern, base) → (BullMQ, qctl). A scheduler made within the hour that the clock shows a second
# time: to BullMQ it is the day's first one, to qctl that has been. And changes of half an hour.
SECOND_HOUR = "2035-10-28T02:10:00+01:00"
DIFFERENCES = {
    ("30 2 * * *", SECOND_HOUR): ("2035-10-28T02:30:00+01:00", "2035-10-29T02:30:00+01:00"),
    ("0 30 2 * * *", SECOND_HOUR): ("2035-10-28T02:30:00+01:00", "2035-10-29T02:30:00+01:00"),
    ("15 1,2,3 * * *", SECOND_HOUR): ("2035-10-28T02:15:00+01:00", "2035-10-28T03:15:00+01:00"),
    ("*/20 2 * * *", SECOND_HOUR): ("2035-10-28T02:20:00+01:00", "2035-10-29T02:00:00+01:00"),
    ("0 2 * * *", "2035-10-06T12:00:00"):
        ("2035-10-08T02:00:00+11:00", "2035-10-07T02:30:00+11:00"),
    ("*/20 2 * * *", "2035-10-06T12:00:00"):
        ("2035-10-07T02:40:00+11:00", "2035-10-07T02:30:00+11:00"),
    ("30 * * * *", "2035-04-01T01:40:00+11:00"):
        ("2035-04-01T02:30:00+10:30", "2035-04-01T01:30:00+10:30"),
}  # fmt: skip


def shown(due_ms: int | None, tz: str) -> str:
    assert due_ms is not None
    return datetime.fromtimestamp(due_ms / 1000, ZoneInfo(tz)).isoformat()


def test_patterns(node_bull: Callable[..., NodeBull], client: Client) -> None:
    bull = node_bull(6)
    found = {}
    for pattern in PATTERNS:
        for tz, text in BASES:
            base = datetime.fromisoformat(text)
            base_ms = int((base if base.tzinfo else base.replace(tzinfo=ZoneInfo(tz))).timestamp())
            schedule = {"pattern": pattern, "tz": tz, "startDate": base_ms * 1000}
            bull.queue("q", "upsertJobScheduler", f"{pattern}|{text}|{tz}", schedule)
            theirs = int(client.call("ZSCORE", Q("repeat"), f"{pattern}|{text}|{tz}"))
            ours = next_time_ms(pattern, tz, base_ms * 1000)
            if ours != theirs:
                found[pattern, text] = (shown(theirs, tz), shown(ours, tz))
    assert found == DIFFERENCES


@pytest.mark.parametrize(
    "pattern", ["x", "61 * * * *", "0 0 LW * *", "0 22-2 * * *", "0 0 15W * *"]
)
def test_what_neither_understands(
    node_bull: Callable[..., NodeBull], client: Client, pattern: str
) -> None:
    with pytest.raises(NodeError):
        node_bull(6).queue("q", "upsertJobScheduler", "s", {"pattern": pattern})
    with pytest.raises(UsageError):
        next_time_ms(pattern, "UTC", 0)


def test_random_patterns(node_bull: Callable[..., NodeBull], chance: Random) -> None:
    cases = [random_case(chance) for _ in range(800)]
    theirs = {version: node_bull(version).send("cron", cases=cases) for version in (5, 6)}
    wrong = []
    for case, five, six in zip(cases, theirs[5], theirs[6], strict=True):
        pattern, tz, start_ms = case
        due, why = None, ""
        try:
            due = next_time_ms(pattern, tz, start_ms)
            check_pattern(pattern)
        except UsageError as error:
            why = str(error.why)
        # BullMQ 5 does not look further than 27 years.
        agrees = due == six and (due == five or (five is None and due > start_ms + 20 * YEAR_MS))
        # A text is a refusal. Fewer fields are a mistake, and refused though both read them.
        both_read = not isinstance(five, str) and not isinstance(six, str)
        may_refuse = not both_read or len(pattern.split()) < 5 or "differently" in why
        if not (may_refuse if why else agrees):
            wrong.append((case, five, six, due, why))
    assert wrong == []


def test_time_zones(node_bull: Callable[..., NodeBull]) -> None:
    """Not "+0200", which is a zone in Node 24, and none in Node 20."""
    zones = [
        *sorted(available_timezones()), "europe/berlin", "AMERICA/NEW_YORK", "utc", "Gmt", "UTC+3",
        "utc+02:00", "UTC-0:30", "utc+14:00", "local", "system", "LOCAL", "UTC+", "UTC3", "UTC+2:0",
        "Mars/Olympus", "Z", "GMT+3",
    ]  # fmt: skip
    start_ms = 2_000_000_000_000
    cases = [("30 12 * * *", zone, start_ms) for zone in zones]
    theirs = node_bull(6).send("cron", cases=cases)
    wrong = {}
    for zone, due in zip(zones, theirs, strict=True):
        try:
            ours = next_time_ms("30 12 * * *", zone, start_ms)
        except UsageError:
            ours = None
        if ours != (None if isinstance(due, str) else due):
            wrong[zone] = (due, ours)
    assert wrong == {}
