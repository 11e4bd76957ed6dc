"""Adds jobs in bulk for bench/enqueue.py, with Python's bullmq: PORT JOBS BULK.

For each line on stdin it adds them once and prints the seconds that took, and the CPU seconds.
"""

from __future__ import annotations

import asyncio
import sys
import time

from bullmq import Queue

PORT, JOBS, BULK = map(int, sys.argv[1:])


async def main() -> None:
    queue = Queue("bench", {"connection": f"redis://127.0.0.1:{PORT}"})
    print("ready", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        cpu, start = time.process_time(), time.perf_counter()
        for at in range(0, JOBS, BULK):
            rows = [{"name": "job", "data": {"n": n}} for n in range(at, min(at + BULK, JOBS))]
            await queue.addBulk(rows)
        print(time.perf_counter() - start, time.process_time() - cpu, flush=True)
    await queue.close()


asyncio.run(main())
