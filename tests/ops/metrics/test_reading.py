"""Readings for Prometheus: what they hold, how large they get, what they cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.ops.metrics.reading import OTHER, MetricsReading, OwnWorkers, QueueLabels, read_metrics
from qctl.wire.keys import QueueKeys
from qctl.wire.read import heartbeats
from qctl.wire.read.heartbeats import Heartbeat
from qctl.wire.read.snapshot import Counts
from tests.labs.build import Q, put
from tests.labs.clients import Counting
from tests.labs.servers import limited_user

NOWHERE = Path("/nonexistent")
SETTINGS = Settings(pm2_home=NOWHERE, state_home=NOWHERE)


def read(client: Client, labels: QueueLabels | None = None) -> MetricsReading:
    return read_metrics(client, Address(), SETTINGS, labels or QueueLabels())


def fill(client: Client, count: int) -> list[QueueKeys]:
    queues = [QueueKeys("bull", f"q{number:02}") for number in range(count)]
    for keys in queues:
        put(client, "1", keys=keys)
        put(client, "2", "active", keys=keys, lock="t")
    return queues


def test_a_queue(client: Client) -> None:
    put(client, "1")
    put(client, "2", "active")
    put(client, "3", "failed")
    client.call("HSET", Q("meta"), "paused", "1")
    client.call("HSET", Q("metrics:completed"), "count", "7", "prevTS", "1")
    (queue,) = read(client).queues
    assert queue.counts == Counts(1, 1, 1, 0, 0, 0, 0, 1)
    assert (queue.name, queue.queues, queue.paused) == ("q", 1, 1)
    assert queue.oldest_waiting_s is not None
    # No worker keeps the other one: unknown is not none.
    assert (queue.completed_total, queue.failed_total) == (7, None)


def test_a_metrics_key_of_another_type_hides_nothing(client: Client) -> None:
    put(client, "1")
    client.call("SET", Q("metrics:completed"), "x")
    (queue,) = read(client).queues
    assert (queue.counts.waiting, queue.completed_total) == (1, None)


def test_queues_beyond_the_limit_are_summed(client: Client) -> None:
    queues = fill(client, 5)
    client.call("HSET", queues[2]("meta"), "paused", "1")
    for number in (2, 3, 4):
        client.call("HSET", queues[number]("metrics:failed"), "count", number)
    # Of two of them it is unknown how many have completed.
    client.call("HSET", queues[3]("metrics:completed"), "count", "3")
    client.call("HSET", queues[4]("1"), "timestamp", "1600000000000")
    rows = read(client, QueueLabels(2)).queues
    assert [(row.name, row.queues) for row in rows] == [("q00", 1), ("q01", 1), (OTHER.name, 3)]
    rest = rows[-1]
    assert rest.counts == Counts(3, 3, 0, 0, 0, 0, 0, 0)
    assert (rest.paused, rest.completed_total, rest.failed_total) == (1, None, 9)
    assert rest.oldest_waiting_s is not None
    assert rest.oldest_waiting_s > (rows[0].oldest_waiting_s or 0)


def test_a_sum_with_an_unknown_age_is_unknown(client: Client) -> None:
    queues = fill(client, 3)
    assert read(client, QueueLabels(0)).queues[0].oldest_waiting_s is not None
    client.call("HDEL", queues[1]("1"), "timestamp")
    assert read(client, QueueLabels(0)).queues[0].oldest_waiting_s is None


def test_a_queue_keeps_its_name_when_others_come(client: Client) -> None:
    labels = QueueLabels(2)
    fill(client, 2)
    read(client, labels)
    put(client, "1", keys=QueueKeys("bull", "a-first"))
    assert [row.name for row in read(client, labels).queues] == [OTHER.name, "q00", "q01"]


def test_a_queue_that_is_gone_is_forgotten_and_leaves_its_place(client: Client) -> None:
    labels = QueueLabels(2)
    first, second, third = fill(client, 3)
    assert [row.name for row in read(client, labels).queues] == ["q00", "q01", OTHER.name]
    # One that cannot be read is not gone.
    client.call("DEL", second("meta"))
    client.call("SET", second("meta"), "x")
    for key in client.call("KEYS", first("*")):
        client.call("DEL", key)
    assert [row.name for row in read(client, labels).queues] == [OTHER.name]
    assert labels.labels == {second: second, third: OTHER}
    for name in ("new", "newer"):
        put(client, "1", keys=QueueKeys("bull", name))
    assert [(row.name, row.queues) for row in read(client, labels).queues] == [
        ("new", 1),
        (OTHER.name, 2),
    ]
    assert third in labels.labels
    # Nor are they kept when all are gone at once.
    client.call("FLUSHALL")
    assert read(client, labels).queues == ()
    assert labels.labels == {}


def test_the_cost_does_not_depend_on_the_number_of_queues(client: Client) -> None:
    trips = []
    for count in (2, 40):
        fill(client, count)
        counting = Counting(client)
        read_metrics(counting, Address(), SETTINGS, QueueLabels())
        trips.append(len(counting.trips))
    assert trips[0] == trips[1] <= 8


def test_a_broken_queue_does_not_hide_the_others(client: Client) -> None:
    fill(client, 1)
    client.call("SET", "bull:odd:meta", "x")
    reading = read(client)
    assert [row.name for row in reading.queues] == ["q00"]
    assert (reading.up, reading.queues_unreadable) == (True, 1)
    assert "'odd' cannot be read" in reading.remarks[-1]


def test_an_empty_redis_is_up(client: Client) -> None:
    reading = read(client)
    assert (reading.up, reading.queues, reading.queues_unreadable) == (True, (), 0)


@pytest.mark.parametrize("most", [10, 1])
def test_own_workers_by_queue_and_target(client: Client, most: int) -> None:
    fill(client, 2)

    def beat(owner: str, queue: str, process: str, busy: int) -> None:
        row = Heartbeat(owner, "h", 1, process, "bull", queue, "n", 0, 5, busy, False, 10, 2, 0)
        heartbeats.beat(client, row, 0)

    beat("a", "q00", "qctl:w", 1)
    beat("b", "q00", "qctl:w", 2)
    beat("c", "q01", "", 3)
    last = QueueKeys("bull", "q01") if most > 1 else OTHER
    assert set(read(client, QueueLabels(most)).own_workers) == {
        OwnWorkers("q00", "bull", "qctl:w", 2, 10, 3, 24),
        OwnWorkers(last.name, last.prefix, "", 1, 5, 3, 12),
    }
    client.call("HDEL", "qctl:worker:b", "busy", "failed")
    one = next(row for row in read(client, QueueLabels(most)).own_workers if row.target)
    assert (one.workers, one.slots, one.busy, one.done) == (2, 10, None, None)


def test_own_workers_that_may_not_be_seen_are_not_called_absent(
    client: Client, redis_url: str
) -> None:
    put(client, "1", "completed")
    assert read(client).remarks == ()
    with limited_user(client, redis_url, "~bull:*", "+@all") as (_, lowly):
        found = read(lowly)
    assert found.own_workers == ()
    assert "unknown whether qctl's own workers run" in found.remarks[0]
