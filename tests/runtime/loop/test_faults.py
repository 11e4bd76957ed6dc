"""What one odd job, a hanging function or a bad moment must not do to all the others."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence

import pytest

from qctl import Job, Queue, RateLimited, Worker
from qctl.connection.address import Arg, Client
from qctl.connection.connect import connect
from qctl.errors import UnreachableError, UsageError
from qctl.runtime.loop.engine import Engine
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import to_dict
from tests.labs.build import put
from tests.labs.servers import RedisServer, wait_until

Q = QueueKeys("bull", "q")


def engine_of(worker: Worker) -> Engine:
    assert worker._engine is not None
    return worker._engine


async def running(worker: Worker, until: Callable[[], Awaitable[bool] | bool]) -> None:
    """Start a worker, wait for a condition, stop it."""
    await worker.start()
    try:
        async with asyncio.timeout(20):
            while True:
                found = until()
                if found if isinstance(found, bool) else await found:
                    break
                await asyncio.sleep(0.01)
    finally:
        await worker.stop(0.1)


def ids(client: Client, state: str) -> list[str]:
    return sorted(client.call("ZRANGE", Q(state), 0, -1))


def test_a_parent_of_a_wrong_type_stops_only_its_child(redis_url: str, client: Client) -> None:
    worker = Worker("q", redis_url=redis_url, concurrency=8)
    together = asyncio.Barrier(4)

    @worker.task()
    async def handle(_: Job) -> None:
        # All end at one time, so that one step settles them.
        await together.wait()

    for job_id in ("1", "2", "3"):
        put(client, job_id)
    parent = {"parentKey": Q("par"), "parent": '{"id":"par","queueKey":"bull:q"}'}
    put(client, "poison", **parent)
    client.call("SET", Q.processed("par"), "no hash")
    client.call("SADD", Q("par:dependencies"), Q("poison"))
    asyncio.run(running(worker, lambda: len(ids(client, "completed")) == 3))
    assert ids(client, "completed") == ["1", "2", "3"]
    # Without a lock, it is for the stalled check to bring back.
    assert client.call("LRANGE", Q("active"), 0, -1) == ["poison"]
    assert not client.call("EXISTS", Q.lock("poison"))


def test_ids_that_are_no_jobs_are_dropped(redis_url: str, client: Client) -> None:
    worker = Worker("q", redis_url=redis_url, concurrency=8)
    ran: list[str] = []

    @worker.task()
    async def handle(job: Job) -> None:
        ran.append(job.id)

    put(client, "1")
    client.call("SET", Q("text"), "no hash")
    client.call("LPUSH", Q("wait"), "text")
    # A delayed one that is due, and of whose job nothing is left.
    client.call("ZADD", Q("delayed"), 4096, "ghost")
    put(client, "2")
    asyncio.run(running(worker, lambda: len(ids(client, "completed")) == 2))
    assert sorted(ran) == ["1", "2"]
    assert not client.call("EXISTS", Q("active"), Q("ghost"), Q("delayed"))


def test_a_job_that_cannot_be_understood_harms_no_other(redis_url: str, client: Client) -> None:
    worker = Worker("q", redis_url=redis_url, concurrency=2)

    @worker.task()
    async def handle(_: Job) -> None: ...

    huge = "9" * 5000
    put(client, "1", opts=f'{{"backoff":{{"delay":1e{huge}}},"attempts":{huge[:400]}}}')
    put(client, "2", opts="[" * 100_000, atm=huge)
    put(client, "3")
    asyncio.run(running(worker, lambda: len(ids(client, "completed")) == 3))


def test_functions_that_hang_do_not_keep_others_from_running(
    redis_url: str, client: Client
) -> None:
    worker = Worker("q", redis_url=redis_url, concurrency=1)
    for_ever = threading.Event()

    @worker.task("hang", timeout_s=0.1)
    def hang(_: object) -> None:
        for_ever.wait()

    @worker.task("quick", timeout_s=10)
    def quick(_: object) -> None: ...

    with Queue("q", redis_url=redis_url) as queue:
        hanging = [queue.add("hang") for _ in range(3)]
        quick_ones = [queue.add("quick") for _ in range(3)]
    asyncio.run(running(worker, lambda: len(ids(client, "completed")) == 3))
    for_ever.set()
    assert ids(client, "completed") == quick_ones
    assert ids(client, "failed") == hanging


def test_stop_iteration_from_a_function_fails_the_job(redis_url: str, client: Client) -> None:
    worker = Worker("q", redis_url=redis_url, concurrency=1)

    @worker.task("next")
    def exhausted(_: object) -> object:
        return next(iter([]))

    @worker.task("quick")
    def quick(_: object) -> None: ...

    with Queue("q", redis_url=redis_url) as queue:
        bad, good = queue.add("next"), queue.add("quick")
    asyncio.run(running(worker, lambda: ids(client, "completed") == [good]))
    job = to_dict(client.call("HGETALL", Q(bad)))
    assert job["failedReason"] == "the function raised StopIteration"


RUN = """
import sys, time
from qctl import Worker
worker = Worker("q", redis_url=sys.argv[1])
@worker.task()
def hang(_):
    time.sleep(60)
worker.run(grace_s=0.1)
"""


def test_a_function_that_hangs_does_not_hold_up_the_end(redis_url: str, client: Client) -> None:
    with Queue("q", redis_url=redis_url) as queue:
        job_id = queue.add("x")
    with subprocess.Popen([sys.executable, "-c", RUN, redis_url]) as process:
        try:
            wait_until(lambda: client.call("LLEN", Q("active")), "the job to start")
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
    # Its job has gone back, so another process may run it: this one must be gone.
    assert client.call("LRANGE", Q("wait"), 0, -1) == [job_id]


@pytest.mark.parametrize("most", ["0", "0.5", "-1"])
def test_an_odd_rate_limit_lets_one_job_through(redis_url: str, client: Client, most: str) -> None:
    worker = Worker("q", redis_url=redis_url)

    @worker.task()
    async def handle(_: Job) -> None: ...

    client.call("HSET", Q("meta"), "max", most, "duration", "60000")
    put(client, "1")
    put(client, "2")
    asyncio.run(running(worker, lambda: len(ids(client, "completed")) == 1))
    assert client.call("GET", Q("limiter")) == "1"
    assert client.call("LLEN", Q("wait")) == 1


def test_a_short_rate_limit_does_not_end_a_long_one(redis_url: str, client: Client) -> None:
    worker = Worker("q", redis_url=redis_url, concurrency=2)
    starts = 0

    @worker.task()
    async def limited(job: Job) -> None:
        nonlocal starts
        starts += 1
        await asyncio.sleep(0.02 * int(job.id))
        raise RateLimited(20 if job.id == "1" else 0.001)

    put(client, "1")
    put(client, "2")

    async def both_back() -> bool:
        return client.call("LLEN", Q("wait")) == 2

    async def main() -> None:
        await running(worker, both_back)
        timer = engine_of(worker)._limit_timer
        assert timer is not None
        assert timer.when() - asyncio.get_running_loop().time() > 10

    asyncio.run(main())
    assert starts == 2


def test_jobs_go_back_in_the_order_in_which_they_started(redis_url: str, client: Client) -> None:
    worker = Worker("q", redis_url=redis_url, concurrency=4)

    @worker.task()
    async def rest(_: Job) -> None:
        await asyncio.sleep(60)

    with Queue("q", redis_url=redis_url) as queue:
        added = [queue.add("x") for _ in range(4)]
    asyncio.run(running(worker, lambda: client.call("LLEN", Q("active")) == 4))
    # The tail runs next.
    assert client.call("LRANGE", Q("wait"), 0, -1)[::-1] == added


def test_it_cannot_be_started_twice(redis_url: str) -> None:
    worker = Worker("q", redis_url=redis_url)

    @worker.task()
    async def handle(_: Job) -> None: ...

    async def main() -> None:
        await worker.start()
        with pytest.raises(UsageError, match="runs already"):
            await worker.start()
        await worker.stop()
        await worker.start()
        await worker.stop()

    asyncio.run(main())


def test_a_stop_ends_when_the_last_step_is_lost(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker("q", redis_url=redis_url)

    @worker.task()
    async def handle(_: Job) -> None: ...

    async def main() -> None:
        await worker.start()
        await worker.wait_until_idle()
        engine = engine_of(worker)
        steps: list[Callable[[object], None]] = []
        with monkeypatch.context() as patch:
            patch.setattr(engine.connection, "send", lambda _, callback: steps.append(callback))
            engine.fetch_again()
        stopping = asyncio.create_task(worker.stop(grace_s=0))
        await asyncio.sleep(0.05)
        assert not stopping.done()
        (answer,) = steps
        answer(UnreachableError("cut"))
        async with asyncio.timeout(10):
            await stopping

    asyncio.run(main())


def test_no_step_is_sent_before_its_database_is_chosen(
    start_redis: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_redis("--requirepass", "pw")
    url = server.url_for("", "pw", 1)
    worker = Worker("q", redis_url=url, concurrency=4)
    attached = asyncio.Event()

    @worker.task("call")
    async def call(job: Job) -> None:
        engine = engine_of(worker)
        connection = engine.connection._connection
        send = connection._future
        # Else the step's loss is what opens the connection again.
        while engine._steps_in_flight:
            await asyncio.sleep(0.01)

        async def slowly(command: Sequence[Arg]) -> object:
            if command[0] == "SELECT":
                attached.set()
                await asyncio.sleep(0.05)
            return await send(command)

        monkeypatch.setattr(connection, "_future", slowly)
        connection.drop(ConnectionResetError("cut"))
        await job.update_progress(1)

    @worker.task("end")
    async def end(_: Job) -> None:
        # In the middle of the greeting.
        await attached.wait()

    with contextlib.closing(connect(url)[1]) as client:
        for job_id, name in (("1", "call"), ("2", "end"), ("3", "end")):
            put(client, job_id, name=name)
        asyncio.run(running(worker, lambda: len(ids(client, "completed")) == 3))
        client.call("SELECT", 0)
        assert client.call("DBSIZE") == 0
