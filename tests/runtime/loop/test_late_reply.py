"""A worker reads a reply with jobs so late that it may have lost them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from qctl import Job, Worker
from qctl.connection.address import Client
from tests.labs.build import Q, put
from tests.labs.servers import wait_until

LOCK_S = 1.0


def test_jobs_that_may_be_lost_are_not_started(redis_url: str, client: Client) -> None:
    """As after a pause of the process or of its system: here the event loop is blocked."""
    starts: Counter[str] = Counter()
    worker = Worker(Q.name, redis_url=redis_url, concurrency=3, lock_ttl_s=LOCK_S)

    @worker.task()
    async def run(job: Job) -> None:
        starts[job.id] += 1
        if job.id == "block":
            put(client, "2")
            put(client, "3")
            # The request leaves now, and the reply is read when this handler has ended.
            assert worker._engine is not None
            worker._engine.fetch_again()
            wait_until(lambda: client.call("EXISTS", Q.lock("2")), "Redis to give it a job")
            # Another worker's stalled check puts one of them back when its lock has run out.
            client.call("DEL", Q.lock("2"))
            client.call("LREM", Q("active"), 1, "2")
            client.call("LPUSH", Q("wait"), "2")
            time.sleep(0.6 * LOCK_S)

    async def main() -> None:
        await worker.start()
        put(client, "block")
        client.call("ZADD", Q("marker"), 0, "0")
        async with asyncio.timeout(20):
            while client.call("ZCARD", Q("completed")) < 3:
                await asyncio.sleep(0.01)
        await worker.stop()

    asyncio.run(main())
    assert starts == {"block": 1, "2": 1, "3": 1}
