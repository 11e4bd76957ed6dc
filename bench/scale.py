"""What qctl's commands cost where there is much of everything.

    python bench/scale.py --small          # a hundredth, to try it
    python bench/scale.py                  # 17 million keys: 8 GB of memory, 25 minutes

Fills a private redis-server (no persistence) with 1,000 queues, one queue with 5 million completed
and 1 million failed jobs, one with 1 million waiting ones, and 10 million keys of other
applications. Then runs whole commands as processes and prints for each: the median time, the
memory of the process at its peak, the round trips, the commands that Redis ran, the processor time
that Redis took, and the longest command by Redis' own clock (SLOWLOG; what this program itself
sends is left out).

That clock goes on while Redis waits for a processor or for memory, its own or its host's. So of
commands that can be repeated the least time counts that each of theirs took. After each that cannot
Redis runs a script of constant work for as long: how often that takes longer than the limit is what
the machine does to any command.

Commands that this version does not have are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from cli_cold import QCTL, start_redis
from scale_control import LIMIT_US, Control
from scale_load import BACKLOG, BIG, Sizes, check_memory, fill

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.wire.read.clients import client_name

NAME = "bench"
WORKERS = 40
LOGGED_US = 50
# Runs a command; writes how many round trips it took, and the peak of its memory in kB. What the
# system says of a child's memory begins with its parent's.
COUNTED = """
import sys
path = sys.argv.pop(1)
from qctl.connection import socket_client
trips = 0
inner = socket_client.SocketClient._exchange
def counted(self, *rest):
    global trips
    trips += 1
    return inner(self, *rest)
socket_client.SocketClient._exchange = counted
from qctl.cli.main import main
try:
    main()
finally:
    peak = open('/proc/self/status').read().split('VmHWM:')[1].split()[0]
    open(path, 'w').write(f'{trips} {peak}')
"""


@dataclass(frozen=True, slots=True)
class Run:
    """A command to measure.

    Args:
        title: what it stands for in the table.
        words: after ``qctl``.
        rounds: how often; 1 for what changes data.
        forget: whether to forget the remembered names first.
    """

    title: str
    words: tuple[str, ...]
    rounds: int = 5
    forget: bool = False


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run of a command took.

    Args:
        longest_us: by the beginning of a command that Redis ran, e.g. ``SCAN 0``.
        over: how many that began so took longer than the limit.
    """

    seconds: float
    rss_bytes: int
    commands: int
    trips: int
    redis_ms: float
    longest_us: Mapping[str, int]
    over: Mapping[str, int]


def least(rounds: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Of each in all rounds the least; what is missing in one is 0 there."""
    return {key: min(each.get(key, 0) for each in rounds) for key in rounds[0]}


def runs(sizes: Sizes) -> list[Run]:
    """Everything that is measured, in this order; what changes data comes last."""
    timeout = 'error ~ "timeout"'
    one = f"data.user.id = {21 + sizes.completed + 1}"
    failed = ("jobs", "list", BIG, "--state", "failed")
    waiting = ("jobs", "list", BACKLOG, "--state", "waiting")
    small = "queue-0000"
    retry = ("jobs", "retry-failed")
    return [
        Run("discovery, cold", ("queues",), rounds=3, forget=True),
        Run("status of all, names looked for", ("status",), rounds=3, forget=True),
        Run("status of all, names remembered", ("status",)),
        Run("status of all, JSON", ("status", "--json")),
        Run("status of the big queue", ("status", BIG)),
        Run("status of a small queue", ("status", small)),
        Run("workers", ("workers",)),
        Run("failed, page of a small queue", ("jobs", "list", small, "--state", "failed")),
        Run("failed, first page of the million", failed),
        Run("failed, --limit 10000", (*failed, "--limit", "10000")),
        Run("failed, all as ndjson", (*failed, "--limit", "10000000", "--output", "ndjson"),
            rounds=1),
        Run("failed, the oldest one (--where)", (*failed, "--where", one), rounds=1),
        Run("waiting, first page of the million", waiting),
        Run("waiting, the last one (--where)", (*waiting, "--where", f"id = {sizes.waiting + 20}"),
            rounds=1),
        Run("jobs show, first of the list", ("jobs", "show", BACKLOG, str(sizes.waiting + 20))),
        Run("jobs show, in its middle", ("jobs", "show", BACKLOG, str(sizes.waiting // 2))),
        Run("jobs show, a failed job", ("jobs", "show", BIG, str(30 + sizes.completed))),
        Run("retry-stalled --dry-run, all queues", ("jobs", "retry-stalled", "--dry-run"),
            rounds=2),
        Run("impact", ("impact", BIG), rounds=3),
        Run("doctor", ("doctor",), rounds=2),
        Run("metrics", ("metrics",), rounds=3),
        Run("retry-failed --dry-run, small queue", (*retry, small, "--dry-run")),
        Run("retry-failed --dry-run, one match", (*retry, BIG, "--where", one, "--dry-run"),
            rounds=1),
        Run("retry-failed --dry-run, half match", (*retry, BIG, "--where", timeout, "--dry-run"),
            rounds=1),
        Run("failures, by reason", ("jobs", "failures", BIG), rounds=1),
        Run("failures, a million groups", ("jobs", "failures", BIG, "--by", "data.user.id"),
            rounds=1),
        Run("retry-failed, half of the million", (*retry, BIG, "--where", timeout, "--yes"),
            rounds=1),
        Run("remove one, in the middle of the million",
            ("jobs", "remove", BACKLOG, str(sizes.waiting // 2), "--yes"), rounds=1),
        Run("remove the last (--where) of the million",
            ("jobs", "remove", BACKLOG, "--state", "waiting", "--where",
             f"id = {sizes.waiting + 20}", "--yes"), rounds=1),
        Run("purge, the other half of the failed",
            ("purge", BIG, "--state", "failed", "--yes"), rounds=1),
    ]  # fmt: skip


def main() -> None:
    options = parse()
    folder = Path(tempfile.mkdtemp(prefix="qb-", dir="/tmp"))
    check_memory()
    redis, port = start_redis(folder)
    give_a_processor(redis.pid)
    url = f"redis://127.0.0.1:{port}/0"
    try:
        sizes = Sizes(*(getattr(options, field.name) for field in fields(Sizes)))
        client = connect(url)[1]
        began = time.monotonic()
        fill(client, sizes.divided_by(100) if options.small else sizes)
        sizes = sizes.divided_by(100) if options.small else sizes
        lab = Lab(client, url, folder)
        print_surroundings(client, sizes, time.monotonic() - began)
        workers = lab.connect_workers()
        lab.print_yardsticks(sizes.queues)
        lab.print_table(sizes, options.only)
        for worker in workers:
            worker.close()
        client.close()
    finally:
        redis.terminate()
        redis.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def give_a_processor(pid: int) -> None:
    """Redis' clock goes on while others have the processor, so it gets one of its own."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(pid, cores[-1:])
        # Inherited by all that is started from here on.
        os.sched_setaffinity(0, cores[:-1])
    # What the system itself runs there comes second, which only root may say.
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, pid, -15)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for field in fields(Sizes):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    parser.add_argument("--small", action="store_true", help="a hundredth of the jobs and keys")
    parser.add_argument("--only", default="", help="only rows whose title has this in it")
    return parser.parse_args()


def print_surroundings(client: Client, sizes: Sizes, seconds: float) -> None:
    info = dict(line.split(":", 1) for line in str(client.call("INFO")).splitlines() if ":" in line)
    memory = int(info["used_memory"]) / 2**30
    print(f"Python {sys.version.split()[0]}, Redis {info['redis_version']}, {os.cpu_count()} CPUs")
    print(f"{sizes}")
    print(f"{client.call('DBSIZE'):,} keys, {memory:.1f} GiB in Redis, filled in {seconds:.0f} s")


class Lab:
    """Runs commands against the server and reads from it what they cost."""

    def __init__(self, client: Client, url: str, folder: Path) -> None:
        self._client = client
        self._folder = folder
        self._url = url
        client.call("CLIENT", "SETNAME", NAME)
        client.call("CONFIG", "SET", "slowlog-max-len", 100_000)
        client.call("CONFIG", "SET", "slowlog-log-slower-than", LOGGED_US)
        self._environ = {
            **{key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"},
            "QCTL_REDIS_URL": url,
            "PYTHONPYCACHEPREFIX": str(folder / "pycache"),
            "PM2_HOME": str(folder / "pm2"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }

    def connect_workers(self) -> list[Client]:
        """Connections that look like workers' while they are open."""
        workers = []
        for number in range(WORKERS):
            _, worker = connect(self._url)
            queue = f"queue-{number:04d}"
            worker.call("CLIENT", "SETNAME", client_name("bull", queue, f"host:{number}"))
            workers.append(worker)
        return workers

    def print_yardsticks(self, queues: int) -> None:
        """What the network and the interpreter take in any case."""

        def timed(what: str, action: object) -> None:
            times = []
            for _ in range(21):
                start = time.perf_counter()
                action()  # type: ignore[operator]
                times.append((time.perf_counter() - start) * 1000)
            print(f"{what:44}{statistics.median(times):9.2f} ms")

        ping = ("PING",)
        lengths = [("LLEN", f"bull:queue-{n:04d}:{k}") for n in range(queues) for k in range(21)]
        timed("a round trip (PING)", lambda: self._client.call(*ping))
        timed("21 commands a queue, replies thrown away", lambda: self._client.pipeline(lengths))
        timed("qctl --version, a process that does nothing", lambda: self._run(("--version",)))

    def print_table(self, sizes: Sizes, only: str) -> None:
        columns = ("seconds", "MiB", "trips", "commands", "Redis ms", "longest ms")
        print(f"{'':41}" + "".join(f"{column:>11}" for column in columns))
        control = Control(self._client, f"bull:{BIG}:", sizes.completed)
        for run in runs(sizes):
            if only not in run.title or not self._exists(run.words):
                continue
            cost = self.measure(run)
            begins = max(cost.longest_us, key=cost.longest_us.__getitem__, default="")
            longest_us = cost.longest_us.get(begins, 0)
            print(
                f"{run.title:41}{cost.seconds:11.3f}{cost.rss_bytes / 2**20:11.0f}"
                f"{cost.trips:11,}{cost.commands:11,}{cost.redis_ms:11.1f}"
                f"{longest_us / 1000:11.2f} {begins[:24]}",
                flush=True,
            )
            over = sum(cost.over.values())
            if run.rounds > 1:
                control.note_repeated(over, longest_us)
            else:
                control.compare(over, longest_us, cost.redis_ms / 1000)
        print(control.verdict())

    def measure(self, run: Run) -> Cost:
        """Medians over the rounds; of what commands took the least, since that is not waiting."""
        costs = []
        for _ in range(run.rounds):
            if run.forget:
                shutil.rmtree(self._folder / "state", ignore_errors=True)
            costs.append(self._cost(run.words))
        return Cost(
            seconds=statistics.median(cost.seconds for cost in costs),
            rss_bytes=round(statistics.median(cost.rss_bytes for cost in costs)),
            commands=round(statistics.median(cost.commands for cost in costs)),
            trips=round(statistics.median(cost.trips for cost in costs)),
            redis_ms=statistics.median(cost.redis_ms for cost in costs),
            longest_us=least([cost.longest_us for cost in costs]),
            over=least([cost.over for cost in costs]),
        )

    def _exists(self, words: Sequence[str]) -> bool:
        names = [word for word in words[:2] if word.replace("-", "").isalpha()]
        names = names if words[0] == "jobs" else names[:1]
        ran = subprocess.run(
            [QCTL, *names, "--help"], env=self._environ, capture_output=True, check=False
        )
        return ran.returncode == 0

    def _cost(self, words: Sequence[str]) -> Cost:
        client = self._client
        client.call("SLOWLOG", "RESET")
        before, used = self._commands(), self._used_ms()
        seconds, trips, rss_bytes = self._run(words)
        used, commands = self._used_ms() - used, self._commands() - before
        longest_us: Counter[str] = Counter()
        over: Counter[str] = Counter()
        for _, _, micros, command, _, sender in client.call("SLOWLOG", "GET", -1):
            if sender != NAME:
                begins = " ".join(command[:2])
                longest_us[begins] = max(longest_us[begins], micros)
                over[begins] += micros >= LIMIT_US
        return Cost(seconds, rss_bytes, commands, trips, used, longest_us, over)

    def _used_ms(self) -> float:
        """Processor time of Redis so far."""
        fields = dict(
            line.split(":") for line in str(self._client.call("INFO", "cpu")).split() if ":" in line
        )
        kinds = ("used_cpu_user_main_thread", "used_cpu_sys_main_thread")
        return 1000 * sum(float(fields[kind]) for kind in kinds)

    def _commands(self) -> int:
        """Run so far, those within scripts too, without those that ask for it."""
        stats = str(self._client.call("INFO", "commandstats"))
        calls = {
            line.split(":")[0]: int(line.split("calls=")[1].split(",")[0])
            for line in stats.splitlines()
            if "calls=" in line
        }
        return sum(n for name, n in calls.items() if not name.startswith("cmdstat_slowlog")) - (
            calls.get("cmdstat_info", 0)
        )

    def _run(self, words: Sequence[str]) -> tuple[float, int, int]:
        """Seconds, round trips and peak memory in bytes of one process."""
        path = self._folder / "counted"
        start = time.perf_counter()
        ran = subprocess.run(
            [sys.executable, "-c", COUNTED, str(path), *words],
            env=self._environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, cwd=self._folder, check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        # A doctor that finds something ends with 1.
        if ran.returncode not in {0, 1}:
            raise SystemExit(f"qctl {' '.join(words)}: {ran.stderr.decode()}")
        trips, peak_kb = path.read_text().split()
        return seconds, int(trips), int(peak_kb) * 1024


if __name__ == "__main__":
    main()
