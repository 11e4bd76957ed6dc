"""qctl's workers in a round. They do with a job what tests/interop/processor.js does with
it, and write the same rows into the file LEDGER. CRASH_IF and BOOT_IF are those of worker.js."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from pathlib import Path

from qctl import Job, Worker

# The ledger is compared with the driver's clock.
_now = time.time


def _stepped() -> float:
    """The time by a clock that is wrong while the file CLOCK_STEP exists, by the ms in it."""
    with contextlib.suppress(OSError), open(os.environ["CLOCK_STEP"]) as file:  # noqa: PTH123
        return _now() + int(file.read()) / 1000
    return _now()


time.time = _stepped

if Path(os.environ["CRASH_IF"]).exists():
    raise RuntimeError("crashing on purpose: a setting is missing")
if Path(os.environ["BOOT_IF"]).exists():
    time.sleep(int(os.environ["BOOT_MS"]) / 1000)

LEDGER = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

worker = Worker(
    "q",
    concurrency=3,
    lock_ttl_s=int(os.environ["LOCK_MS"]) / 1000,
    stalled_interval_s=int(os.environ["STALLED_MS"]) / 1000,
    max_stalled_count=int(os.environ["MAX_STALLED"]),
    drain_delay_s=0.5,
)


def note(job: Job, event: str) -> None:
    row = {
        "id": job.id, "name": job.name, "pid": os.getpid(), "worker": "qctl",
        "ats": job.attempts_started, "atm": job.attempts_made, "ev": event,
        "at": int(_now() * 1000),
    }  # fmt: skip
    os.write(LEDGER, f"{json.dumps(row)}\n".encode())


@worker.task()
async def run(job: Job) -> None:
    note(job, "start")
    await asyncio.sleep(job.data["ms"] / 1000)
    if job.attempts_made < job.data.get("fail_times", 0):
        note(job, "fail")
        raise RuntimeError("failed on purpose")
    note(job, "end")
