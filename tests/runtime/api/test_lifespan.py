"""A worker's lifespan: what an app sets up before the first job, and cleans up after the last."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from qctl import Job, SyncJob, Worker
from qctl.errors import FailedError, UnreachableError, UsageError
from qctl.runtime.loop.engine import Engine
from qctl.testing import FakeQueues, run_until_idle
from tests.labs import masters as labs
from tests.labs.masters import MasterLab

master_lab = labs.master_lab


def test_it_surrounds_all_jobs_and_its_state_is_that_of_the_jobs() -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(worker: Worker) -> AsyncIterator[dict[str, str]]:
        seen.append(f"start {worker.queue}")
        # A task group and a timeout must be left in the task that entered them.
        async with asyncio.TaskGroup(), asyncio.timeout(60):
            yield {"pool": "P"}
        seen.append("stop")

    worker = Worker("q", lifespan=lifespan)

    @worker.task("async")
    async def in_loop(job: Job) -> None:
        seen.append(f"{job.name} {job.state['pool']}")

    @worker.task("thread")
    def in_thread(job: SyncJob[Any, dict[str, str]]) -> None:
        seen.append(f"{job.name} {job.state['pool']}")

    run_until_idle(worker, [("async", None), ("thread", None)])
    assert seen == ["start q", "async P", "thread P", "stop"]
    # Once for each start.
    run_until_idle(worker, [("async", None)])
    assert seen[4:] == ["start q", "async P", "stop"]


def test_a_failure_at_its_start_lets_no_job_run() -> None:
    ran: list[str] = []

    async def lifespan(_: Worker) -> AsyncIterator[None]:
        raise ConnectionError("no database")
        yield

    worker = Worker("q", lifespan=lifespan)

    @worker.task()
    async def handler(job: Job) -> None:
        ran.append(job.id)

    with FakeQueues() as fake:
        queue = fake.queue("q")
        job_id = queue.add("x")
        with pytest.raises(FailedError, match="the lifespan of the worker of q failed") as caught:
            fake.run(worker)
        assert ": ConnectionError: no database (in tests/" in caught.value.what
        assert (fake.outcome(queue, job_id).state, ran) == ("waiting", [])


def test_it_ends_also_if_what_follows_its_start_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    async def lifespan(_: Worker) -> AsyncIterator[None]:
        seen.append("start")
        try:
            yield
        finally:
            seen.append("stop")

    worker = Worker("q", lifespan=lifespan)
    worker.task()(print)

    async def fail(*_: object) -> None:
        raise UnreachableError("Redis has just gone")

    monkeypatch.setattr(Engine, "open", fail)
    monkeypatch.setattr(Engine, "close", fail)
    with pytest.raises(UnreachableError):
        run_until_idle(worker, [("x", None)])
    assert seen == ["start", "stop"]


def test_a_signal_ends_a_start_that_hangs() -> None:
    seen: list[str] = []

    async def lifespan(_: Worker) -> AsyncIterator[None]:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.Event().wait()
            yield
        finally:
            seen.append("cleaned up")

    with FakeQueues() as fake:
        worker = Worker("q", lifespan=lifespan, redis_url=fake.url)
        worker.task()(print)
        worker.run()
    assert seen == ["cleaned up"]


def test_a_failure_at_its_end_is_logged_and_loses_no_job(caplog: pytest.LogCaptureFixture) -> None:
    async def lifespan(_: Worker) -> AsyncIterator[None]:
        yield
        raise OSError("cannot close")

    worker = Worker("q", lifespan=lifespan)

    @worker.task()
    async def handler(job: Job) -> Any:
        return job.state

    with caplog.at_level(logging.ERROR, "qctl"):
        (outcome,) = run_until_idle(worker, [("x", None)])
    assert (outcome.state, outcome.returnvalue) == ("completed", None)
    (record,) = caplog.records
    assert "the lifespan failed at its end" in record.message
    assert "OSError: cannot close" in record.message


def test_a_task_of_the_lifespan_that_fails_while_jobs_run_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise OSError("connection lost")

    async def lifespan(_: Worker) -> AsyncIterator[asyncio.TaskGroup]:
        async with asyncio.TaskGroup() as group:
            yield group

    worker = Worker("q", lifespan=lifespan)

    @worker.task()
    async def handler(job: Job) -> None:
        job.state.create_task(fail())
        while not caplog.records:
            await asyncio.sleep(0.01)

    with caplog.at_level(logging.ERROR, "qctl"):
        (outcome,) = run_until_idle(worker, [("x", None)])
    assert outcome.state == "completed"
    assert "failed while the worker runs" in caplog.text


def isolated(job: SyncJob) -> Any:
    return job.state


def test_jobs_without_a_state_say_why() -> None:
    async def lifespan(_: Worker) -> AsyncIterator[int]:
        yield 1

    without, child = Worker("q"), Worker("q", lifespan=lifespan)

    @without.task()
    async def handler(job: Job) -> Any:
        return job.state

    child.task(isolate=True)(isolated)
    for worker, reason in (
        (without, "the worker of q has no lifespan"),
        (child, "an isolated job has no state"),
    ):
        (outcome,) = run_until_idle(worker, [("x", None)], timeout_s=60)
        assert reason in str(outcome.failed_reason)


def test_what_cannot_be_a_lifespan() -> None:
    async def coroutine(worker: Worker) -> None: ...
    def plain(worker: Worker) -> Iterator[None]:
        yield

    async def without_parameter() -> AsyncIterator[None]:
        yield

    wrong: list[Any] = [coroutine, plain, without_parameter, "lifespan"]
    for each in wrong:
        with pytest.raises(UsageError, match="cannot be a lifespan"):
            Worker("q", lifespan=each)


def test_processes_of_a_master(master_lab: MasterLab) -> None:
    lab = master_lab
    start = """
    import contextlib, os
    def write(text):
        with open("seen", "a") as file:
            file.write(f"{text}\\n")

    async def lifespan(worker):
        if os.path.exists("broken"):
            raise ConnectionError("no database today")
        write("start")
        yield 5
        write("stop")
    """
    lab.write(
        start
        + labs.APP.replace("drain_delay_s=0.5", "lifespan=lifespan").replace(
            "        note(job)\n", "        note(job); write(job.state)\n", 1
        )
    )
    (lab.folder / "broken").touch()
    broken = lab.run(ready=False)
    (row, *_) = broken.wait_log("process died before it was ready")
    assert "the lifespan of the worker of q failed" in row["why"]
    (lab.folder / "broken").unlink()
    # The master tries again: a database may start later than its workers.
    broken.wait_log("ready")
    (job_id,) = lab.add(held=True)
    lab.wait_started(job_id)
    broken.signal(signal.SIGTERM)
    broken.wait_log("finishing jobs")
    lab.release()
    assert broken.wait_end() == 0
    assert lab.ids("completed") == [job_id]
    assert (lab.folder / "seen").read_text().split() == ["start", "5", "stop"]
    assert "Traceback" not in broken.text
