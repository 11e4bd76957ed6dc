"""A worker to be killed. Usage: worker_app.py REDIS_URL FILE

Each run of a job leaves lines ``id pid time what`` in the file, which no kill of Redis touches.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time

from qctl import Job, Worker
from qctl.runtime import logs

url, path = sys.argv[1:]
book = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
worker = Worker(
    "q", redis_url=url, concurrency=10, lock_ttl_s=1.0, stalled_interval_s=0.2,
    max_stalled_count=1000, drain_delay_s=0.5,
)  # fmt: skip


def note(job: Job, what: str) -> None:
    os.write(book, f"{job.id} {os.getpid()} {time.time():.4f} {what}\n".encode())


@worker.task()
async def run(job: Job) -> int:
    note(job, "start")
    await asyncio.sleep(random.random() * 0.12)
    if job.attempts_made < job.data.get("fail_times", 0):
        note(job, "fail")
        raise RuntimeError("as told")
    note(job, "end")
    return 1


logs.configure()
worker.run()
