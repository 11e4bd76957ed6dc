"""A worker goes on with the new master after a failover (a real sentinel, master and replica)."""

from __future__ import annotations

import asyncio
import contextlib

from qctl import AsyncQueue, Job, Worker
from qctl.connection.connect import connect
from tests.labs.replicas import Pair

JOBS = 40


def test_a_worker_follows_the_new_master(pair: Pair) -> None:
    url = pair.url
    worker = Worker("work", redis_url=url, concurrency=4, drain_delay_s=0.5)
    ran: list[str] = []

    @worker.task()
    async def note(job: Job) -> None:
        await asyncio.sleep(0.005)
        ran.append(job.id)

    async def add_and_wait() -> None:
        async with AsyncQueue("work", redis_url=url) as queue:
            added = [await queue.add("x") for _ in range(JOBS)]
        async with asyncio.timeout(30):
            while not set(added) <= set(ran):
                await asyncio.sleep(0.01)

    async def main() -> None:
        await worker.start()
        await add_and_wait()
        await asyncio.to_thread(pair.fail_over)
        # As the sentinel would some seconds later, but it would also cut the connections: this way
        # they stay, and are answered READONLY.
        with contextlib.closing(connect(pair.master.url)[1]) as old:
            old.call("REPLICAOF", "127.0.0.1", pair.replica.port)
        await add_and_wait()
        await worker.stop()

    asyncio.run(main())
    with contextlib.closing(connect(pair.replica.url)[1]) as after:
        assert after.call("ZCARD", "bull:work:completed") == 2 * JOBS
        assert after.call("LLEN", "bull:work:active") == 0
