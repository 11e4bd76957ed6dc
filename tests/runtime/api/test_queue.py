"""``Queue`` and ``AsyncQueue``: the same to the caller and to Redis."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from qctl.connection.address import Arg, Client
from qctl.connection.forwarding import ForwardingClient
from qctl.errors import NotFoundError, UnreachableError, UsageError
from qctl.runtime.api.queue import AsyncQueue, Queue
from qctl.wire.options import Parent
from qctl.wire.write.adding import FlowJob, NewJob
from tests.labs.build import Q, events, job, row

MANY = 1_000


def in_loop(url: str, use: Callable[[AsyncQueue], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with AsyncQueue("q", redis_url=url) as queue:
            return await use(queue)

    return asyncio.run(run())


def test_nothing_is_sent_before_the_first_use(redis_url: str, client: Client) -> None:
    clients = client.call("CLIENT", "LIST").count("\n")
    with Queue("q", redis_url=redis_url):
        assert client.call("CLIENT", "LIST").count("\n") == clients
    assert client.call("KEYS", "*") == []


def test_add(store: Client) -> None:
    queue = Queue("q", prefix="bull", client=store)
    assert queue.add("a", {"n": 1}, delay=5, attempts=3) == "1"
    assert queue.add("b", job_id="b") == "b"
    assert row(store, "wait") == ["b"]
    assert json.loads(job(store, "1")["opts"]) == {"attempts": 3, "delay": 5000}
    assert (queue.name, queue.prefix) == ("q", "bull")
    with pytest.raises(NotFoundError):
        queue.add("c", parent=Parent("ghost", "q"))
    with pytest.raises(TypeError):
        queue.add("c", dealy=5)  # type: ignore[call-arg]


def test_bulk_keeps_the_order(store: Client) -> None:
    queue = Queue("q", prefix="bull", client=store)
    assert queue.add_bulk([]) == []
    ids = queue.add_bulk([NewJob("a", {"n": n}) for n in range(MANY)])
    assert ids == [str(n + 1) for n in range(MANY)]
    assert row(store, "wait") == ids[::-1]
    assert json.loads(job(store, ids[777])["data"]) == {"n": 777}


def test_bulk_survives_a_script_flush(redis_url: str, client: Client) -> None:
    class Flushed(ForwardingClient):
        """A connection before whose pipelines somebody flushes the scripts."""

        def pipeline(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
            self.call("SCRIPT", "FLUSH")
            return super().pipeline(commands)

    queue = Queue("q", prefix="bull", client=Flushed(client))
    ids = queue.add_bulk([NewJob("a", {"n": n}) for n in range(MANY)])
    assert row(client, "wait") == ids[::-1]


def test_both_leave_the_same(redis_url: str, client: Client) -> None:
    jobs = [NewJob("a", {"n": n}, priority=n % 3, timestamp_ms=5) for n in range(MANY)]
    tree = FlowJob("p", "q", job_id="p", timestamp_ms=5, children=[
        FlowJob("c", "q", job_id="c", timestamp_ms=5),
    ])  # fmt: skip
    start = 4_000_000_000_000

    def left() -> dict[str, Any]:
        skipped = {Q("events"), Q(f"repeat:s:{start}")}
        keys = [key for key in client.call("KEYS", "*") if key not in skipped]
        found = {key: client.call("DUMP", key) for key in keys}
        client.call("FLUSHALL")
        return found

    with Queue("q", redis_url=redis_url) as queue:
        ids = queue.add_bulk(jobs)
        added = queue.add_flow(tree)
        job_id = queue.upsert_scheduler("s", every=60, start=start, data={"x": 1}, attempts=2)
        listed = queue.schedulers()
        seen = events(client)
        sync = left()

    async def use(queue: AsyncQueue) -> Any:
        return (
            await queue.add_bulk(jobs),
            await queue.add_flow(tree),
            await queue.upsert_scheduler("s", every=60, start=start, data={"x": 1}, attempts=2),
            await queue.schedulers(),
        )

    assert in_loop(redis_url, use) == (ids, added, job_id, listed)
    assert events(client) == seen
    assert left() == sync
    assert sync


def test_the_async_one_alone(redis_url: str, client: Client) -> None:
    async def use(queue: AsyncQueue) -> None:
        assert await queue.add("a") == "1"
        assert await queue.add_bulk([]) == []
        ids = await asyncio.gather(*(queue.add("b", {"n": n}) for n in range(50)))
        assert ids == [str(n + 2) for n in range(50)]
        with pytest.raises(UsageError):
            await queue.add("c", float("nan"))
        await queue.upsert_scheduler("s", cron="0 0 1 1 *", tz="UTC")
        assert await queue.remove_scheduler("s") is True
        assert await queue.remove_scheduler("s") is False

    in_loop(redis_url, use)
    assert len(row(client, "wait")) == 51


def test_schedulers(store: Client) -> None:
    queue = Queue("q", prefix="bull", client=store)
    job_id = queue.upsert_scheduler("s", every=60, name="tick")
    assert row(store, "wait") == [job_id]
    (found,) = queue.schedulers()
    assert (found.id, found.name, found.every_ms) == ("s", "tick", 60_000)
    assert queue.remove_scheduler("s") is True
    assert queue.remove_scheduler("s") is False
    assert queue.schedulers() == []


def test_threads_share_a_queue(redis_url: str, client: Client) -> None:
    with Queue("q", redis_url=redis_url) as queue:
        ids: list[list[str]] = []

        def produce() -> None:
            ids.append([queue.add("a", {"n": n}) for n in range(100)])

        threads = [threading.Thread(target=produce) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert sorted(int(one) for some in ids for one in some) == list(range(1, 401))


@pytest.mark.parametrize("kind", [Queue, AsyncQueue])
@pytest.mark.parametrize("name", ["", "a:b"])
def test_names_that_no_queue_has(kind: type[Queue] | type[AsyncQueue], name: str) -> None:
    with pytest.raises(UsageError):
        kind(name)


def test_the_environment_says_where(
    redis_url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    with Queue("q") as queue, pytest.raises(UnreachableError):
        queue.add("a")
    monkeypatch.setenv("QCTL_REDIS_URL", redis_url)
    with Queue("q") as queue:
        queue.add("a")
    assert row(client, "wait") == ["1"]


@pytest.mark.parametrize("pattern", ["0 0 * * 0,7", "0 8,13,13 * * *", "@weekdays"])
def test_a_pattern_that_one_line_of_bullmq_cannot_read_is_refused(
    redis_url: str, client: Client, pattern: str
) -> None:
    with Queue("q", redis_url=redis_url) as queue, pytest.raises(UsageError):
        queue.upsert_scheduler("s", cron=pattern)
    assert client.call("KEYS", "bull:q:repeat*") == []


@pytest.mark.parametrize("zone", ["europe/berlin", "UTC+3", "utc+02:00", "local", "system"])
def test_time_zones_are_named_as_bullmq_takes_them(redis_url: str, zone: str) -> None:
    with Queue("q", redis_url=redis_url) as queue:
        queue.upsert_scheduler("s", cron="0 9 * * *", tz=zone)
