"""Redis goes away, comes back, loses replies, refuses: no job is lost, and none runs twice."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest.mock import AsyncMock

import pytest

from qctl import Job, Queue, RetryLater, Worker
from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import ReplyError, UnreachableError
from qctl.runtime.logs import Log
from qctl.runtime.loop.recovery import Recovery
from qctl.wire.keys import QueueKeys
from qctl.wire.write.adding import NewJob
from tests.labs.proxy import LossyProxy
from tests.labs.servers import RedisServer, free_port

Q = QueueKeys("bull", "q")
AOF = ("--appendonly", "yes", "--appendfsync", "always")


class Counting:
    """A worker that counts what its handler runs, in this process and not in Redis."""

    def __init__(self, url: str, **options: Any) -> None:
        self.runs: Counter[str] = Counter()
        self.worker = Worker("q", redis_url=url, **options)
        self.worker.task("work")(self.work)
        self.worker.task("fail")(self.fail)
        self.worker.task("later")(self.later)

    async def work(self, job: Job) -> int:
        self.runs[job.id] += 1
        await asyncio.sleep(random.random() * 0.004)
        return 1

    async def fail(self, job: Job) -> None:
        self.runs[job.id] += 1
        raise RuntimeError("as told")

    async def later(self, job: Job) -> None:
        self.runs[job.id] += 1
        if self.runs[job.id] == 1:
            raise RetryLater(0.01)


def add(url: str, count: int, *, names: tuple[str, ...] = ("work",)) -> list[str]:
    with Queue("q", redis_url=url) as queue:
        return queue.add_bulk([NewJob(names[n % len(names)], {"n": n}) for n in range(count)])


async def all_ended(client: Client, count: int) -> None:
    async with asyncio.timeout(20):
        while True:
            ended = [client.call("ZCARD", Q(state)) for state in ("completed", "failed")]
            if sum(ended) == count:
                return
            await asyncio.sleep(0.02)


def assert_clean(client: Client, ids: list[str]) -> None:
    places = ("wait", "active", "delayed", "prioritized")
    assert client.call("EXISTS", *map(Q, places), *map(Q.lock, ids)) == 0


def test_a_lost_reply_costs_neither_a_job_nor_a_second_run(
    redis_server: RedisServer, redis_url: str, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    ids = add(redis_url, 400)
    # The script itself is told in the first.
    lose = dict(zip(range(2, 40, 3), ["reply", "request"] * 8, strict=False))

    async def main() -> Counter[str]:
        async with LossyProxy(redis_server.port, lose) as proxy:
            # Only a reclaim at once explains that all end in time: no lock runs out in the test.
            counting = Counting(proxy.url, concurrency=20)
            await counting.worker.start()
            await all_ended(client, len(ids))
            await counting.worker.stop()
            assert proxy.steps > max(lose)
            return counting.runs

    runs = asyncio.run(main())
    assert runs == Counter(ids)
    assert_clean(client, ids)
    texts = [vars(record).get("qctl_message") for record in caplog.records]
    assert "the reply to a fetch was lost: giving jobs back" in texts
    # What had been settled when the reply was lost is no error.
    assert "result not stored" not in texts


@pytest.mark.parametrize("concurrency", [1, 25])
def test_a_restart_of_redis_costs_neither_a_job_nor_a_second_run(
    start_redis: Callable[..., RedisServer], concurrency: int
) -> None:
    server = start_redis(*AOF)
    ids = add(server.url, 300, names=("work", "work", "fail", "later"))

    async def main() -> Counter[str]:
        counting = Counting(server.url, concurrency=concurrency)
        await counting.worker.start()
        for _ in range(2):
            await asyncio.sleep(0.1)
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(0.05)
            await asyncio.to_thread(server.start)
        client = connect(server.url)[1]
        await all_ended(client, len(ids))
        await counting.worker.stop()
        assert_clean(client, ids)
        assert client.call("ZCARD", Q("failed")) == len(ids) // 4
        client.close()
        return counting.runs

    runs = asyncio.run(main())
    assert runs == Counter(ids) + Counter(ids[3::4])


def test_a_worker_that_was_busy_while_redis_restarted_goes_on(
    start_redis: Callable[..., RedisServer],
) -> None:
    """No step was under way that could have noticed."""
    server = start_redis(*AOF)
    add(server.url, 3)
    go_on = asyncio.Event()
    worker = Worker("q", redis_url=server.url, drain_delay_s=120, stalled_interval_s=120)

    @worker.task()
    async def wait(_: Job) -> None:
        await go_on.wait()

    async def main() -> None:
        await worker.start()
        while not worker.state().busy:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        go_on.set()
        client = connect(server.url)[1]
        await all_ended(client, 3)
        client.close()
        await worker.stop()

    asyncio.run(main())


def test_a_redis_that_refuses_is_asked_again_but_not_in_a_frenzy(
    start_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = start_redis()
    ids = add(server.url, 20)

    async def main() -> int:
        client = connect(server.url)[1]
        counting = Counting(server.url, concurrency=5)
        # As after a failover, when the connection stays with what is a replica now.
        client.call("REPLICAOF", "127.0.0.1", free_port())
        await counting.worker.start()
        await asyncio.sleep(0.6)
        errors = client.call("INFO", "errorstats")
        refused = int(errors.split("errorstat_READONLY:count=")[1].split()[0])
        client.call("REPLICAOF", "NO", "ONE")
        await all_ended(client, len(ids))
        await counting.worker.stop()
        client.close()
        assert counting.runs == Counter(ids)
        return refused

    assert 1 <= asyncio.run(main()) < 30
    refusals = [r for r in caplog.records if "answers" in r.getMessage()]
    assert len(refusals) == 1


def test_an_end_that_redis_refuses_for_a_time_is_stored_later(
    start_redis: Callable[..., RedisServer],
) -> None:
    server = start_redis()
    add(server.url, 2, names=("fail", "later"))
    go_on = asyncio.Event()
    worker = Worker("q", redis_url=server.url, concurrency=2, stalled_interval_s=120)

    @worker.task("fail")
    async def fail(_: Job) -> None:
        await go_on.wait()
        raise RuntimeError("as told")

    @worker.task("later")
    async def later(job: Job) -> int:
        await go_on.wait()
        if job.attempts_started == 1:
            raise RetryLater(0.01)
        return 1

    async def main() -> None:
        client = connect(server.url)[1]
        await worker.start()
        while worker.state().busy < 2:
            await asyncio.sleep(0.01)
        client.call("REPLICAOF", "127.0.0.1", free_port())
        go_on.set()
        await asyncio.sleep(0.3)
        client.call("REPLICAOF", "NO", "ONE")
        await all_ended(client, 2)
        await worker.stop()
        assert client.call("HGET", Q("1"), "failedReason") == "as told"
        assert client.call("HGET", Q("2"), "ats") == "2"
        client.close()

    asyncio.run(main())


def test_scripts_that_redis_forgot_are_sent_again(redis_url: str, client: Client) -> None:
    async def main() -> None:
        counting = Counting(redis_url, concurrency=5)
        await counting.worker.start()
        for turn in range(3):
            client.call("SCRIPT", "FLUSH")
            add(redis_url, 10, names=("work", "fail", "later"))
            await all_ended(client, 10 * (turn + 1))
        await counting.worker.stop()

    asyncio.run(main())


def test_a_deleted_queue_does_not_end_a_worker(
    redis_url: str, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        counting = Counting(redis_url, concurrency=5)
        await counting.worker.start()
        add(redis_url, 200)
        await asyncio.sleep(0.02)
        client.call("FLUSHALL")
        await counting.worker.wait_until_idle()
        add(redis_url, 10)
        await all_ended(client, 10)
        await counting.worker.stop()

    asyncio.run(main())
    assert "the job no longer exists" in str([vars(record) for record in caplog.records])


def test_a_worker_stops_while_redis_is_away(
    start_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = start_redis()
    add(server.url, 50)

    async def main() -> float:
        counting = Counting(server.url, concurrency=5)
        await counting.worker.start()
        await asyncio.sleep(0.02)
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(0.1)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await counting.worker.stop(0.1)
        assert not [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        return loop.time() - began

    caplog.set_level(logging.INFO)
    assert asyncio.run(main()) < 10


def test_a_worker_without_redis_does_not_start() -> None:
    async def main() -> None:
        counting = Counting(f"redis://127.0.0.1:{free_port()}")
        with pytest.raises(UnreachableError):
            await counting.worker.start()
        assert not [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]

    asyncio.run(main())


def test_an_outage_and_an_error_reply_are_logged_as_what_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "qctl")
    connection = AsyncMock()
    connection.call.side_effect = [UnreachableError("gone"), ReplyError("NOPERM no"), None]

    async def main() -> None:
        done = asyncio.Event()
        log = Log("worker")
        recovery = Recovery(Q, connection, log, owner="o", in_hand={}, on_recovered=done.set)
        recovery.begin([], None)
        await asyncio.wait_for(done.wait(), 10)

    asyncio.run(main())
    away, error, back = (record.getMessage() for record in caplog.records)
    assert ("away" in away, "away" in error, "NOPERM" in error) == (True, False, True)
    assert "again" in back
