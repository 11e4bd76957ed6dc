"""Global limits and the deletion of queues, with Node BullMQ 5 and 6."""

from __future__ import annotations

from typing import Any

from qctl.connection.address import Client
from tests.labs.cli import qctl
from tests.labs.node import NodeBull, runs, wait_ended
from tests.labs.servers import wait_until


def set_limits(redis_url: str, *words: str) -> None:
    ran = qctl(redis_url, "queues", "set", "q", *words)
    assert ran.code == 0, ran.err


def most_at_once(client: Client) -> int:
    """How many jobs ran at once, at most."""
    running = most = 0
    for row in runs(client, "q"):
        running += 1 if row["ev"] == "start" else -1
        most = max(most, running)
    return most


def add(bullmq: NodeBull, count: int, **data: Any) -> None:
    bullmq.add_bulk("q", [{"name": "job", "data": data, "opts": {}} for _ in range(count)])


def test_workers_obey_the_global_concurrency(
    redis_url: str, client: Client, bullmq: NodeBull
) -> None:
    add(bullmq, 1)
    assert bullmq.queue("q", "getGlobalConcurrency") is None
    set_limits(redis_url, "--concurrency", "2")
    assert bullmq.queue("q", "getGlobalConcurrency") == 2
    add(bullmq, 11, ms=20)
    for name in ("w1", "w2"):
        bullmq.start_worker("q", name=name, concurrency=5, drainDelay=1)
    wait_ended(client, 12)
    assert most_at_once(client) == 2
    set_limits(redis_url, "--concurrency", "none")
    assert bullmq.queue("q", "getGlobalConcurrency") is None
    client.call("DEL", "runs:q")
    add(bullmq, 8, held=True)
    wait_until(lambda: most_at_once(client) == 8, "all jobs to run at once")
    client.call("SET", "release:q", 1)
    wait_ended(client, 20)


def test_workers_obey_the_global_rate_limit(
    redis_url: str, client: Client, bullmq: NodeBull
) -> None:
    add(bullmq, 6)
    assert bullmq.queue("q", "getGlobalRateLimit") is None
    set_limits(redis_url, "--rate-limit", "4/10m")
    assert bullmq.queue("q", "getGlobalRateLimit") == {"max": 4, "duration": 600_000}
    bullmq.start_worker("q", concurrency=5, drainDelay=1, maximumRateLimitDelay=200)
    wait_ended(client, 4)
    wait_until(lambda: bullmq.queue("q", "getRateLimitTtl") > 0, "the queue to be limited")
    assert bullmq.counts("q")["completed"] == 4
    assert bullmq.counts("q")["waiting"] == 2
    set_limits(redis_url, "--rate-limit", "none")
    assert bullmq.queue("q", "getGlobalRateLimit") is None
    wait_ended(client, 6)


def test_what_bullmq_has_set_is_read_and_removed(
    redis_url: str, client: Client, bullmq: NodeBull
) -> None:
    add(bullmq, 1)
    bullmq.queue("q", "setGlobalConcurrency", 7)
    bullmq.queue("q", "setGlobalRateLimit", 30, 2000)
    ran = qctl(redis_url, "queues", "set", "q", "--concurrency", "none", "--rate-limit", "none")
    assert ran.out.splitlines() == [
        "q: global concurrency none (was 7)",
        "q: global rate limit none (was 30 jobs in 2.0 s)",
    ]
    assert bullmq.queue("q", "getGlobalConcurrency") is None


def test_nothing_of_a_queue_is_left_and_its_neighbour_goes_on(
    redis_url: str, client: Client, bullmq: NodeBull
) -> None:
    """A queue with all that BullMQ makes: flows, schedulers, deduplication, metrics, logs."""
    for name in ("q", "q-2"):
        bullmq.start_worker(name, name=f"w-{name}", metrics={"maxDataPoints": 10})
        bullmq.add(name, {"ms": 1}, deduplication={"id": "once"})
        job_id = bullmq.add(name, {"fail_times": 1}, delay=600_000)
        bullmq.job(name, job_id, "log", "a row")
        bullmq.add(name, {}, priority=3, delay=600_000)
        bullmq.queue(name, "upsertJobScheduler", "daily", {"every": 86_400_000}, {"name": "d"})
        bullmq.add_flow(
            {
                "name": "parent",
                "queueName": name,
                "children": [{"name": "c", "queueName": name, "opts": {"delay": 600_000}}],
            }
        )
        wait_until(lambda name=name: bullmq.counts(name)["completed"] >= 1, "a job to end")
    ran = qctl(redis_url, "queues", "delete", "q", "--yes")
    assert (ran.code, "1 worker is connected to queue q" in ran.err) == (5, True)
    before = bullmq.counts("q-2")
    ran = qctl(redis_url, "queues", "delete", "q", "--yes", "--ignore-workers")
    assert ran.code in {0, 7}, ran.err
    keys = set(client.call("KEYS", "bull:q:*"))
    # Its worker still runs: all that it can write is the time of its stalled check.
    assert keys <= {"bull:q:stalled-check"}
    assert bullmq.counts("q-2") == before
    bullmq.add("q-2", {})
    wait_until(lambda: bullmq.counts("q-2")["completed"] > before["completed"], "it to go on")
    # An app that starts again finds a new queue.
    assert bullmq.add("q", {}) == "1"
    wait_ended(client, 1)
