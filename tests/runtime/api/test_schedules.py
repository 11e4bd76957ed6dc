"""``Worker.cron`` and ``Worker.every``: what is refused, and what a start does to schedulers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from qctl import Job, Queue, Worker
from qctl.connection.address import Client
from qctl.errors import UsageError
from qctl.runtime.api import schedules
from qctl.testing import FakeQueues, run_until_idle
from qctl.wire.schedulers.scheduling import Scheduler
from tests.labs.build import Q, job, row, scores
from tests.labs.schedules import at

HERE = __name__.partition(".")[0]


async def poll(job: Job) -> None:
    """A handler."""


def worker_with(*decorators: Callable[[Worker], Callable[..., Any]], **options: Any) -> Worker:
    """A worker of queue ``q`` with one handler for each decorator."""
    worker = Worker("q", prefix="bull", **options)
    for number, decorator in enumerate(decorators):

        async def handler(job: Job) -> None: ...

        handler.__name__ = f"task{number}"
        decorator(worker)(handler)
    return worker


def start(store: Client, worker: Worker) -> dict[str, Scheduler]:
    """Do what a start of the worker does to the schedulers; return them all."""
    schedules.apply(
        store, Q, worker._schedules.values(), packages={HERE}, prune=worker._prune_schedules
    )
    return {each.id: each for each in Queue("q", prefix="bull", client=store).schedulers()}


def test_a_schedule_names_its_task() -> None:
    worker = Worker("q")

    @worker.cron("0 7 * * 1-5", tz="Europe/Berlin", data={"to": "all"}, attempts=3)
    async def digest(job: Job) -> str:
        return job.name

    @worker.cron("0 19 * * *", scheduler_id="evening")
    @worker.every(timedelta(minutes=5))
    @worker.task("fetch", timeout_s=10)
    async def fetch_all(job: Job) -> str:
        return job.name

    assert set(worker._tasks) == {"digest", "fetch"}
    names = {each.scheduler_id: each.name for each in worker._schedules.values()}
    assert names == {"digest": "digest", "fetch": "fetch", "evening": "fetch"}
    # In a test, they are tasks like all others, and nothing runs by itself.
    jobs = run_until_idle(worker, [("digest", None), ("fetch", {})])
    assert [outcome.returnvalue for outcome in jobs] == ["digest", "fetch"]
    with FakeQueues() as fake:
        fake.run(worker)
        assert fake.queue("q").schedulers() == []


@pytest.mark.parametrize(
    ("decorate", "reason"),
    [
        (lambda w: w.cron("61 * * * *"), "values are 0 to 59"),
        (lambda w: w.cron("0 7 30 2 *"), "no such day"),
        (lambda w: w.cron("@weekdays"), "only BullMQ 6"),
        (lambda w: w.cron("0 7 * * *", tz="Europe/Berlim"), "no time zone"),
        (lambda w: w.cron(poll), "must be a text"),
        (lambda w: w.every(poll), "an interval in seconds"),
        (lambda w: w.every(0), "1 ms or more"),
        (lambda w: w.every("30s"), "a number of seconds"),
        (lambda w: w.every(30, attempts=-1), "attempts"),
        (lambda w: w.every(30, delay=5), "delay"),
        (lambda w: w.every(30, data={1, 2}), "not JSON"),
        (lambda w: w.every(30, scheduler_id="")(poll), "not empty"),
        (lambda w: w.every(30)(w.every(60)(poll)), "two schedules"),
    ],
)
def test_what_is_wrong_is_refused_at_registration(
    decorate: Callable[[Worker], Any], reason: str
) -> None:
    with pytest.raises(UsageError) as caught:
        decorate(Worker("q"))
    assert reason in f"{caught.value.what} {caught.value.why}"


def test_a_start_leaves_an_unchanged_schedule_alone(store: Client) -> None:
    worker = worker_with(
        lambda w: w.every(60, data={"n": 1}, attempts=2), lambda w: w.cron("0 3 * * *", tz="UTC")
    )
    start(store, worker)
    due = int(time.time() * 1000) - 5000
    # Both are overdue: the workers were away.
    ids = [at(store, "task0", due), at(store, "task1", due)]
    seen = (scores(store, "repeat"), [job(store, each) for each in ids])
    assert set(start(store, worker)) == {"task0", "task1"}
    assert (scores(store, "repeat"), [job(store, each) for each in ids]) == seen
    assert set(scores(store, "delayed")) == set(ids)


def test_a_start_applies_what_has_changed(store: Client) -> None:
    start(store, worker_with(lambda w: w.cron("0 3 * * *", tz="UTC")))
    due = int(time.time() * 1000) - 5000
    at(store, "task0", due)
    # The job that is due keeps its time, unlike its options.
    found = start(store, worker_with(lambda w: w.cron("0 3 * * *", tz="UTC", attempts=5)))
    assert found["task0"].next_ms == due
    assert '"attempts":5' in job(store, f"repeat:task0:{due}")["opts"]
    assert row(store, "wait") == [f"repeat:task0:{due}"]
    found = start(store, worker_with(lambda w: w.cron("0 4 * * *", tz="UTC")))
    assert found["task0"].cron == "0 4 * * *"
    assert (found["task0"].next_ms or 0) > time.time() * 1000
    assert row(store, "wait") == []
    assert len(scores(store, "delayed")) == 1


def test_only_schedulers_of_this_code_are_reported_and_removed(
    store: Client, caplog: pytest.LogCaptureFixture
) -> None:
    start(store, worker_with(lambda w: w.every(60), lambda w: w.every(90)))
    queue = Queue("q", prefix="bull", client=store)
    queue.upsert_scheduler("by-hand", every=60, name="task0")
    # A producer has taken this one over.
    queue.upsert_scheduler("task0", every=60)
    store.call("HSET", Q.scheduler("by-hand"), "qctl", "otherapp")
    fewer = worker_with(lambda w: w.every(30, scheduler_id="x"))
    with caplog.at_level(logging.WARNING, "qctl"):
        assert set(start(store, fewer)) == {"task0", "task1", "by-hand", "x"}
    (line,) = [record.getMessage() for record in caplog.records]
    assert "qctl schedules remove q task1" in line
    pruning = worker_with(lambda w: w.every(30, scheduler_id="x"), prune_schedules=True)
    assert set(start(store, pruning)) == {"task0", "by-hand", "x"}
    # Its first job waits already, and stays.
    assert [each for each in row(store, "wait") if "task1" in each] != []


def test_a_refused_schedule_does_not_stop_the_worker(
    store: Client, caplog: pytest.LogCaptureFixture
) -> None:
    store.call("SET", Q("repeat"), "x")
    with caplog.at_level(logging.ERROR, "qctl"):
        schedules.apply(
            store, Q, worker_with(lambda w: w.every(60))._schedules.values(),
            packages={HERE}, prune=True,
        )  # fmt: skip
    assert [record.getMessage().split(" queue")[0] for record in caplog.records] == [
        "schedule not stored",
        "schedulers not read",
    ]


def test_workers_that_start_together_make_one_job(redis_url: str, client: Client) -> None:
    ran: list[str] = []

    def new_worker() -> Worker:
        worker = Worker("q", redis_url=redis_url, prefix="bull")

        @worker.every(3600)
        async def tick(job: Job) -> None:
            ran.append(job.id)

        return worker

    async def run() -> None:
        workers = [new_worker() for _ in range(6)]
        await asyncio.gather(*(worker.start() for worker in workers))
        while not ran or client.call("ZCARD", Q("delayed")) != 1:
            await asyncio.sleep(0.01)
        await asyncio.gather(*(worker.wait_until_idle() for worker in workers))
        await asyncio.gather(*(worker.stop() for worker in workers))

    asyncio.run(run())
    assert len(ran) == 1
    (pending,) = scores(client, "delayed")
    next_ms = scores(client, "repeat")["tick"]
    assert pending == f"repeat:tick:{next_ms}"
    asyncio.run(run_once(new_worker()))
    assert len(ran) == 1
    assert scores(client, "repeat") == {"tick": next_ms}


async def run_once(worker: Worker) -> None:
    await worker.start()
    await worker.wait_until_idle()
    await worker.stop()
