"""Where a queue's concurrency is limited, the workers share its places, Node's and qctl's."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from qctl import Job
from qctl.connection.address import Client
from qctl.connection.connect import connect
from tests.interop import py_worker as py
from tests.labs.build import Q
from tests.labs.node import NodeBull, runs, wait_ended
from tests.labs.servers import wait_until

py_worker = py.py_worker
JOBS = 60


def holding(rows: Client, who: str, release: asyncio.Event) -> Callable[[Job], Any]:
    """A handler whose first jobs hold their places until it is released."""
    scripted = py.scripted(rows, who)

    async def handler(job: Job) -> Any:
        await release.wait()
        return await scripted(job)

    return handler


def shares(client: Client) -> Counter[str]:
    return Counter(row["worker"] for row in runs(client, "q") if row["ev"] == "end")


def test_a_worker_leaves_places_to_those_that_come_later(
    bullmq: NodeBull, py_worker: py.Starter, client: Client, redis_url: str
) -> None:
    bullmq.queue("q", "setGlobalConcurrency", 3)
    bullmq.add_bulk("q", [{"name": "j", "data": {"ms": 20}} for _ in range(JOBS)])
    release = asyncio.Event()
    with_rows = connect(redis_url)[1]
    first = py_worker(holding(with_rows, "first", release), concurrency=3)
    wait_until(lambda: client.call("LLEN", Q("active")) == 3, "all places to be taken")
    bullmq.start_worker("q", concurrency=3, name="node")
    first.call(release.set)
    wait_ended(client, JOBS)
    with_rows.close()
    found = shares(client)
    assert found.total() == JOBS
    assert min(found["first"], found["node"]) >= JOBS / 5, found


def test_idle_workers_begin_with_a_place_each(
    py_worker: py.Starter, bullmq: NodeBull, client: Client
) -> None:
    bullmq.queue("q", "setGlobalConcurrency", 3)
    workers = [py_worker(concurrency=3, name=name) for name in ("a", "b")]
    assert len(workers) == 2
    bullmq.add_bulk("q", [{"name": "j", "data": {"ms": 20}} for _ in range(JOBS)])
    wait_ended(client, JOBS)
    found = shares(client)
    assert min(found["a"], found["b"]) >= JOBS / 5, found


def test_places_of_a_worker_that_stops_go_to_the_others_at_once(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    """BullMQ writes no marker for them: its workers notice after drainDelay."""
    bullmq.queue("q", "setGlobalConcurrency", 1)
    held = bullmq.add("q", {"ms": 300})
    worker = py_worker(concurrency=1)
    wait_until(lambda: client.call("LLEN", Q("active")) == 1, "the place to be taken")
    py_worker(concurrency=1, drain_delay_s=600)
    waiting = bullmq.add("q")
    worker.stop()
    wait_ended(client, 2, timeout_s=5)
    assert client.call("ZRANGE", Q("completed"), 0, -1) == [held, waiting]
