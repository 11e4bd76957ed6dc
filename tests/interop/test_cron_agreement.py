"""Cron patterns are due when BullMQ says so, over clock changes too; what differs is listed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from qctl.connect import Client
from qctl.errors import UsageError
from qctl.wire.cron import next_time_ms
from tests.interop.node import NodeBull, NodeError
from tests.wire.build import Q

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
# (pattern, base) → (BullMQ, qctl). A scheduler made within the hour that the clock shows a second
# time: to BullMQ it is the day's first one, to qctl that has been. And a skip of half an hour.
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
