"""Time from add to start on an idle queue: qctl's worker beside BullMQ's, on one Redis, in turn.

    python bench/latency.py [--rounds 5] [--jobs 200]

One worker of each peer waits on a queue of its own. The same producer adds one job at a time, each
only after the one before has finished, to each queue in turn; the handler returns the time at which
it was started. Both read the clock of this machine. Printed are the median and the 95th percentile
over all rounds, and the median of the ratios of the rounds' medians.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from worker import NODE_MODULES, PEERS, start_redis

from qctl import Queue
from qctl.connection.address import Client
from qctl.connection.connect import connect


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=200)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="qb-", dir="/tmp"))
    redis, port = start_redis(folder)
    url = f"redis://127.0.0.1:{port}/0"
    commands = {
        "BullMQ 6 (Node)": ["node", str(PEERS / "bullmq_clock.js"), str(port), "node"],
        "qctl": [sys.executable, str(PEERS / "qctl_clock.py"), str(port), "qctl"],
    }
    workers = [
        subprocess.Popen(command, env={**os.environ, "NODE_PATH": str(NODE_MODULES)})
        for command in commands.values()
    ]
    try:
        client = connect(url)[1]
        queues = dict(
            zip(commands, (Queue("node", redis_url=url), Queue("qctl", redis_url=url)), strict=True)
        )
        waits: dict[str, list[list[float]]] = {name: [] for name in commands}
        for queue in queues.values():
            # Until it is there and warm.
            measure(client, queue, 20)
        for _ in range(options.rounds):
            for name, queue in queues.items():
                waits[name].append(measure(client, queue, options.jobs))
        report(waits)
        for queue in queues.values():
            queue.close()
        client.close()
    finally:
        for process in workers:
            process.terminate()
        redis.terminate()
        for process in [*workers, redis]:
            process.wait(10)
        shutil.rmtree(folder)


def measure(client: Client, queue: Queue, jobs: int) -> list[float]:
    """Waits in ms."""
    waits = []
    for _ in range(jobs):
        added_ns = time.time_ns()
        key = queue.keys(queue.add("clock"))
        while (value := client.call("HGET", key, "returnvalue")) is None:
            time.sleep(0.0005)
        waits.append(json.loads(value) / 1000 - added_ns / 1e6)
        # Until the worker waits for the next one.
        time.sleep(0.003)
    return waits


def report(waits: dict[str, list[list[float]]]) -> None:
    medians = {name: [statistics.median(row) for row in rounds] for name, rounds in waits.items()}
    print(f"{'':16} {'median ms':>10} {'p95 ms':>8} {'qctl takes':>11}")
    for name, rounds in waits.items():
        every = sorted(wait for row in rounds for wait in row)
        ratio = statistics.median(
            ours / theirs for ours, theirs in zip(medians["qctl"], medians[name], strict=True)
        )
        p95 = every[int(len(every) * 0.95)]
        print(f"{name:16} {statistics.median(every):10.3f} {p95:8.3f} {ratio:10.2f}x")


if __name__ == "__main__":
    main()
