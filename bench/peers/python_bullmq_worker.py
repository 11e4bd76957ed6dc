"""A worker of BullMQ's official Python port that runs COUNT jobs of queue "bench".

Usage: python python_bullmq_worker.py PORT CONCURRENCY COUNT HANDLER MS; HANDLER is always wait.
"""

import asyncio
import json
import sys
import time

from bullmq import Worker

port, concurrency, count, ms = map(int, [*sys.argv[1:4], sys.argv[5]])


async def process(*_):
    if ms:
        await asyncio.sleep(ms / 1000)


async def main():
    done, left = asyncio.Event(), count

    def on_completed(*_):
        nonlocal left
        left -= 1
        if not left:
            done.set()

    options = {
        "connection": f"redis://127.0.0.1:{port}/0",
        "concurrency": concurrency,
        "autorun": False,
    }
    worker = Worker("bench", process, options)
    worker.on("completed", on_completed)
    began, cpu = time.perf_counter(), time.process_time()
    running = asyncio.ensure_future(worker.run())
    await done.wait()
    print(
        json.dumps({"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}),
        flush=True,
    )
    await worker.close(force=True)
    running.cancel()


asyncio.run(main())
