"""A qctl worker that runs COUNT jobs of queue "bench" and says how long that took.

Usage: python qctl_worker.py PORT CONCURRENCY COUNT HANDLER MS; HANDLER is wait or compute.
"""

import asyncio
import json
import sys
import time

from qctl import Worker

port, concurrency, count, ms = map(int, [*sys.argv[1:4], sys.argv[5]])
worker = Worker("bench", concurrency=concurrency, redis_url=f"redis://127.0.0.1:{port}/0")

if ms and sys.argv[4] == "wait":

    @worker.task()
    async def wait(_: object) -> None:
        await asyncio.sleep(ms / 1000)

elif ms:

    @worker.task()
    async def compute(_: object) -> None:
        # CPU time, since the process does not always have a processor.
        until = time.thread_time() + ms / 1000
        while time.thread_time() < until:
            pass

else:

    @worker.task()
    async def nothing(_: object) -> None:
        return None


async def main() -> None:
    began, cpu = time.perf_counter(), time.process_time()
    await worker.start()
    # Not before the last job is in Redis' completed set.
    await worker.wait_until_idle()
    print(
        json.dumps({"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}),
        flush=True,
    )
    await worker.stop()


asyncio.run(main())
