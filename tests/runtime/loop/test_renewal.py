"""Workers of one event loop share the thread that renews locks, and connections."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import pytest

from qctl import Worker
from qctl.connection.address import Client
from qctl.errors import UnreachableError
from qctl.runtime.loop.cancelling import CancelRequests
from qctl.runtime.loop.renewal import RenewalThread
from qctl.wire import scripts
from tests.labs.servers import wait_until

# A lock that is renewed has this TTL again.
TTL_MS = 1000


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "renew locks"]


class Busy:
    """Workers, each with one job that runs until ``may_end`` of its queue is set."""

    def __init__(self, redis_url: str, client: Client, queues: str) -> None:
        self._client = client
        self.may_end = {queue: asyncio.Event() for queue in queues}
        self.workers = [
            Worker(queue, redis_url=redis_url, lock_ttl_s=TTL_MS / 1000) for queue in queues
        ]
        for worker in self.workers:

            @worker.task()
            async def wait(job: Any) -> None:
                await self.may_end[job.queue].wait()

    async def run_jobs(self) -> None:
        for queue in self.may_end:
            self._client.pipeline([
                ("HSET", f"bull:{queue}:1", "name", "x", "opts", "{}"),
                ("LPUSH", f"bull:{queue}:wait", "1"), ("ZADD", f"bull:{queue}:marker", 0, "0"),
            ])  # fmt: skip
        while not all(worker.state().busy for worker in self.workers):
            await asyncio.sleep(0.01)

    async def until_renewed(self, *queues: str) -> None:
        locks = [f"bull:{queue}:1:lock" for queue in queues]
        for lock in locks:
            self._client.call("PEXPIRE", lock, 100 * TTL_MS)
        while any(self._client.call("PTTL", lock) > TTL_MS for lock in locks):
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        for event in self.may_end.values():
            event.set()
        await asyncio.gather(*(worker.stop() for worker in self.workers))


def test_workers_share_a_thread_and_connections(redis_url: str, client: Client) -> None:
    before = client.call("CLIENT", "LIST").count("\n")

    def connections() -> int:
        return int(client.call("CLIENT", "LIST").count("\n")) - before

    async def main() -> None:
        busy = Busy(redis_url, client, "abc")
        for worker in busy.workers:
            await worker.start()
        assert len(threads()) == 1
        # One waits for each worker's markers, and one sends the commands of all.
        while connections() > len(busy.workers) + 1:
            await asyncio.sleep(0.01)
        await busy.run_jobs()
        await busy.until_renewed("a", "b", "c")
        assert connections() == len(busy.workers) + 2
        # The shared connections were the first worker's. The others go on after its end.
        busy.may_end["a"].set()
        await busy.workers.pop(0).stop()
        await busy.until_renewed("b", "c")
        await busy.stop()
        assert [client.call("ZCARD", f"bull:{queue}:completed") for queue in "abc"] == [1, 1, 1]

    asyncio.run(asyncio.wait_for(main(), 30))
    for thread in threads():
        thread.join(10)
    assert not threads()
    wait_until(lambda: connections() == 0, "Redis to notice the end of the connections")


def test_a_lock_that_could_not_be_renewed_counts_as_lost(
    redis_url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each worker, though the first that fails ends the turn; until a renewal succeeds."""
    is_away = False

    def renew(*arguments: Any) -> list[Any]:
        if is_away:
            time.sleep(0.6)
            raise UnreachableError("away")
        return run_all(*arguments)

    async def main() -> None:
        nonlocal is_away
        busy = Busy(redis_url, client, "ab")
        for worker in busy.workers:
            await worker.start()
        await busy.run_jobs()
        jobs = [job for w in busy.workers if w._engine for job in w._engine.in_hand.values()]
        is_away = True
        for queue in "ab":
            # The renewals arrive, and their replies do not.
            client.call("PERSIST", f"bull:{queue}:1:lock")
        while not all(job.lost_lock for job in jobs):
            await asyncio.sleep(0.01)
        assert len(jobs) == 2
        is_away = False
        while any(job.lost_lock for job in jobs):
            await asyncio.sleep(0.01)
        await busy.stop()

    run_all = scripts.run_all
    monkeypatch.setattr(scripts, "run_all", renew)
    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_fault_ends_no_renewal(
    redis_url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = 0
    logged: list[logging.LogRecord] = []

    def look(self: CancelRequests, _: Client) -> None:
        nonlocal faults
        if self._keys.name == "a" and self._in_hand:
            faults += 1
            raise RuntimeError("a fault")

    def broken_filter(record: logging.LogRecord) -> bool:
        if "renewing" in record.getMessage():
            logged.append(record)
            raise ValueError("a fault of the app")
        return True

    def no_thread(_: RenewalThread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        busy = Busy(redis_url, client, "ab")
        with monkeypatch.context() as patch:
            patch.setattr(RenewalThread, "start", no_thread)
            with pytest.raises(RuntimeError, match="new thread"):
                await busy.workers[0].start()
        for worker in busy.workers:
            await worker.start()
        await busy.run_jobs()
        while faults < 3:
            await asyncio.sleep(0.01)
        await busy.until_renewed("a", "b")
        await busy.stop()

    monkeypatch.setattr(CancelRequests, "look", look)
    logging.getLogger("qctl.worker").addFilter(broken_filter)
    try:
        asyncio.run(asyncio.wait_for(main(), 30))
    finally:
        logging.getLogger("qctl.worker").removeFilter(broken_filter)
    (record,) = logged
    assert "queue=a" in record.getMessage()
    assert record.exc_info
