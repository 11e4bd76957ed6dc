"""The demo's worker: an app like yours, with a middleware that records every run."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from qctl.demo.record import RECORD_FILE, write
from qctl.runtime.api.worker import Worker
from qctl.runtime.handlers.tasks import Call
from qctl.runtime.job.job import Job, SyncJob

QUEUE = "emails"
CONCURRENCY = 4
# The demo's folder, in the environment of every process it starts: so it finds them all again.
FOLDER_VARIABLE = "QCTL_DEMO"
# The pid of the demo: when it ends, the worker ends.
OWNER_VARIABLE = "QCTL_DEMO_PID"
_POLL_S = 1.0

worker = Worker(QUEUE, concurrency=CONCURRENCY, remove_on_complete=5000)


@worker.use
async def record_run(job: Job, call_next: Call) -> Any:
    """Record the run in a file, for the proof; Redis is not involved."""
    file = Path(os.environ[FOLDER_VARIABLE]) / RECORD_FILE
    write(file, "start", job.id, job.name, job.attempts_made)
    try:
        result = await call_next(job)
    except Exception:
        write(file, "fail", job.id, job.name, job.attempts_made)
        raise
    write(file, "end", job.id, job.name, job.attempts_made)
    return result


@worker.task("welcome")
async def welcome(job: Job) -> dict[str, Any]:
    """Runs on the event loop."""
    await asyncio.sleep(job.data["seconds"] / 2)
    await job.update_progress(50)
    await asyncio.sleep(job.data["seconds"] / 2)
    return {"sent": True}


@worker.task("newsletter")
def newsletter(job: SyncJob) -> None:
    """A plain function runs in a thread."""
    time.sleep(job.data["seconds"])


@worker.task("sync")
async def sync(job: Job) -> None:
    """Fails the first time."""
    await asyncio.sleep(job.data["seconds"])
    if job.attempts_made == 0:
        raise ConnectionError("the CRM does not answer")


@worker.task("reminder")
async def reminder(job: Job) -> None:
    await asyncio.sleep(job.data["seconds"])


@worker.task("report")
async def report(_: Job) -> None:
    """The job that the scheduler adds."""
    await asyncio.sleep(0.1)


def _end_with(owner: int, master: int) -> None:
    """Stop the master when the demo has ended, even if it was killed."""
    with suppress(ProcessLookupError):
        while True:
            os.kill(owner, 0)
            time.sleep(_POLL_S)
    # Its Redis is gone too: the second signal makes it stop without waiting for jobs.
    with suppress(ProcessLookupError):
        os.kill(master, signal.SIGTERM)
        time.sleep(_POLL_S)
        os.kill(master, signal.SIGTERM)


if owner := os.environ.get(OWNER_VARIABLE):
    threading.Thread(target=_end_with, args=(int(owner), os.getppid()), daemon=True).start()
