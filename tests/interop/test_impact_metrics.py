"""BullMQ's own metrics, read as completed jobs by the hour."""

from __future__ import annotations

import time

from qctl.connection.address import Client
from qctl.wire.read.throughput import read_throughput
from tests.labs.build import Q
from tests.labs.node import NodeBull
from tests.labs.servers import wait_until

MINUTE = 60_000


def test_which_minute_a_point_belongs_to(client: Client, bullmq: NodeBull) -> None:
    """Jobs of ten minutes ago, by the clock that the metrics keep, are told to be of then."""
    bullmq.start_worker("q", metrics={"maxDataPoints": 100}, removeOnComplete={"count": 0})
    key = Q("metrics:completed")

    def complete(count: int) -> None:
        before = int(client.call("HGET", key, "count") or 0)
        bullmq.add_bulk("q", [{"name": "job", "data": {}, "opts": {}}] * count)
        wait_until(lambda: client.call("HGET", key, "count") == str(before + count), "the jobs")

    complete(3)
    then = int(time.time() * 1000) - 10 * MINUTE
    client.call("HSET", key, "prevTS", then)
    complete(2)
    hour = then // MINUTE * MINUTE
    (told,) = read_throughput(client, [Q], [hour, hour + 60 * MINUTE])
    assert told.source == "metrics"
    assert told.since_ms == hour
    # The minute that is being counted has not ended; the earlier one is complete.
    assert told.jobs == {hour: 3, hour + 60 * MINUTE: 0}
    (later,) = read_throughput(client, [Q], [hour + MINUTE])
    assert later.jobs == {hour + MINUTE: 0}
