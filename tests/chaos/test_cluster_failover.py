"""A master of a real cluster gives way to its replica, or dies, while qctl works."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from qctl import AsyncQueue, Job, Worker
from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import QctlError
from qctl.wire.keys import QueueKeys
from tests.labs.build import is_paused, put, row
from tests.labs.bulk import fill, retry_all
from tests.labs.cli import run
from tests.labs.clusters import Replicated
from tests.labs.drains import Running
from tests.labs.events import followed
from tests.labs.servers import wait_until

KEYS = QueueKeys("{bull}", "q")
TAG = "bull"
JOBS = 300

FailOver = Callable[[], None]


@pytest.fixture(params=["agreed", "killed"])
def fail_over(request: pytest.FixtureRequest, replicated: Replicated) -> FailOver:
    """The two ways to lose a master: it hands over to its replica, or it is killed."""
    ways = {"agreed": replicated.fail_over, "killed": replicated.crash}
    return lambda: ways[request.param](TAG)


def finish(url: str) -> None:
    """A worker ends job 1."""
    client = connect(url)[1]
    client.call("HSET", KEYS("1"), "finishedOn", 1, "returnvalue", "7")
    client.call("ZADD", KEYS("completed"), 1, "1")
    client.call("XADD", KEYS("events"), "*", "event", "completed", "jobId", "1", "returnvalue", "7")
    # Last: what is not active any more must be somewhere else.
    client.call("LREM", KEYS("active"), 1, "1")
    client.call("DEL", KEYS.lock("1"))
    client.close()


def begin(client: Client) -> None:
    """Job 1 runs, job 2 waits."""
    put(client, "1", "active", lock="w:1", keys=KEYS)
    client.call("PEXPIRE", KEYS.lock("1"), 300_000)
    put(client, "2", keys=KEYS)


def waits_for_events(client: Client) -> bool:
    lists = [str(node.call("CLIENT", "LIST")) for node in client.masters()]
    return any("cmd=xread" in clients for clients in lists)


def test_a_drain_sits_it_out(replicated: Replicated, fail_over: FailOver) -> None:
    begin(replicated.client)

    def lose_the_master() -> None:
        with contextlib.closing(connect(replicated.url)[1]) as own:
            wait_until(lambda: is_paused(own, KEYS), "the drain to pause the queue")
            # It has read the active jobs when it waits for their events.
            wait_until(lambda: waits_for_events(own), "the drain to wait for the job")
            fail_over()
            finish(replicated.url)

    words = ("drain", "q", "--yes", "--json", "--timeout", "60s", "--prefix", KEYS.prefix)
    with ThreadPoolExecutor() as pool:
        lost = pool.submit(lose_the_master)
        ran = run(*words, "--redis", replicated.url, PM2_HOME="/nonexistent")
        lost.result()
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert (report["outcome"], report["completed"]) == ("drained", 1)
    assert (report["interrupted"], report["lost"]) == (0, 0)
    with contextlib.closing(connect(replicated.url)[1]) as after:
        assert is_paused(after, KEYS)
        assert row(after, "wait", KEYS) == ["2"]


def test_a_bulk_run_is_complete_or_says_that_it_is_not(
    replicated: Replicated, fail_over: FailOver
) -> None:
    client = replicated.client
    fill(client, JOBS, KEYS)

    def retry(on_step: Callable[[], object]) -> tuple[int, str]:
        done, advice, is_complete = retry_all(client, KEYS, JOBS, on_step)
        assert is_complete == (not advice)
        return done, advice

    pending = [fail_over]
    first, advice = retry(lambda: pending.pop()() if pending else None)
    assert not pending
    assert "run the same command again" in advice or not advice
    second, advice = retry(lambda: None)
    assert (first + second, advice) == (JOBS, "")
    assert client.call("ZCARD", KEYS("failed")) == 0
    assert Counter(row(client, "wait", KEYS)) == Counter(map(str, range(JOBS)))


def test_events_and_wait_go_on(replicated: Replicated, fail_over: FailOver, tmp_path: Path) -> None:
    client = replicated.client
    begin(client)
    env = {**os.environ, "QCTL_REDIS_URL": replicated.url, "XDG_CONFIG_HOME": str(tmp_path)}
    tail = ("--prefix", KEYS.prefix, "--output", "ndjson")
    commands = (("events", "q", "--follow"), ("wait", "q", "--for", "job=1", "--timeout", "2m"))
    with contextlib.ExitStack() as stack:
        events, wait = (Running.qctl((*words, *tail), env, tmp_path) for words in commands)
        for each in (events, wait):
            stack.callback(each.close)

        def is_followed(name: str) -> bool:
            # The first command after the death of a master may fail.
            with contextlib.suppress(QctlError):
                client.call("XADD", KEYS("events"), "*", "event", name)
            return name in events.said and bool(wait.said)

        wait_until(lambda: is_followed("before"), "both to be up", timeout_s=60)
        fail_over()
        wait_until(lambda: is_followed("after"), "the events of the new master", timeout_s=60)
        finish(replicated.url)
        assert wait.finish().code == 0
        wait_until(lambda: '"completed"' in events.said, "the last event")
        assert not events.is_over


def test_a_follower_shows_each_event_once_or_reports_a_gap(
    replicated: Replicated, fail_over: FailOver, tmp_path: Path
) -> None:
    begin(replicated.client)
    with followed(replicated.url, KEYS, tmp_path) as flow:
        flow.go_on()
        fail_over()
        flow.go_on()
        kept, shown, remarks = flow.end()
    assert len(shown) == len(set(shown))
    # What the new master lacks was lost with the old one; such a loss is reported.
    if set(kept) == set(shown):
        assert "events may be missing" not in remarks
    else:
        assert "events may be missing" in remarks


def test_a_worker_goes_on(replicated: Replicated, fail_over: FailOver) -> None:
    settings: Any = {"redis_url": replicated.url, "prefix": KEYS.prefix}
    worker = Worker("q", **settings, concurrency=5, drain_delay_s=0.5)
    ran: Counter[str] = Counter()
    is_over = threading.Event()
    goes_on = asyncio.Event()

    @worker.task("held")
    async def hold(job: Job) -> None:
        ran[job.id] += 1
        await goes_on.wait()

    @worker.task("x")
    async def note(job: Job) -> None:
        ran[job.id] += 1

    def lose_the_master() -> None:
        try:
            fail_over()
        finally:
            is_over.set()

    async def main() -> list[str]:
        added: list[str] = []
        async with AsyncQueue("q", **settings) as queue:
            await worker.start()
            added.append(await queue.add("held"))
            added.extend([await queue.add("x") for _ in range(20)])
            async with asyncio.timeout(20):
                while len(ran) < len(added):
                    await asyncio.sleep(0.01)
            losing = asyncio.create_task(asyncio.to_thread(lose_the_master))
            while not is_over.is_set():
                # An add whose reply was lost is not known to have been carried out.
                with contextlib.suppress(QctlError):
                    added.append(await queue.add("x"))
                await asyncio.sleep(0.01)
            await losing
            added.append(await queue.add("x"))
        goes_on.set()
        async with asyncio.timeout(60):
            while not set(added) <= set(ran):
                await asyncio.sleep(0.01)
            await worker.wait_until_idle()
        await worker.stop()
        return added

    added = asyncio.run(main())
    assert len(set(added)) == len(added)
    with contextlib.closing(connect(replicated.url)[1]) as after:
        assert set(added) <= set(after.call("ZRANGE", KEYS("completed"), 0, -1))
        assert after.call("LLEN", KEYS("active")) == 0
