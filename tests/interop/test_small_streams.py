"""Queues that keep few events or none: who waits for an event hears it all the same."""

from __future__ import annotations

import pytest

from qctl import Queue
from qctl.connection.address import Client
from qctl.wire.options import Dedup
from qctl.wire.write.adding import NewJob
from tests.interop import py_worker as py
from tests.labs.build import Q
from tests.labs.node import NodeBull, NodeError, event_names
from tests.labs.servers import wait_until

py_worker = py.py_worker
DEDUP = Dedup("d", replace=True)


@pytest.fixture(params=[0, 1])
def few(request: pytest.FixtureRequest, bullmq: NodeBull, client: Client) -> NodeBull:
    """BullMQ 5 and 6 with a queue that keeps so many events."""
    bullmq.queue("q", "waitUntilReady")
    client.call("HSET", Q("meta"), "opts.maxLenEvents", request.param)
    return bullmq


def test_wait_until_finished(few: NodeBull, py_worker: py.Starter, client: Client) -> None:
    few.listen("q")
    py_worker()
    for n in range(10):
        # A lone job, whose end leaves the queue drained.
        assert few.wait_finished("q", few.add("q", {"returns": n, "ms": 30}), timeout_s=5) == n
    for options in ({}, {"attempts": 2, "backoff": 5}):
        failing = few.add("q", {"fail_times": 9, "ms": 30}, **options)
        with pytest.raises(NodeError, match="failed on purpose"):
            few.wait_finished("q", failing, timeout_s=5)
    # The end of a child that releases its parent.
    tree = {
        "name": "parent", "queueName": "q", "data": {"ms": 300},
        "children": [{"name": "child", "queueName": "q", "data": {"ms": 30, "returns": 5}}],
    }  # fmt: skip
    parent = few.add_flow(tree)
    assert few.wait_finished("q", parent["children"][0]["job"]["id"], timeout_s=5) == 5
    few.wait_finished("q", parent["job"]["id"], timeout_s=5)


def test_all_events_of_one_call_are_heard(few: NodeBull, client: Client, redis_url: str) -> None:
    """One blocked reader, as a QueueEvents has it, and calls that write several events."""
    few.listen("q")
    seen = len(few.events("q"))

    def heard(*expected: str) -> None:
        nonlocal seen
        wait_until(lambda: len(event_names(few)) >= seen + len(expected), f"events {expected}")
        assert event_names(few)[seen:] == list(expected)
        seen += len(expected)

    with Queue("q", redis_url=redis_url) as queue:
        queue.add("a")
        heard("added", "waiting")
        queue.add("b", delay=60, dedup=DEDUP)
        heard("added", "delayed")
        queue.add("c", delay=60, dedup=DEDUP)
        heard("removed", "deduplicated", "added", "delayed")
        queue.add("d", priority=1)
        heard("added", "waiting")
        queue.upsert_scheduler("s", cron="0 0 1 1 *")
        heard("added", "delayed")
        queue.remove_scheduler("s")
        heard("removed")
        queue.add_bulk([NewJob("e"), NewJob("f")])
        heard("added", "waiting", "added", "waiting")
