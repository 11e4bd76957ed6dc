"""Adds jobs in bulk for bench/enqueue.py, with qctl: PORT JOBS BULK sync|async.

For each line on stdin it adds them once and prints the seconds that took, and the CPU seconds.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator

from qctl.runtime.api.queue import AsyncQueue, Queue
from qctl.wire.write.adding import NewJob

PORT, JOBS, BULK = map(int, sys.argv[1:4])
URL = f"redis://127.0.0.1:{PORT}/0"


def batches() -> Iterator[list[NewJob]]:
    for at in range(0, JOBS, BULK):
        yield [NewJob("job", {"n": n}) for n in range(at, min(at + BULK, JOBS))]


def orders() -> Iterator[None]:
    print("ready", flush=True)
    while sys.stdin.readline():
        cpu, start = time.process_time(), time.perf_counter()
        yield
        print(time.perf_counter() - start, time.process_time() - cpu, flush=True)


def main() -> None:
    with Queue("bench", redis_url=URL, prefix="bull") as queue:
        for _ in orders():
            for jobs in batches():
                queue.add_bulk(jobs)


async def main_async() -> None:
    async with AsyncQueue("bench", redis_url=URL, prefix="bull") as queue:
        for _ in orders():
            for jobs in batches():
                await queue.add_bulk(jobs)


if sys.argv[4] == "async":
    asyncio.run(main_async())
else:
    main()
