"""Jobs that are cancelled while they wait or run."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.errors import RefusedError, TimedOutError
from qctl.runtime.api.handle import AsyncJobHandle
from qctl.runtime.api.queue import AsyncQueue, Queue
from qctl.runtime.api.results import JobFailedError, JobRemovedError
from qctl.runtime.api.worker import Worker
from qctl.runtime.job.job import Job, SyncJob
from qctl.runtime.loop.running import JobRunner
from qctl.wire.write import cancelling
from tests.labs.build import Q, job, put
from tests.labs.servers import wait_for_readers, wait_until


def hang(job: SyncJob) -> None:
    """Runs in a child process."""
    Path(job.data).touch()
    time.sleep(60)


def test_jobs_are_cancelled(
    redis_url: str, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not that of the answer: the worker looks once a second.
    monkeypatch.setattr(cancelling, "END_S", 3.0)
    monkeypatch.setattr(cancelling, "LOOK_S", 0.2)
    seen: list[str] = []
    release = threading.Event()
    worker = Worker("q", redis_url=redis_url, prefix="bull", concurrency=10)

    @worker.task("sleep")
    async def sleep(job: Job) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append(job.id)
            raise

    @worker.task("other error")
    async def other_error(_: Job) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ConnectionError("the clean-up failed")

    @worker.task("deaf")
    async def deaf(_: Job) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return "done all the same"

    @worker.task("slow end")
    async def slow_end(_: Job) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(20)

    @worker.task("thread")
    def in_thread(_: SyncJob) -> str:
        release.wait(20)
        return "from the thread"

    worker.task("child", isolate=True)(hang)

    async def running(queue: AsyncQueue, name: str, data: Any = None) -> AsyncJobHandle:
        handle = await queue.add(name, data, attempts=5)
        async with asyncio.timeout(20):
            while await handle.status() != "active":
                await asyncio.sleep(0.02)
        return handle

    async def use(queue: AsyncQueue) -> None:
        handle = await running(queue, "sleep")
        watcher = asyncio.create_task(handle.result(20))
        assert await handle.cancel("not needed")
        assert seen == [handle]
        with pytest.raises(JobFailedError) as failed:
            await watcher
        assert failed.value.reason == "cancelled: not needed"
        fields = job(client, handle)
        assert fields["failedReason"] == "cancelled: not needed"
        assert "CancelledError" in fields["stacktrace"]
        assert client.call("ZSCORE", Q("failed"), handle) is not None
        assert not await handle.cancel()
        # It is cancelled, too, if its handler raises something else.
        other, child, gone = await asyncio.gather(
            running(queue, "other error"),
            running(queue, "child", str(tmp_path / "started")),
            running(queue, "sleep"),
        )
        await asyncio.to_thread(wait_until, (tmp_path / "started").exists, "the child to run")
        client.call("HSET", Q(gone), "opts", '{"removeOnFail":true}')
        assert await asyncio.gather(other.cancel(), child.cancel(), gone.cancel()) == [True] * 3
        assert job(client, other)["failedReason"] == "cancelled"
        assert "the clean-up failed" in job(client, other)["stacktrace"]
        # A handler may refuse, a thread cannot be interrupted, and an end may take long.
        ignored, threaded = await running(queue, "deaf"), await running(queue, "thread")
        late = await running(queue, "slow end")
        answers = await asyncio.gather(
            ignored.cancel(), threaded.cancel(), late.cancel(), return_exceptions=True
        )
        assert answers[0] is False
        assert await ignored.result(5) == "done all the same"
        assert isinstance(answers[1], RefusedError)
        assert "thread" in answers[1].why
        assert isinstance(answers[2], TimedOutError)
        release.set()
        assert await threaded.result(20) == "from the thread"
        # A request for an earlier run of the job is no request for this one.
        again = await running(queue, "sleep")
        request = '["ask","another-token","late"]'
        client.call("HSET", Q.cancel_requests, again, request)
        other_job = await running(queue, "sleep")
        assert await other_job.cancel()
        assert await again.status() == "active"
        assert client.call("HGETALL", Q.cancel_requests) == [again, request]

    async def main() -> None:
        await worker.start()
        try:
            async with asyncio.timeout(60), AsyncQueue("q", redis_url=redis_url) as queue:
                await use(queue)
        finally:
            await worker.stop(0.01)

    asyncio.run(main())


def test_a_job_cancelled_before_its_handler_was_called(
    redis_url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task ends without having run, and the job fails all the same.

    The job of a scheduler goes back, because without its next job the scheduler would end.
    """
    worker = Worker("q", redis_url=redis_url, prefix="bull")
    worker.task()(lambda _: None)
    start = JobRunner.start
    starts: list[str] = []

    def start_and_cancel(runner: JobRunner, one: Job) -> None:
        start(runner, one)
        starts.append(one.id)
        if starts.count(one.id) == 1:
            runner.cancel(one, "at once")

    monkeypatch.setattr(JobRunner, "start", start_and_cancel)

    async def main() -> None:
        async with asyncio.timeout(20), AsyncQueue("q", redis_url=redis_url) as queue:
            handle = await queue.add("a", attempts=3)
            await worker.start()
            with pytest.raises(JobFailedError) as failed:
                await handle.result()
            assert failed.value.reason == "cancelled: at once"
            iteration = await queue.upsert_scheduler("s", every=60)
            assert await queue.handle(iteration).result() is None
            assert starts.count(iteration) == 2
            assert await queue.jobs("delayed"), "the scheduler goes on"
            await worker.stop()

    asyncio.run(main())


def test_jobs_that_have_not_started(store: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "ANSWER_S", 0.3)
    queue = Queue("q", prefix="bull", client=store)
    waiting, delayed = queue.add("a"), queue.add("a", delay=60)
    urgent = queue.add("a", priority=3)
    parent = put(store, "parent", "waiting-children")
    store.call("SADD", Q(f"{parent}:dependencies"), Q("child"))
    put(store, "old", "completed", finishedOn=1)
    put(store, "lost", "active")
    put(store, "node", "active", lock="a-token-of-node:7")
    put(store, "tick", "delayed", rjk="s")
    iteration = queue.upsert_scheduler("s", every=60, start=4_000_000_000_000)
    ids = [waiting, delayed, urgent, parent, "old", "lost", "node", iteration, "never"]

    def words(**options: Any) -> list[str]:
        return list(cancelling.cancel_jobs(store, Q, ids, **options).values())

    expected = ["cancelled"] * 3 + ["parent", "ended", "cancelled"]
    before = sorted(store.call("KEYS", "*"))
    assert words(dry_run=True) == [*expected, "unsure", "scheduled", "missing"]
    assert sorted(store.call("KEYS", "*")) == before
    assert words() == [*expected, "unanswered", "scheduled", "missing"]
    assert [store.call("EXISTS", Q(one)) for one in ids] == [0, 0, 0, 1, 1, 0, 1, 1, 0]
    assert store.call("EXISTS", Q.cancel_requests) == 0


def test_a_wait_for_a_job_that_is_cancelled_before_it_starts(
    redis_url: str, client: Client
) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), AsyncQueue("q", redis_url=redis_url) as queue:
            handle = await queue.add("a")
            waiter = asyncio.create_task(handle.result())
            await asyncio.to_thread(wait_for_readers, client)
            assert await handle.cancel()
            with pytest.raises(JobRemovedError):
                await waiter
            assert not await handle.cancel()
            with Queue("q", redis_url=redis_url) as blocking:
                assert blocking.add("a").cancel()

    asyncio.run(main())
