"""Handlers in child processes: results, failures, deaths, and the two kinds of timeouts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil
import pytest

from qctl import AsyncQueue, Queue, UnrecoverableError, Worker
from qctl.connection.address import Client
from qctl.errors import UsageError
from qctl.runtime.job.job import SyncJob
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import to_dict
from tests.labs.servers import wait_until

KEYS = QueueKeys("bull", "isolated")


def answer(job: SyncJob) -> dict[str, Any]:
    job.update_progress(50)
    job.log("half way")
    return {"pid": os.getpid(), "data": job.data, "attempt": job.attempts_started}


def die(_: SyncJob) -> None:
    os._exit(7)


def spin(_: SyncJob) -> None:
    while True:
        pass


def rest(_: SyncJob) -> None:
    time.sleep(60)


def refuse(_: SyncJob) -> None:
    raise UnrecoverableError("never again")


def chat(job: SyncJob) -> None:
    while True:
        job.update_progress(1)


def slow(job: SyncJob) -> None:
    job.update_progress("slow")
    time.sleep(0.5)


def cut(_: SyncJob) -> None:
    raise ConnectionError("the handler's own")


class Odd(Exception):  # noqa: N818 - its name is in the text
    """Cannot be unpickled: it needs two arguments."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


def raise_odd(_: SyncJob) -> None:
    raise Odd("very ", "odd")


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def raise_unprintable(_: SyncJob) -> None:
    raise UnprintableError


def worker(redis_url: str, **options: Any) -> Worker:
    found = Worker("isolated", redis_url=redis_url, concurrency=2, **options)
    for handler in (answer, die, refuse, raise_odd, raise_unprintable, cut, slow):
        found.task(handler.__name__, isolate=True)(handler)
    found.task("spin", isolate=True, kill_after_s=0.3)(spin)
    found.task("rest", isolate=True, timeout_s=0.3)(rest)
    found.task("chat", isolate=True, timeout_s=0.1)(chat)
    return found


def run(redis_url: str, client: Client, name: str, **options: Any) -> dict[str, str]:
    """Run one job; its hash afterwards."""

    async def main() -> None:
        running = worker(redis_url)
        await running.start()
        await running.wait_until_idle()
        await running.stop()

    with Queue("isolated", redis_url=redis_url) as queue:
        job_id = queue.add(name, {"n": 7}, **options)
    asyncio.run(main())
    return to_dict(client.call("HGETALL", KEYS(job_id)))


def test_it_runs_elsewhere_and_reaches_redis(redis_url: str, client: Client) -> None:
    job = run(redis_url, client, "answer")
    value = json.loads(job["returnvalue"])
    assert value.pop("pid") != os.getpid()
    assert value == {"data": {"n": 7}, "attempt": 1}
    assert job["progress"] == "50"
    assert client.call("LRANGE", KEYS.logs("1"), 0, -1) == ["half way"]


def test_a_death_fails_the_attempt(redis_url: str, client: Client) -> None:
    job = run(redis_url, client, "die", attempts=2)
    assert job["failedReason"] == "the job's process ended: exit code 7"
    assert (job["atm"], job["ats"]) == ("2", "2")


def test_what_never_ends_is_killed(redis_url: str, client: Client) -> None:
    assert run(redis_url, client, "spin")["failedReason"] == "killed after 0.3 s"


def test_a_soft_timeout_is_raised_in_the_handler(redis_url: str, client: Client) -> None:
    job = run(redis_url, client, "rest")
    assert job["failedReason"] == "timed out after 0.3 s"
    assert "time.sleep(60)" in job["stacktrace"]


def test_exceptions_keep_their_kind(redis_url: str, client: Client) -> None:
    job = run(redis_url, client, "refuse", attempts=5)
    assert job["failedReason"] == "never again"
    assert job["ats"] == "1"
    assert "in refuse" in job["stacktrace"]


def test_an_exception_that_cannot_be_pickled_is_reported(redis_url: str, client: Client) -> None:
    assert run(redis_url, client, "raise_odd")["failedReason"] == "Odd: very odd"


def test_an_exception_without_a_text_keeps_its_trace(redis_url: str, client: Client) -> None:
    job = run(redis_url, client, "raise_unprintable")
    assert job["failedReason"] == "UnprintableError"
    assert "in raise_unprintable" in job["stacktrace"]


def test_an_error_of_the_connections_kind_is_the_handlers_own(
    redis_url: str, client: Client
) -> None:
    assert run(redis_url, client, "cut")["failedReason"] == "the handler's own"


def run_one_by_one(
    redis_url: str, client: Client, names: Sequence[str], between: Callable[[], object]
) -> list[str]:
    """Run jobs in one child after another; the state of each."""

    async def main() -> list[str]:
        running = worker(redis_url)
        await running.start()
        states = []
        async with AsyncQueue("isolated", redis_url=redis_url) as queue:
            for name in names:
                job_id = await queue.add(name)
                async with asyncio.timeout(20):
                    while not (state := end_of(client, job_id)):
                        await asyncio.sleep(0.01)
                states.append(state)
                between()
        await running.stop()
        return states

    return asyncio.run(main())


def end_of(client: Client, job_id: str) -> str:
    ended = (s for s in ("completed", "failed") if client.call("ZSCORE", KEYS(s), job_id))
    return next(ended, "")


def test_a_timeout_in_the_middle_of_a_call_does_not_harm_the_next_job(
    redis_url: str, client: Client
) -> None:
    states = run_one_by_one(redis_url, client, ["chat", "answer"] * 4, lambda: None)
    assert states == ["failed", "completed"] * 4


def test_a_child_that_died_while_idle_costs_no_attempt(redis_url: str, client: Client) -> None:
    def kill_children() -> None:
        for child in isolated_children():
            child.kill()
            child.wait(5)

    assert run_one_by_one(redis_url, client, ["answer"] * 3, kill_children) == ["completed"] * 3


def test_a_sigterm_to_the_whole_group_is_not_for_the_job(redis_url: str, client: Client) -> None:
    async def main() -> None:
        running = worker(redis_url)
        await running.start()
        async with AsyncQueue("isolated", redis_url=redis_url) as queue:
            job_id = await queue.add("slow")
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, wait_until, lambda: is_slow(client, job_id), "it to run")
        for child in isolated_children():
            child.terminate()
        await running.wait_until_idle()
        await running.stop()
        assert end_of(client, job_id) == "completed"

    asyncio.run(main())


def is_slow(client: Client, job_id: str) -> bool:
    return bool(client.call("HGET", KEYS(job_id), "progress") == '"slow"')


def test_a_stop_gives_the_job_back_and_leaves_no_process(redis_url: str, client: Client) -> None:
    async def main() -> None:
        running = worker(redis_url)
        await running.start()
        with Queue("isolated", redis_url=redis_url) as queue:
            queue.add("rest")
        loop = asyncio.get_running_loop()
        children = await loop.run_in_executor(None, wait_until, isolated_children, "a child")
        await running.stop(grace_s=0.05)
        gone, _ = psutil.wait_procs(children, timeout=5)
        assert len(gone) == len(children)

    asyncio.run(main())
    assert client.call("LRANGE", KEYS("wait"), 0, -1) == ["1"]
    assert not client.call("EXISTS", KEYS("active"), KEYS.lock("1"))
    assert "atm" not in to_dict(client.call("HGETALL", KEYS("1")))


def isolated_children() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            # The last test's may not be buried yet.
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_options_that_do_not_fit() -> None:
    worker = Worker("isolated")
    with pytest.raises(UsageError, match="kill_after_s needs isolate"):
        worker.task("x", kill_after_s=1)(rest)

    async def handler(_: object) -> None: ...

    with pytest.raises(UsageError, match="plain def"):
        worker.task("y", isolate=True)(handler)
