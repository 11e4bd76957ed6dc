"""How fast jobs are added in bulk: Node's BullMQ 6, Python's bullmq and qctl, on one Redis.

    python bench/enqueue.py [--jobs 10000] [--bulk 1000] [--rounds 7] [--without-python-bullmq]

Starts a private Redis; each round runs all of them in turn, each on an empty database, so that a
slow moment of the machine hits all alike. A job is ``{"n": i}`` without options. Printed are
medians: jobs a second, and the CPU time that a job cost the producer and Redis. Packages are those
of ``worker.py``.
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
from dataclasses import dataclass
from pathlib import Path

from worker import NODE_MODULES, PEERS, install_python_bullmq, start_redis

from qctl.connection.address import Client
from qctl.connection.connect import connect


@dataclass(frozen=True)
class Run:
    jobs_per_s: float
    producer_us: float
    redis_us: float


class Producer:
    """A producer in a process of its own."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._answer() != "ready":
            raise SystemExit(f"{command[0]} did not start")

    def run(self, jobs: int, redis: Client) -> Run:
        before = redis_cpu_s(redis)
        assert self.process.stdin  # noqa: S101
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        took_s, cpu_s = map(float, self._answer().split())
        used_s = redis_cpu_s(redis) - before
        return Run(jobs / took_s, cpu_s / jobs * 1e6, used_s / jobs * 1e6)

    def _answer(self) -> str:
        assert self.process.stdout  # noqa: S101
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        assert self.process.stdin  # noqa: S101
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def redis_cpu_s(redis: Client) -> float:
    rows = dict(row.split(":", 1) for row in redis.call("INFO", "cpu").split() if ":" in row)
    return float(rows["used_cpu_user"]) + float(rows["used_cpu_sys"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--bulk", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--without-python-bullmq", action="store_true")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="qe-", dir="/tmp"))
    server, port = start_redis(folder)
    args = [str(port), str(options.jobs), str(options.bulk)]
    commands = {
        "Node BullMQ 6": [
            "node", f"{PEERS}/bullmq_enqueue.js", str(NODE_MODULES / "bullmq6"), *args,
        ],
        "qctl": [sys.executable, f"{PEERS}/qctl_enqueue.py", *args, "sync"],
        "qctl, AsyncQueue": [sys.executable, f"{PEERS}/qctl_enqueue.py", *args, "async"],
    }  # fmt: skip
    python = None if options.without_python_bullmq else install_python_bullmq(folder)
    if python:
        commands["Python bullmq"] = [python, f"{PEERS}/python_bullmq_enqueue.py", *args]
    redis = connect(f"redis://127.0.0.1:{port}/0")[1]
    producers = {name: Producer(command) for name, command in commands.items()}
    runs: dict[str, list[Run]] = {name: [] for name in producers}
    try:
        # The first round warms up compilers and caches.
        for number in range(options.rounds + 1):
            for name, producer in producers.items():
                redis.call("FLUSHALL")
                run = producer.run(options.jobs, redis)
                added = redis.call("LLEN", "bull:bench:wait")
                if added != options.jobs:
                    raise SystemExit(f"{name} added {added} jobs")
                if number:
                    runs[name].append(run)
    finally:
        for producer in producers.values():
            producer.close()
        server.terminate()
        server.wait(10)
        shutil.rmtree(folder, ignore_errors=True)
    report(runs)


def report(runs: dict[str, list[Run]]) -> None:
    def median(name: str, field: str) -> float:
        return statistics.median(getattr(run, field) for run in runs[name])

    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} CPUs; medians, µs are CPU a job")
    columns = ("jobs/s", "min", "max", "/ Node", "own µs", "Redis µs")
    print(f"{'':20}" + "".join(f"{column:>10}" for column in columns))
    for name, found in runs.items():
        speeds = [run.jobs_per_s for run in found]
        pairs = zip(found, runs["Node BullMQ 6"], strict=True)
        ratio = statistics.median(run.jobs_per_s / node.jobs_per_s for run, node in pairs)
        print(
            f"{name:20}{statistics.median(speeds):10,.0f}{min(speeds):10,.0f}{max(speeds):10,.0f}"
            f"{ratio:10.2f}{median(name, 'producer_us'):10.1f}{median(name, 'redis_us'):10.1f}"
        )
    print(json.dumps({name: round(median(name, "jobs_per_s")) for name in runs}))


if __name__ == "__main__":
    main()
