"""Handles: the id as text, and results, states and changes of the job."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import NotFoundError, RefusedError, UsageError
from qctl.runtime.api.handle import AsyncJobHandle, JobHandle
from qctl.runtime.api.queue import AsyncQueue, Queue
from qctl.runtime.api.results import JobFailedError, JobRemovedError, ResultTimeoutError
from qctl.runtime.api.worker import Worker
from qctl.runtime.job.job import Job
from qctl.runtime.job.outcomes import UnrecoverableError
from qctl.wire.options import Backoff, Parent
from qctl.wire.write.adding import NewJob
from tests.labs.build import Q, job, put
from tests.labs.forks import exit_code, forked
from tests.labs.servers import wait_for_readers, wait_until


def a_worker(url: str, gate: asyncio.Event) -> Worker:
    worker = Worker("q", redis_url=url, prefix="bull", concurrency=5)

    @worker.task("double")
    async def double(job: Job) -> int:
        return int(job.data) * 2

    @worker.task("gated")
    async def gated(_: Job) -> str:
        await gate.wait()
        return "at last"

    @worker.task("flaky")
    async def flaky(job: Job) -> str:
        if not job.attempts_made:
            raise ConnectionError("no answer")
        raise UnrecoverableError("no such card")

    return worker


def with_a_worker(url: str, use: Callable[[AsyncQueue, asyncio.Event], Awaitable[Any]]) -> None:
    async def run() -> None:
        gate = asyncio.Event()
        worker = a_worker(url, gate)
        await worker.start()
        try:
            async with asyncio.timeout(30), AsyncQueue("q", redis_url=url, prefix="bull") as queue:
                await use(queue, gate)
        finally:
            await worker.stop(0.1)

    asyncio.run(run())


def test_a_handle_is_the_ids_text(redis_url: str, client: Client) -> None:
    with Queue("q", redis_url=redis_url, prefix="bull") as queue:
        handle, *more = queue.add_bulk([NewJob("a", n) for n in range(3)])
        assert isinstance(handle, JobHandle)
        assert more == ["2", "3"]
        assert isinstance(queue.handle("77"), JobHandle)
        assert (f"{handle}", repr(handle), hash(handle)) == ("1", "'1'", hash("1"))
        assert json.dumps({handle: [handle]}) == '{"1": ["1"]}'
        assert {"1": "found"}[handle] == "found"
        # As an argument of a Redis command, here and on an event loop.
        assert client.call("HGET", Q(handle), "name") == "a"
        assert client.call("ECHO", handle) == "1"
        for plain in (pickle.loads(pickle.dumps(handle)), copy.deepcopy(handle)):  # noqa: S301
            assert plain == "1"
            assert type(plain) is str

    async def use() -> None:
        async with AsyncQueue("q", redis_url=redis_url, prefix="bull") as queue:
            handle = await queue.add("a")
            assert isinstance(handle, AsyncJobHandle)
            assert isinstance(queue.handle("77"), AsyncJobHandle)
            assert json.dumps(handle) == '"4"'
            child = await queue.add("a", parent=Parent(handle, "q"))
            assert json.loads(job(client, child)["parent"])["id"] == "4"
            assert type(pickle.loads(pickle.dumps(handle))) is str  # noqa: S301

    asyncio.run(use())


def test_results(redis_url: str, client: Client) -> None:
    async def use(queue: AsyncQueue, gate: asyncio.Event) -> None:
        # Ended before the call; at the time of the call; and many at once over one connection.
        early = await queue.add("double", 21)
        assert await early.result(10) == 42
        assert await early.result(0) == 42
        many = await queue.add_bulk([NewJob("double", n) for n in range(200)])
        assert await asyncio.gather(*(one.result(20) for one in many)) == [
            2 * n for n in range(200)
        ]
        # Removed on completion: before the call, and during it.
        gone = await queue.add("double", 4, remove_on_complete=True)
        await asyncio.to_thread(
            wait_until, lambda: not client.call("EXISTS", Q(gone)), "the job to go"
        )
        assert await gone.result(10) == 8
        gated = await queue.add("gated", remove_on_complete=True)
        with pytest.raises(ResultTimeoutError) as late:
            await gated.result(0.05)
        assert isinstance(late.value, TimeoutError)
        assert "active" in late.value.why
        with Queue("q", redis_url=redis_url, prefix="bull") as blocking:
            waiting = [asyncio.create_task(gated.result(20)) for _ in range(3)]
            waiting.append(
                asyncio.create_task(asyncio.to_thread(blocking.handle(gated).result, 20))
            )
            # One for the loop and one for the thread.
            await asyncio.to_thread(wait_for_readers, client, 2)
            gate.set()
            assert await asyncio.gather(*waiting) == ["at last"] * 4
        # A failure that is retried is none.
        flaky = await queue.add("flaky", attempts=3, backoff=Backoff("fixed", 0.01))
        with pytest.raises(JobFailedError, match="failed") as failed:
            await flaky.result(20)
        assert (failed.value.reason, failed.value.why) == ("no such card", "no such card")
        assert job(client, flaky)["atm"] == "2"
        # Without an end, without a trace, and with an end whose result is gone.
        later = await queue.add("double", 1, delay=60)
        doomed = asyncio.create_task(later.result())
        await asyncio.to_thread(wait_for_readers, client)
        assert await later.remove()
        for handle in (doomed, later.result(5), queue.handle("9999").result(5)):
            with pytest.raises(JobRemovedError):
                await handle
        client.call("DEL", Q("events"))
        with pytest.raises(JobRemovedError):
            await gone.result(5)
        assert await early.remove()
        with pytest.raises(JobRemovedError, match="result"):
            await early.result(5)

    with_a_worker(redis_url, use)


def test_results_in_a_thread(redis_url: str, client: Client) -> None:
    async def use(_: AsyncQueue, gate: asyncio.Event) -> None:
        with Queue("q", redis_url=redis_url, prefix="bull") as queue:

            def in_thread() -> None:
                assert queue.add("double", 21).result(10) == 42
                with pytest.raises(JobFailedError) as failed:
                    queue.add("flaky").result(10)
                assert failed.value.reason == "no answer"
                gated = queue.add("gated", remove_on_complete=True)
                with pytest.raises(ResultTimeoutError):
                    gated.result(0.05)
                found: list[Any] = []
                waiter = threading.Thread(target=lambda: found.append(gated.result(20)))
                waiter.start()
                wait_for_readers(client)
                # While a thread waits, the others use the queue.
                assert queue.add("double", 1).result(10) == 2
                loop.call_soon_threadsafe(gate.set)
                waiter.join(20)
                assert found == ["at last"]

            loop = asyncio.get_running_loop()
            await asyncio.to_thread(in_thread)

    with_a_worker(redis_url, use)


def test_a_change_without_an_event_is_noticed(
    redis_url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qctl.runtime.api.results.POLL_S", 0.05)

    async def use() -> None:
        async with AsyncQueue("q", redis_url=redis_url, prefix="bull") as queue:
            with Queue("q", redis_url=redis_url, prefix="bull") as blocking:
                handle = await queue.add("a")
                waiting = [
                    asyncio.create_task(handle.result(20)),
                    asyncio.create_task(asyncio.to_thread(blocking.handle(handle).result, 20)),
                ]
                await asyncio.to_thread(wait_for_readers, client, 2)
                client.call("LREM", Q("wait"), 0, handle)
                client.call("HSET", Q(handle), "returnvalue", "7")
                client.call("ZADD", Q("completed"), 1, handle)
                assert await asyncio.gather(*waiting) == [7, 7]
                # Nobody else can use the connection of a Queue that waits.
                put(client, "9")
                with pytest.raises(UsageError, match="connection"):
                    Queue("q", prefix="bull", client=client).handle("9").result(1)
                # Closing the queue ends a wait on its event loop.
                waiter = asyncio.create_task(queue.handle("9").result())
                while "9" not in queue._access.endings.get()._waiters:
                    await asyncio.sleep(0.005)
        with pytest.raises(UsageError, match="closed"):
            await waiter

    asyncio.run(use())


def test_states_and_changes(store: Client) -> None:
    queue = Queue("q", prefix="bull", client=store)
    with pytest.raises(NotFoundError, match="no queue 'q'"):
        queue.counts()
    assert queue.jobs("waiting") == []
    waiting = queue.add("a", {"n": 1}, attempts=3)
    delayed = queue.add("b", delay=60)
    put(store, "run", "active", lock="t")
    put(store, "lost", "active")
    put(store, "old", "completed", score=5, returnvalue='{"x":1}', finishedOn=5)
    handles = [waiting, delayed, *map(queue.handle, ("run", "lost", "old", "never"))]
    states = ["waiting", "delayed", "active", "stalled", "completed", "missing"]
    assert [handle.status() for handle in handles] == states
    counts = queue.counts()
    assert (counts.waiting, counts.delayed, counts.active, counts.stalled) == (1, 1, 2, 1)
    found = queue.get_job(waiting)
    assert found is not None
    assert (found.id, found.name, found.data, found.attempts_max) == ("1", "a", {"n": 1}, 3)
    old = queue.get_job("old")
    assert old is not None
    assert (old.returnvalue, old.finished_at_ms) == ({"x": 1}, 5)
    assert queue.get_job("never") is None
    assert [one.id for one in queue.jobs("waiting")] == ["1"]
    (later,) = queue.jobs("delayed")
    assert later.due_at_ms is not None
    assert later.due_at_ms - (later.added_at_ms or 0) == 60_000
    assert {one.id: one.state for one in queue.jobs("active")} == {
        "run": "active", "lost": "stalled",
    }  # fmt: skip
    assert [one.id for one in queue.jobs("stalled")] == ["lost"]
    with pytest.raises(UsageError, match="no state 'wait'"):
        queue.jobs("wait")
    for n in range(5):
        put(store, f"w{n}")
    assert [one.id for one in queue.jobs("waiting", limit=3)] == ["1", "w0", "w1"]
    assert delayed.promote()
    assert not delayed.promote()
    assert delayed.status() == "waiting"
    assert delayed.remove()
    assert not delayed.remove()
    with pytest.raises(RefusedError) as refused:
        queue.handle("run").remove()
    assert "worker" in refused.value.why


def test_after_a_fork_and_in_a_second_loop(redis_url: str, client: Client) -> None:
    """The connections of the new methods belong to one process and one event loop, too."""
    queue = AsyncQueue("q", redis_url=redis_url, prefix="bull")
    blocking = Queue("q", redis_url=redis_url, prefix="bull")

    async def waits(handle: AsyncJobHandle) -> int:
        assert await handle.status() == "waiting"
        with pytest.raises(ResultTimeoutError):
            await handle.result(0.05)
        return len(await queue.jobs("waiting"))

    def child() -> int:
        with pytest.raises(ResultTimeoutError):
            blocking.handle("a").result(0.05)
        assert blocking.counts().waiting == 1
        return asyncio.run(asyncio.wait_for(waits(queue.handle("a")), 20)) - 1

    async def parent() -> list[int]:
        handle = await queue.add("x", job_id="a")
        waiter = asyncio.create_task(handle.result(20))
        await waits(handle)
        # A child while this loop reads, and while a thread waits on the connection of its own.
        pid = forked(child)
        thread = asyncio.create_task(asyncio.to_thread(blocking.handle("a").result, 20))
        other = asyncio.create_task(
            asyncio.to_thread(lambda: asyncio.run(waits(queue.handle("a"))))
        )
        codes = [await asyncio.to_thread(exit_code, pid), await other - 1]
        assert await handle.remove()
        for task in (waiter, thread):
            with pytest.raises(JobRemovedError):
                await task
        await queue.close()
        return codes

    clients = client.call("CLIENT", "LIST").count("\n")
    assert asyncio.run(parent()) == [0, 0]
    blocking.close()
    wait_until(
        lambda: client.call("CLIENT", "LIST").count("\n") == clients, "the connections to go"
    )


def test_connections_closed_by_the_server(redis_url: str, client: Client) -> None:
    """Reads and waits connect again; a wait does not end because of it."""

    def kill() -> None:
        client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    async def use() -> None:
        async with AsyncQueue("q", redis_url=redis_url, prefix="bull") as queue:
            handle = await queue.add("x", job_id="a")
            with Queue("q", redis_url=redis_url, prefix="bull") as blocking:
                assert blocking.handle("a").status() == await handle.status() == "waiting"
                waiting = [
                    asyncio.create_task(handle.result(20)),
                    asyncio.create_task(asyncio.to_thread(blocking.handle("a").result, 20)),
                ]
                await asyncio.to_thread(wait_for_readers, client, 2)
                kill()
                assert blocking.handle("a").status() == await handle.status() == "waiting"
                kill()
                assert await handle.remove()
                for task in waiting:
                    with pytest.raises(JobRemovedError):
                        await task

    asyncio.run(use())


def test_exit_is_not_delayed_by_a_wait(redis_url: str) -> None:
    """A program may end while it waits: no thread of the runtime holds it."""
    pid = forked(lambda: asyncio.run(_leave(redis_url)))
    assert exit_code(pid) == 0


async def _leave(url: str) -> int:
    queue = AsyncQueue("q", redis_url=url, prefix="bull")
    handle = await queue.add("x")
    waiter = asyncio.create_task(handle.result())
    await asyncio.to_thread(wait_for_readers, connect(url)[1])
    assert not waiter.done()
    return 0
