"""A worker goes on with the new master after a failover (a real sentinel, master and replica)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from qctl import AsyncQueue, Job, Worker
from qctl.connection.connect import connect
from qctl.wire.replies import to_dict
from tests.labs.servers import RedisServer, wait_until

JOBS = 40


def test_a_worker_follows_the_new_master(start_redis: Callable[..., RedisServer]) -> None:
    master = start_redis()
    replica = start_redis("--replicaof", "127.0.0.1", str(master.port))
    sentinel = start_redis(sentinel_of={"main": ("127.0.0.1", master.port)})
    url = f"redis+sentinel://127.0.0.1:{sentinel.port}/main/0"
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

    with contextlib.ExitStack() as stack:
        ask = stack.enter_context(
            contextlib.closing(connect(f"redis://127.0.0.1:{sentinel.port}")[1])
        )
        old = stack.enter_context(contextlib.closing(connect(master.url)[1]))
        wait_until(
            lambda: [
                row
                for row in map(to_dict, ask.call("SENTINEL", "REPLICAS", "main"))
                if row["master-link-status"] == "ok"
            ],
            "the sentinel to know the replica",
            timeout_s=30,
        )

        async def main() -> None:
            await worker.start()
            await add_and_wait()
            ask.call("SENTINEL", "FAILOVER", "main")
            async with asyncio.timeout(30):
                while to_dict(ask.call("SENTINEL", "MASTER", "main"))["port"] != str(replica.port):
                    await asyncio.sleep(0.05)
            # As the sentinel would some seconds later, but it would also cut the connections: this
            # way they stay, and are answered READONLY.
            old.call("REPLICAOF", "127.0.0.1", replica.port)
            await add_and_wait()
            await worker.stop()

        asyncio.run(main())
        after = stack.enter_context(contextlib.closing(connect(replica.url)[1]))
        assert after.call("ZCARD", "bull:work:completed") == 2 * JOBS
        assert after.call("LLEN", "bull:work:active") == 0
