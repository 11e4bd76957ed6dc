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
# The environment variable by which the demo finds its processes later. The demo sets it, to the
# path of its folder, for every process that it starts.
FOLDER_VARIABLE = "QCTL_DEMO"
# Set to the demo's pid, so that the worker stops when the demo has ended; not set with --keep.
PID_VARIABLE = "QCTL_DEMO_PID"
_POLL_S = 1.0

worker = Worker(QUEUE, concurrency=CONCURRENCY, remove_on_complete=5000)


@worker.use
async def record_run(job: Job, call_next: Call) -> Any:
    """Record the run in the file that the proof reads; the record does not depend on Redis."""
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
    """An async function runs on the event loop."""
    await asyncio.sleep(job.data["seconds"] / 2)
    await job.update_progress(50)
    await asyncio.sleep(job.data["seconds"] / 2)
    return {"sent": True}


@worker.task("newsletter")
def newsletter(job: SyncJob) -> None:
    """A plain function runs in a thread."""
    time.sleep(job.data["seconds"])


@worker.task("crm-sync")
async def crm_sync(job: Job) -> None:
    """Fail the first attempt, so that the job is retried."""
    await asyncio.sleep(job.data["seconds"])
    if job.attempts_made == 0:
        raise ConnectionError("the CRM does not answer")


@worker.task("reminder")
async def reminder(job: Job) -> None:
    await asyncio.sleep(job.data["seconds"])


@worker.task("report")
async def report(_: Job) -> None:
    """Run a job that the demo's scheduler has added."""
    await asyncio.sleep(0.1)


def _stop_after_demo(demo_pid: int, master_pid: int) -> None:
    """Stop the worker's master when the demo has ended, even if the demo was killed."""
    with suppress(ProcessLookupError):
        while True:
            os.kill(demo_pid, 0)
            time.sleep(_POLL_S)
    # The demo's Redis is gone too, so signal twice: the second SIGTERM makes the master stop
    # without waiting for jobs.
    with suppress(ProcessLookupError):
        os.kill(master_pid, signal.SIGTERM)
        time.sleep(_POLL_S)
        os.kill(master_pid, signal.SIGTERM)


# Of the processes that have the variable, only the master's children import this module.
if pid := os.environ.get(PID_VARIABLE):
    threading.Thread(target=_stop_after_demo, args=(int(pid), os.getppid()), daemon=True).start()
