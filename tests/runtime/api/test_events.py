"""``events()``: what happens to a queue, on an event loop and in a thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import UsageError
from qctl.runtime.api.queue import AsyncQueue, Queue
from qctl.wire.events import Event
from tests.labs.build import Q
from tests.labs.servers import RedisServer, wait_for_readers, wait_until


def emit(client: Client, name: str, job_id: str, **fields: str) -> None:
    flat = [word for item in fields.items() for word in item]
    client.call("XADD", Q("events"), "*", "event", name, "jobId", job_id, *flat)


def test_events_on_a_loop_and_in_a_thread(redis_url: str, client: Client) -> None:
    def in_thread(found: list[Event]) -> None:
        with Queue("q", redis_url=redis_url, prefix="bull") as queue:
            for event in queue.events():
                found.append(event)
                if event.job_id == "last":
                    return

    async def use() -> None:
        async with AsyncQueue("q", redis_url=redis_url, prefix="bull") as queue:
            await queue.add("a", job_id="early")
            found: list[Event] = []
            thread = asyncio.create_task(asyncio.to_thread(in_thread, found))
            seen: list[Event] = []

            async def read() -> None:
                async for event in queue.events():
                    seen.append(event)
                    if event.job_id == "last":
                        return

            reader = asyncio.create_task(read())
            await asyncio.to_thread(wait_for_readers, client, 2)
            emit(client, "completed", "one", returnvalue='{"sent": [1]}', prev="active")
            await asyncio.to_thread(wait_until, lambda: len(seen) == len(found) == 1, "the event")
            # A connection that breaks loses no event.
            client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            emit(client, "retries-exhausted", "two", attemptsMade="3")
            emit(client, "failed", "last", failedReason="no")
            await asyncio.wait_for(asyncio.gather(reader, thread), 20)
            assert seen == found
            assert [(event.name, event.job_id, event.values) for event in seen] == [
                ("completed", "one", {"returnvalue": {"sent": [1]}, "prev": "active"}),
                ("retries-exhausted", "two", {"attemptsMade": 3}),
                ("failed", "last", {"failedReason": "no"}),
            ]
            # From an event that was seen, and from the oldest.
            after = [event async for event in upto(queue.events(after=seen[0].id))]
            assert after == seen[1:]
            every = [event async for event in upto(queue.events(after="0-0"))]
            assert every[-3:] == seen
            assert every[0].job_id == "early"
            # Trimmed before it was read: the place is marked.
            client.call("XTRIM", Q("events"), "MAXLEN", 1)
            missed, last = [event async for event in upto(queue.events(after=seen[0].id))]
            assert (missed.name, missed.id, last) == ("missed", seen[0].id, seen[2])
            assert "missing" in missed.fields["why"]
        with pytest.raises(UsageError, match="connection"):
            next(Queue("q", prefix="bull", client=client).events())

    before = client.call("CLIENT", "LIST").count("\n")
    asyncio.run(use())
    wait_until(lambda: client.call("CLIENT", "LIST").count("\n") <= before, "the connections to go")


async def upto(events):  # type: ignore[no-untyped-def]
    """The events up to the last one."""
    async with contextlib.aclosing(events):
        async for event in events:
            yield event
            if event.job_id == "last":
                return


def test_a_restart_of_redis(start_redis: Callable[..., RedisServer]) -> None:
    """It interrupts a wait for a result. If it loses events, the place is marked."""
    server = start_redis()

    async def use() -> None:
        async with AsyncQueue("q", redis_url=server.url, prefix="bull") as queue:
            handle = await queue.add("a")
            events = queue.events(after="0-0")
            seen = [await anext(events), await anext(events)]
            assert [event.name for event in seen] == ["added", "waiting"]
            with contextlib.closing(connect(server.url)[1]) as client:
                client.call("SAVE")
                emit(client, "progress", handle, data="50")
                assert (await anext(events)).values == {"data": 50}
                following = asyncio.ensure_future(anext(events))
                waiter = asyncio.create_task(handle.result(30))
                await asyncio.to_thread(wait_for_readers, client, 2)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            with contextlib.closing(connect(server.url)[1]) as client:
                emit(client, "completed", handle, returnvalue="5")
            missed = await asyncio.wait_for(following, 20)
            assert missed.name == "missed"
            assert (await asyncio.wait_for(anext(events), 20)).name == "completed"
            await events.aclose()
            assert await waiter == 5

    asyncio.run(use())
