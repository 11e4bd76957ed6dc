"""A qctl worker whose jobs return when they were started, in µs since the epoch.

Usage: python qctl_clock.py PORT QUEUE
"""

import sys
import time

from qctl import Worker

port, queue = sys.argv[1:]
worker = Worker(queue, redis_url=f"redis://127.0.0.1:{port}/0")


@worker.task()
async def clock(_: object) -> int:
    return time.time_ns() // 1000


worker.run()
