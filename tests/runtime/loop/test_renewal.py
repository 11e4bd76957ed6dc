"""Workers of one event loop share the thread and the connection that renew locks."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from qctl import Worker
from qctl.connection.address import Client

# A lock that is renewed has this TTL again.
TTL_MS = 1000


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "renew locks"]


def test_idle_workers_share_a_thread_and_busy_ones_a_connection(
    redis_url: str, client: Client
) -> None:
    for queue in "abc":
        client.call("HSET", f"bull:{queue}:1", "name", "x", "opts", "{}")
    before = client.call("CLIENT", "LIST").count("\n")

    def connections() -> int:
        return int(client.call("CLIENT", "LIST").count("\n")) - before

    async def until_renewed(*queues: str) -> None:
        locks = [f"bull:{queue}:1:lock" for queue in queues]
        for lock in locks:
            client.call("PEXPIRE", lock, 100 * TTL_MS)
        while any(client.call("PTTL", lock) > TTL_MS for lock in locks):
            await asyncio.sleep(0.01)

    async def main() -> None:
        may_end = {queue: asyncio.Event() for queue in "abc"}
        workers = [
            Worker(queue, redis_url=redis_url, lock_ttl_s=TTL_MS / 1000) for queue in may_end
        ]
        for worker in workers:

            @worker.task()
            async def wait(job: Any) -> None:
                await may_end[job.queue].wait()

            await worker.start()
        assert len(threads()) == 1
        while connections() > 2 * len(workers):
            await asyncio.sleep(0.01)
        for queue in may_end:
            client.pipeline([
                ("LPUSH", f"bull:{queue}:wait", "1"), ("ZADD", f"bull:{queue}:marker", 0, "0"),
            ])  # fmt: skip
        while not all(worker.state().busy for worker in workers):
            await asyncio.sleep(0.01)
        await until_renewed("a", "b", "c")
        assert connections() == 2 * len(workers) + 1
        # The connection was the first worker's. The others renew after its end, too.
        may_end["a"].set()
        await workers[0].stop()
        await until_renewed("b", "c")
        for event in may_end.values():
            event.set()
        await asyncio.gather(*(worker.stop() for worker in workers[1:]))

    asyncio.run(asyncio.wait_for(main(), 30))
    for thread in threads():
        thread.join(10)
    assert not threads()
    assert connections() == 0
