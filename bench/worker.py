"""Jobs a second of qctl's worker beside BullMQ's, on one Redis, in turn.

    python bench/worker.py [--rounds 5] [--jobs 20000] [--only no-op|wait|compute]
        [--without-python-bullmq]

Measured are handlers that do nothing, that await 1, 10 and 100 ms, and that compute for 1 ms in one
process and in two. Every run: a private Redis is emptied, filled with jobs (in the form that
BullMQ's own producer gives them), and one worker takes them all; each peer is a process of its own,
and they take turns, so that a slow moment of the machine hits all of them alike. Printed are
medians: jobs a second, and the CPU time that a job cost the worker and Redis. The ratios are
medians of the rounds' ratios.

"asyncio alone" is the bound of every worker on asyncio: as many loops of ``asyncio.sleep`` with no
queue. Node needs the packages of the interop tests (any of those tests installs them); BullMQ's
Python port is installed into a temporary folder.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.wire.keys import QueueKeys

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "bench/peers"
NODE_MODULES = ROOT / "tests/interop/node_modules"
KEYS = QueueKeys("bull", "bench")
Row = dict[str, float]


@dataclass(frozen=True)
class Case:
    """Handlers that do nothing (``ms`` 0), ``wait`` or ``compute``, in workers of one size."""

    concurrency: int
    handler: str = "wait"
    ms: int = 0

    def __str__(self) -> str:
        does = {"wait": "await", "compute": "compute for"}[self.handler]
        return (
            f"concurrency {self.concurrency}, handlers {does} {self.ms} ms"
            if self.ms
            else (f"concurrency {self.concurrency}, no-op handlers")
        )

    def jobs(self, limit: int) -> int:
        """How many jobs a run has: enough for about 2 s."""
        if not self.ms:
            return limit if self.concurrency > 1 else limit // 5
        at_a_time = self.concurrency if self.handler == "wait" else 1
        return min(limit, 2000 * at_a_time // self.ms)


CASES = {
    "no-op": [Case(1), Case(10), Case(100)],
    "wait": [Case(100, ms=1), Case(100, ms=10), Case(100, ms=100)],
    "compute": [Case(10, "compute", 1)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--without-python-bullmq", action="store_true")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="qb-", dir="/tmp"))
    redis, port = start_redis(folder)
    try:
        client = connect(f"redis://127.0.0.1:{port}/0")[1]
        python = None if options.without_python_bullmq else install_python_bullmq(folder)
        for kind in [options.only] if options.only else CASES:
            for case in CASES[kind]:
                peers = commands(port, case, python)
                report(case, options.rounds, run_rounds(client, peers, options, case))
        client.close()
    finally:
        redis.terminate()
        redis.wait(10)
        shutil.rmtree(folder)


def commands(port: int, case: Case, python: str | None) -> dict[str, tuple[list[str], int]]:
    """Peer → its command without count and handler, and how many processes share the jobs."""
    size = [str(port), str(case.concurrency)]
    ours = [sys.executable, str(PEERS / "qctl_worker.py"), *size]
    peers = {
        "BullMQ 6 (Node)": (["node", str(PEERS / "bullmq_worker.js"), *size], 1),
        "qctl": (ours, 1),
    }
    if case.handler == "compute" or not case.ms:
        peers["qctl, 2 processes"] = (ours, 2)
    if python and not case.ms:
        peers["bullmq (Python)"] = ([python, str(PEERS / "python_bullmq_worker.py"), *size], 1)
    return peers


def run_rounds(
    client: Client,
    peers: dict[str, tuple[list[str], int]],
    options: argparse.Namespace,
    case: Case,
) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {name: [] for name in peers}
    if case.ms and case.handler == "wait":
        rows["asyncio alone"] = []
    for _ in range(options.rounds):
        for name, (command, processes) in peers.items():
            jobs = case.jobs(options.jobs)
            if "Python" in name:
                # A tenth as fast: as many jobs would take the whole time.
                jobs = min(jobs, max(jobs // 10, 500))
            rows[name].append(run(client, command, processes, jobs, case))
        if "asyncio alone" in rows:
            rows["asyncio alone"].append(asyncio.run(bare_sleeps(case.concurrency, case.ms / 1000)))
    return rows


def run(client: Client, command: Sequence[str], processes: int, jobs: int, case: Case) -> Row:
    fill(client, jobs)
    redis_cpu = cpu_of_redis(client)
    # Several processes share the jobs and end when the queue is empty, so the count is for one.
    running = [
        subprocess.Popen(
            [*command, str(jobs), case.handler, str(case.ms)],
            env={**os.environ, "NODE_PATH": str(NODE_MODULES)},
            stdout=subprocess.PIPE, text=True,
        )
        for _ in range(processes)
    ]  # fmt: skip
    told = [json.loads(process.communicate(timeout=300)[0].splitlines()[-1]) for process in running]
    done = int(client.call("ZCARD", KEYS("completed")))
    if done != jobs:
        raise SystemExit(f"{command}: {done} of {jobs} jobs completed")
    seconds = max(row["seconds"] for row in told)
    return {
        "rate": jobs / seconds,
        "worker_us": sum(row["cpu_s"] for row in told) / jobs * 1e6,
        "redis_us": (cpu_of_redis(client) - redis_cpu) / jobs * 1e6,
    }


def report(case: Case, rounds: int, rows: dict[str, list[Row]]) -> None:
    print(f"\n{case}; medians of {rounds} rounds")
    print(f"{'':20} {'jobs/s':>8} {'worker µs/job':>14} {'Redis µs/job':>13} {'qctl is':>8}")
    for name, runs in rows.items():
        rate, worker, redis = (
            statistics.median(row[key] for row in runs) for key in ("rate", "worker_us", "redis_us")
        )
        ratio = statistics.median(
            ours["rate"] / theirs["rate"] for ours, theirs in zip(rows["qctl"], runs, strict=True)
        )
        print(f"{name:20} {rate:8,.0f} {worker:14.1f} {redis:13.1f} {ratio:7.2f}x", flush=True)
    if case.ms:
        at_a_time = case.concurrency if case.handler == "wait" else 1
        print(f"ideal, for a process: {at_a_time / case.ms * 1000:,.0f} jobs/s")


async def bare_sleeps(concurrency: int, sleep_s: float) -> Row:
    """How many sleeps a second as many tasks make that do nothing else."""
    done, cpu, began = 0, time.process_time(), time.perf_counter()

    async def sleep_on() -> None:
        nonlocal done
        while time.perf_counter() - began < 2:
            await asyncio.sleep(sleep_s)
            done += 1

    await asyncio.gather(*(sleep_on() for _ in range(concurrency)))
    took_s = time.perf_counter() - began
    return {
        "rate": done / took_s,
        "worker_us": (time.process_time() - cpu) / done * 1e6,
        "redis_us": 0.0,
    }


def fill(client: Client, jobs: int) -> None:
    """Jobs as BullMQ adds them, without their events."""
    client.call("FLUSHALL")
    client.call("HSET", KEYS("meta"), "opts.maxLenEvents", "10000", "version", "bullmq:6.7.0")
    now_ms = int(time.time() * 1000)
    for start in range(1, jobs + 1, 1000):
        ids = [str(number) for number in range(start, min(start + 1000, jobs + 1))]
        fields = ("name", "noop", "opts", '{"attempts":0}', "timestamp", now_ms)
        more = ("delay", 0, "priority", 0)
        commands = [("HSET", KEYS(i), *fields, *more, "data", f'{{"n":{i}}}') for i in ids]
        client.pipeline([*commands, ("LPUSH", KEYS("wait"), *ids)])


def cpu_of_redis(client: Client) -> float:
    """CPU seconds of Redis' main thread, which runs all commands."""
    rows = dict(line.split(":", 1) for line in client.call("INFO", "cpu").split() if ":" in line)
    return float(rows["used_cpu_user_main_thread"]) + float(rows["used_cpu_sys_main_thread"])


def start_redis(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    sys.path.insert(0, str(ROOT))
    from tests.labs.servers import free_port  # noqa: PLC0415 - only a checkout has the tests

    port = free_port()
    process = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    for _ in range(500):
        try:
            connect(f"redis://127.0.0.1:{port}/0")[1].call("PING")
        except Exception:
            time.sleep(0.01)
            continue
        return process, port
    raise SystemExit("redis-server did not start")


def install_python_bullmq(folder: Path) -> str | None:
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = str(venv / "bin/python")
    done = subprocess.run([python, "-m", "pip", "install", "-q", "bullmq"], check=False)
    if done.returncode:
        print("BullMQ's Python port could not be installed: left out")
        return None
    return python


if __name__ == "__main__":
    main()
