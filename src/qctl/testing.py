"""For an app's own tests: run workers until their queues have nothing left to do.

    from qctl.testing import run_until_idle

    def test_welcome():
        (outcome,) = run_until_idle(worker, [("welcome", {"user": 7})])
        assert outcome.returnvalue == {"sent": True}

The worker is real, with its scripts, locks and retries; fakeredis, in this process, replaces Redis.
Delays and backoffs take no time: when only delayed jobs are left, all due times are made earlier by
the same amount, so that the first job is due.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import TimedOutError, UsageError
from qctl.extras import install_command
from qctl.runtime.api.queue import Queue
from qctl.runtime.api.worker import Worker
from qctl.wire.jobs import parse_job
from qctl.wire.keys import QueueKeys
from qctl.wire.read.locate import locate
from qctl.wire.replies import to_dict
from qctl.wire.states import DELAY_FACTOR, FINISHED
from qctl.wire.write.adding import NewJob

TIMEOUT_S = 10.0
_POLL_S = 0.005
# How long running jobs may continue after the time limit.
_GRACE_S = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job.

    Args:
        state: usually ``completed``, ``failed``, or ``removed`` (by ``remove_on_complete`` or
            ``remove_on_fail``); else ``waiting-children``, ``delayed`` (a scheduler's next job),
            ``waiting`` or ``prioritized`` (the queue is paused).
        data, returnvalue, progress: decoded from JSON; ``data`` is None if the job is removed.
        failed_reason: the reason of the last failure, even if a later attempt completed.
        attempts: the number of runs that count as attempts.
        starts: the number of all runs, including runs that do not count as attempts.
        logs: the lines of the job's log.
        fields: the job's hash (wire format 3.1).
    """

    id: str
    name: str
    data: Any
    state: str
    returnvalue: Any
    failed_reason: str | None
    attempts: int
    starts: int
    progress: Any
    logs: tuple[str, ...]
    fields: dict[str, str]


def run_until_idle(
    worker: Worker,
    jobs: Sequence[tuple[str, Any] | NewJob],
    *,
    timeout_s: float = TIMEOUT_S,
) -> list[Outcome]:
    """Add jobs, run the worker until nothing is left to do, and return each job's outcome.

    Args:
        worker: the worker with its tasks; the Redis in its settings is not used.
        jobs: ``(name, data)``, or ``NewJob(name, data, attempts=3, …)`` with options.
        timeout_s: the time limit, in seconds of real time.

    Raises:
        TimedOutError, UsageError: see ``FakeQueues.run``; or fakeredis is not installed.
    """
    with FakeQueues() as fake:
        queue = fake.queue(worker.queue, prefix=worker.settings().prefix_of(worker.queue))
        rows = [job if isinstance(job, NewJob) else NewJob(*job) for job in jobs]
        ids = queue.add_bulk(rows)
        fake.run(worker, timeout_s=timeout_s)
        return [fake.outcome(queue, job_id) for job_id in ids]


class FakeQueues:
    """Queues on a fakeredis of their own.

        with FakeQueues() as fake:
            emails = fake.queue("emails")
            job_id = emails.add("welcome", {"user": 7}, delay=3600)
            fake.run(worker)
            assert fake.outcome(emails, job_id).state == "completed"

    Attributes:
        url: the address of the fakeredis, for other code inside the block.
        client: a connection to the fakeredis.

    Raises:
        UsageError: fakeredis is not installed.
    """

    def __init__(self) -> None:
        self.url = ""
        self.client: Client
        self._clean_up = contextlib.ExitStack()
        self._pid = os.getpid()

    def __enter__(self) -> Self:
        try:
            from qctl.connection.stand_in import StandIn  # noqa: PLC0415 - fakeredis is an extra
        except ImportError as error:
            raise UsageError(
                "qctl.testing needs fakeredis", why=str(error), hint=install_command("testing")
            ) from error
        folder = self._clean_up.enter_context(tempfile.TemporaryDirectory(prefix="qctl-"))
        server = StandIn(Path(folder) / "redis.sock")
        self._clean_up.callback(server.stop)
        self.url = f"unix://{folder}/redis.sock"
        self.client = self._clean_up.enter_context(contextlib.closing(connect(self.url)[1]))
        return self

    def __exit__(self, *_: object) -> None:
        # A forked child must leave the server and the folder to the parent process.
        if self._pid == os.getpid():
            self._clean_up.close()

    def queue(self, name: str, *, prefix: str | None = None) -> Queue:
        """A producer for a queue on this fakeredis."""
        return self._clean_up.enter_context(Queue(name, redis_url=self.url, prefix=prefix))

    def run(self, *workers: Worker, timeout_s: float = TIMEOUT_S) -> None:
        """Run workers until their queues have nothing left to do.

        Does not wait for jobs in a paused queue, or for jobs that schedulers add for later. A rate
        limit takes real time.

        Raises:
            TimedOutError: the workers were still busy after ``timeout_s`` seconds of real time.
            UsageError: a test called ``run`` on its event loop; or see ``Worker.start``.
        """
        # Normally no event loop runs here, and ``get_running_loop`` raises a RuntimeError.
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            raise UsageError(
                "this test runs on an event loop", hint="await FakeQueues.arun(worker) instead"
            )
        asyncio.run(self.arun(*workers, timeout_s=timeout_s))

    async def arun(self, *workers: Worker, timeout_s: float = TIMEOUT_S) -> None:
        """Do the same as ``run``, on the event loop of the test."""
        async with contextlib.AsyncExitStack() as running:
            for worker in workers:
                await worker.start(redis_url=self.url, schedules_run=False)
                running.push_async_callback(worker.stop, _GRACE_S)
            queues = [
                QueueKeys(worker.settings().prefix_of(worker.queue), worker.queue)
                for worker in workers
            ]
            deadline = time.monotonic() + timeout_s
            while not all(map(self._is_idle, workers, queues)):
                if time.monotonic() > deadline:
                    left = "; ".join(map(self._describe, queues))
                    raise TimedOutError(f"not idle within {timeout_s:g} s", why=left)
                await asyncio.sleep(_POLL_S)

    def outcome(self, queue: Queue, job_id: str) -> Outcome:
        """What became of a job."""
        found = locate(self.client, queue.keys, job_id)
        job = parse_job(job_id, found.fields)
        return Outcome(
            id=job_id,
            name=job.name,
            data=job.data if found.fields else None,
            state=found.state or "removed",
            returnvalue=job.returnvalue,
            failed_reason=job.failed_reason,
            attempts=job.attempts_made,
            starts=job.attempts_started,
            progress=job.progress,
            logs=tuple(self.client.call("LRANGE", queue.keys.logs(job_id), 0, -1)),
            fields=dict(found.fields),
        )

    def outcomes(self, queue: Queue) -> list[Outcome]:
        """The outcomes of all finished jobs in Redis: completed before failed, oldest first."""
        keys = [queue.keys(state) for state in FINISHED]
        ids = [job_id for key in keys for job_id in self.client.call("ZRANGE", key, 0, -1)]
        return [self.outcome(queue, job_id) for job_id in ids]

    def _is_idle(self, worker: Worker, keys: QueueKeys) -> bool:
        """Whether nothing is left to do. If only delayed jobs are left, make the first one due."""
        call = self.client.call
        if worker.state().busy:
            return False
        if call("HEXISTS", keys("meta"), "paused"):
            return not call("EXISTS", keys("active"))
        # Read ``delayed`` before ``wait``: a job that moves between the reads must not be missed.
        delayed = self._delayed(keys)
        if any(call("EXISTS", keys(name)) for name in ("wait", "prioritized", "active")):
            return False
        if delayed:
            ahead = max(min(delayed.values()) - int(time.time() * 1000) * DELAY_FACTOR, 0)
            for job_id, score in delayed.items():
                call("ZADD", keys("delayed"), "XX", score - ahead, job_id)
            call("ZADD", keys("marker"), 0, "0")
        return not delayed

    def _delayed(self, keys: QueueKeys) -> dict[str, int]:
        """The delayed jobs, except the next jobs of schedulers, each with its score."""
        flat = self.client.call("ZRANGE", keys("delayed"), 0, -1, "WITHSCORES")
        return {
            job_id: int(float(score))
            for job_id, score in to_dict(flat).items()
            if not self.client.call("HEXISTS", keys(job_id), "rjk")
        }

    def _describe(self, keys: QueueKeys) -> str:
        call = self.client.call
        waiting = sum(call("LLEN", keys(name)) for name in ("wait", "paused"))
        waiting += call("ZCARD", keys("prioritized"))
        active, delayed = call("LLEN", keys("active")), call("ZCARD", keys("delayed"))
        return f"{keys.name}: waiting {waiting}, active {active}, delayed {delayed}"
