"""Completed jobs by the hour: from the sorted set, or from BullMQ's metrics where they go back
further.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from qctl.connection.address import Client
from qctl.wire.read.stalled_check import read_clocks
from qctl.wire.read.throughput import Throughput, read_throughput
from tests.labs.build import Q

HOUR = 3_600_000
# A whole hour.
BEGIN = 1_700_002_800_000
HOURS = [BEGIN + index * HOUR for index in range(4)]


def complete(client: Client, *times_ms: int) -> None:
    for number, at in enumerate(times_ms):
        client.call("ZADD", Q("completed"), at, f"{at}-{number}")


def metrics(client: Client, previous_ms: int, *points: int) -> None:
    """Per-minute counts, newest first."""
    client.call("HSET", Q("metrics:completed"), "count", 9, "prevTS", previous_ms, "prevCount", 1)
    client.call("RPUSH", Q("metrics:completed:data"), *points)


def read(client: Client, hours: list[int] = HOURS) -> Throughput:
    (found,) = read_throughput(client, [Q], hours)
    return found


def test_kept_jobs_are_counted_in_whole_hours(store: Client) -> None:
    complete(store, BEGIN - 1, BEGIN, BEGIN + HOUR - 1, BEGIN + HOUR, BEGIN + 4 * HOUR)
    told = read(store)
    assert (told.source, told.since_ms) == ("completed", BEGIN - 1)
    assert told.jobs == {HOURS[0]: 2, HOURS[1]: 1, HOURS[2]: 0, HOURS[3]: 0}


def test_an_hour_of_which_a_part_is_gone_does_not_count(store: Client) -> None:
    complete(store, BEGIN + 5)
    assert read(store).jobs == dict.fromkeys(HOURS[1:], 0)


def test_metrics_that_go_back_further(store: Client) -> None:
    complete(store, BEGIN + 3 * HOUR)
    # The head is the minute before that of prevTS; minutes since then had no job.
    metrics(store, BEGIN + 2 * HOUR + 61_000, 5, 7, *[1] * 130)
    told = read(store)
    assert (told.source, told.since_ms) == ("metrics", BEGIN + 2 * HOUR - 131 * 60_000)
    assert told.jobs == {HOURS[0]: 60, HOURS[1]: 59 + 7, HOURS[2]: 5, HOURS[3]: 0}


@pytest.mark.parametrize("points", [(), (1,)])
def test_metrics_that_tell_less_than_the_kept_jobs(store: Client, points: tuple[int, ...]) -> None:
    complete(store, BEGIN)
    if points:
        metrics(store, BEGIN + HOUR, *points)
    assert read(store).source == "completed"


def test_hours_that_begin_at_the_half_hour(store: Client) -> None:
    metrics(store, BEGIN + 2 * HOUR + 60_000, *[1] * 200)
    half = [hour + HOUR // 2 for hour in HOURS[:2]]
    assert read(store, half).jobs == {half[0]: 60, half[1]: 31}


def test_nothing_is_known_of_a_queue_that_keeps_nothing(store: Client) -> None:
    assert read(store) == Throughput(Q, "none", None, {})
    assert read_throughput(store, [], HOURS) == []


def test_several_queues_at_once(store: Client) -> None:
    other = replace(Q, name="other")
    complete(store, BEGIN)
    metrics(store, BEGIN + HOUR, *[2] * 90)
    store.call("ZADD", other("completed"), BEGIN, "1")
    told = read_throughput(store, [other, Q, replace(Q, name="none")], HOURS)
    assert [each.source for each in told] == ["completed", "metrics", "none"]
    assert told[0].jobs[BEGIN] == 1
    assert told[1].jobs[BEGIN] == 120


# The clock of the stalled check


def test_the_clock(store: Client) -> None:
    other = replace(Q, name="other")
    store.call("SET", Q("stalled-check"), "1700000000000", "PX", 9000)
    store.call("SADD", Q("stalled"), "1", "3")
    clock, none = read_clocks(store, [(Q, ["1", "2"]), (other, ["1"])])
    assert (clock.checked_at_ms, clock.marked) == (1_700_000_000_000, {"1"})
    assert 8000 < clock.next_in_ms <= 9000
    assert (none.checked_at_ms, none.next_in_ms, none.marked) == (None, 0, frozenset())
    assert read_clocks(store, []) == []
