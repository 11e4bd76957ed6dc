"""The current job, and what it keeps alive."""

from __future__ import annotations

import gc

from qctl import Job, NewJob, SyncJob, Worker, current_job
from qctl.testing import FakeQueues


def test_each_handler_sees_its_own_job_and_ended_jobs_need_no_garbage_collection() -> None:
    worker = Worker("q", concurrency=10)
    seen: list[bool] = []

    def check(job: Job | SyncJob) -> None:
        current = current_job()
        seen.append(current is not None and current.id == job.id)

    @worker.task()
    async def run(job: Job) -> None:
        check(job)
        if job.name == "broken":
            raise ValueError

    @worker.task("thread")
    def thread(job: SyncJob) -> None:
        check(job)

    with FakeQueues() as fake:
        queue = fake.queue("q")
        gc.collect()
        gc.disable()
        try:
            queue.add_bulk([NewJob(name) for name in ("job", "thread", "broken") * 20])
            fake.run(worker)
            alive = sum(isinstance(each, Job) for each in gc.get_objects())
        finally:
            gc.enable()
        assert queue.counts().failed == 20
    assert seen == [True] * 60
    # A job in a cycle costs 2 µs more. Only failed jobs may be in one, by their tracebacks.
    assert alive <= 21
    assert current_job() is None
