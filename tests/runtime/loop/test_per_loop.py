"""An ``AsyncQueue`` that outlives event loops, their connections and its process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from qctl.connection.address import Client, parse_url
from qctl.connection.connect import connect
from qctl.errors import UsageError
from qctl.runtime.api.queue import AsyncQueue
from qctl.runtime.loop.connection import AsyncConnection
from tests.labs.servers import RedisServer, wait_until

WAIT = "bull:q:wait"


def in_new_loop(work: Coroutine[Any, Any, Any]) -> Any:
    """Run it as ``asyncio.run`` does; a hang fails."""
    return asyncio.run(asyncio.wait_for(work, 20))


def clients_of(client: Client) -> int:
    return int(client.call("CLIENT", "LIST").count("\n"))


async def add_own(queue: AsyncQueue, owner: str, jobs: int) -> int:
    """How many of the ids that came back are not one's own."""
    ids = [f"{owner}-{n}" for n in range(jobs)]
    found = await asyncio.gather(*(queue.add("x", job_id=job_id) for job_id in ids))
    return sum(job_id != other for job_id, other in zip(ids, found, strict=True))


def test_a_second_loop_has_a_connection_of_its_own(redis_url: str, client: Client) -> None:
    before = clients_of(client)
    with warnings.catch_warnings():
        # An open transport, a task or a coroutine that is left behind complains when collected.
        warnings.simplefilter("error")
        queue = AsyncQueue("q", redis_url=redis_url)
        for n in range(1, 4):
            assert in_new_loop(queue.add("x")) == str(n)
            wait_until(lambda: clients_of(client) == before, "the connection to end with its loop")
        gc.collect()
    assert client.call("LLEN", WAIT) == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_loop_that_is_closed_without_ceremony_leaves_nothing(
    redis_url: str, client: Client
) -> None:
    before = clients_of(client)
    queue = AsyncQueue("q", redis_url=redis_url)
    for n in range(1, 6):
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(asyncio.wait_for(queue.add("x"), 20)) == str(n)
        loop.close()
    gc.collect()
    # Of the last one nothing is known to have ended.
    wait_until(lambda: clients_of(client) <= before + 1, "the connections to go")
    del queue
    gc.collect()


def test_loops_in_several_threads_share_a_queue(redis_url: str, client: Client) -> None:
    queue = AsyncQueue("q", redis_url=redis_url)
    wrong: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: wrong.append(in_new_loop(add_own(queue, f"t{n}", 100))))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == [0] * 4
    assert client.call("LLEN", WAIT) == 400


def test_a_queue_is_used_again_after_it_was_closed(redis_url: str, client: Client) -> None:
    queue = AsyncQueue("q", redis_url=redis_url)

    async def main() -> str:
        async with queue:
            return await queue.add("x")

    before = clients_of(client)
    assert [in_new_loop(main()) for _ in range(3)] == ["1", "2", "3"]
    wait_until(lambda: clients_of(client) == before, "the connections to go")


def test_after_a_fork_each_child_gets_its_own_replies(redis_url: str, client: Client) -> None:
    queue = AsyncQueue("q", redis_url=redis_url)

    async def main() -> list[int]:
        """Fork while the loop runs, as a server does that starts its own workers."""
        await queue.add("x", job_id="first")
        pids = []
        for child in "abcd":
            pid = os.fork()
            if not pid:
                wrong = 255
                with contextlib.suppress(BaseException):
                    wrong = in_new_loop(add_own(queue, child, 100))
                os._exit(wrong)
            pids.append(pid)
        wrong = await add_own(queue, "parent", 100)
        ended = [await asyncio.to_thread(os.waitpid, pid, 0) for pid in pids]
        # The children have left the parent's connection alone.
        wrong += await queue.add("x", job_id="last") != "last"
        return [wrong, *(os.waitstatus_to_exitcode(status) for _, status in ended)]

    before = clients_of(client)
    assert in_new_loop(main()) == [0] * 5
    assert client.call("LLEN", WAIT) == 5 * 100 + 2
    wait_until(lambda: clients_of(client) == before, "the connections to go")


def test_a_connection_closed_while_idle_is_replaced(
    start_redis: Callable[..., RedisServer],
) -> None:
    """Also where the loop had no turn since: between two ``run_until_complete``, or while busy."""
    server = start_redis()
    queue = AsyncQueue("q", redis_url=server.url)
    with contextlib.closing(connect(server.url)[1]) as admin:

        def kill() -> None:
            admin.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        async def main() -> list[str]:
            ids = []
            for _ in range(5):
                ids.append(await queue.add("x"))
                kill()
            ids += await asyncio.gather(queue.add("x"), queue.add("x"))
            return ids

        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(queue.add("x")) == "1"
        kill()
        assert loop.run_until_complete(queue.add("x")) == "2"
        loop.run_until_complete(queue.close())
        loop.close()
        assert in_new_loop(main()) == [str(n) for n in range(3, 10)]
        assert admin.call("LLEN", WAIT) == 9


def test_a_connection_of_another_loop_is_refused(redis_url: str) -> None:
    connection = AsyncConnection(parse_url(redis_url))
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(connection.call("PING")) == "PONG"
    with pytest.raises(UsageError, match="outside the event loop"):
        in_new_loop(connection.call("PING"))
    loop.run_until_complete(connection.close())
    loop.close()


@pytest.mark.parametrize("password", ["", "pw"])
def test_a_server_with_too_many_clients_says_so(
    start_redis: Callable[..., RedisServer], password: str
) -> None:
    server = start_redis("--maxclients", "1", "--requirepass", password)
    url = server.url_for(password=password)

    async def main() -> None:
        connection = AsyncConnection(parse_url(url))
        for pings in (1, 1, 3_000, 3_000):
            with pytest.raises(Exception, match="maxclients") as caught:
                raise (await connection.pipeline([("PING",)] * pings))[0]
            assert caught.value.exit_status == 6  # type: ignore[attr-defined]
        await connection.close()

    with contextlib.closing(connect(url)[1]) as only:
        only.call("PING")
        in_new_loop(main())


@pytest.mark.parametrize("password", ["NO", "SCRIPT", "ERR", "READ"])
def test_a_password_may_be_a_part_of_redis_words(
    start_redis: Callable[..., RedisServer], password: str
) -> None:
    server = start_redis("--requirepass", password)
    queue = AsyncQueue("q", redis_url=server.url_for(password=password))
    assert in_new_loop(queue.add("x")) == "1"
