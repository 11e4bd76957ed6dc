"""A failover (a real master, replica and sentinel): a worker goes on with what the new one has."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Callable

from qctl import AsyncQueue, Job, Worker
from qctl.connection.address import Client
from qctl.connection.connect import connect
from tests.labs.replicas import Pair
from tests.labs.servers import RedisServer

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


def test_what_no_replica_has_is_lost_with_the_master(
    start_redis: Callable[..., RedisServer],
) -> None:
    """An acknowledged job is gone, and one whose end was acknowledged runs again."""
    master = start_redis("--repl-diskless-sync-delay", "0")
    replica = start_redis("--replicaof", "127.0.0.1", str(master.port))
    runs: Counter[str] = Counter()
    ends = asyncio.Event()

    async def note(job: Job) -> None:
        runs[job.id] += 1
        await ends.wait()

    def worker_of(url: str) -> Worker:
        worker = Worker("work", redis_url=url, lock_ttl_s=0.4, stalled_interval_s=0.1)
        worker.task("x")(note)
        return worker

    async def until(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)

    async def main(old: Client, new: Client) -> None:
        first = worker_of(master.url)
        await first.start()
        async with AsyncQueue("work", redis_url=master.url) as queue:
            kept = await queue.add("x")
            await until(lambda: runs[kept])
            # WAIT is about the writes of its own connection.
            old.call("SET", "written", 1)
            await until(lambda: old.call("WAIT", 1, 100))
            # From here on, the replica gets nothing, and no acknowledgement waits for it.
            os.kill(replica.pid, signal.SIGSTOP)
            old.call("CLIENT", "KILL", "TYPE", "replica")
            ends.set()
            await until(lambda: old.call("ZCARD", "bull:work:completed") == 1)
            await first.stop()
            lost = await queue.add("x")
        master.kill()
        os.kill(replica.pid, signal.SIGCONT)
        new.call("REPLICAOF", "NO", "ONE")
        assert new.call("LRANGE", "bull:work:active", 0, -1) == [kept]
        assert new.call("EXISTS", f"bull:work:{lost}") == 0
        second = worker_of(replica.url)
        await second.start()
        await until(lambda: new.call("ZRANGE", "bull:work:completed", 0, -1) == [kept])
        await second.stop()
        assert runs == {kept: 2}
        assert new.call("HGET", f"bull:work:{kept}", "stc") == "1"
        # The count of ids is as old as the rest.
        async with AsyncQueue("work", redis_url=replica.url) as queue:
            assert await queue.add("x") == lost

    with (
        contextlib.closing(connect(master.url)[1]) as old,
        contextlib.closing(connect(replica.url)[1]) as new,
    ):
        try:
            asyncio.run(main(old, new))
        finally:
            os.kill(replica.pid, signal.SIGCONT)
