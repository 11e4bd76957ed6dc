"""Workers and Redis killed at random moments: each job ends in exactly one state, none is lost, and
each run beyond the first has a kill or a failure before it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from qctl import Queue
from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import QctlError
from qctl.wire.keys import QueueKeys
from qctl.wire.write.adding import FlowJob, NewJob
from tests.labs.servers import RedisServer, wait_until

APP = Path(__file__).parent / "worker_app.py"
Q = QueueKeys("bull", "q")
AOF = ("--appendonly", "yes", "--appendfsync", "always")
WORKERS = 3
KILLS = 14
FLOWS, CHILDREN, SINGLE = 100, 4, 1500


@dataclass(frozen=True, slots=True)
class Run:
    pid: int
    at: float
    what: str


class Fleet:
    """Worker processes; any of them may die."""

    def __init__(self, url: str, folder: Path, chance: Random) -> None:
        self.book = folder / "book"
        self.killed: set[int] = set()
        self._url = url
        self._chance = chance
        self._log = folder / "stderr.log"
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        with self._log.open("ab") as stderr:
            command = [sys.executable, str(APP), self._url, str(self.book)]
            self._processes.append(subprocess.Popen(command, stderr=stderr))

    def kill_one(self) -> None:
        victim = self._processes.pop(self._chance.randrange(len(self._processes)))
        self.killed.add(victim.pid)
        victim.kill()
        victim.wait(10)

    def mend(self) -> None:
        """Replace what has ended: a worker does not start while Redis is away."""
        ended = [process for process in self._processes if process.poll() is not None]
        for process in ended:
            self._processes.remove(process)
            self.start()

    def end(self) -> None:
        for process in self._processes:
            assert process.poll() is None, f"a worker has ended:\n{self._log.read_text()[-3000:]}"
            process.terminate()
        for process in self._processes:
            assert process.wait(20) == 0, self._log.read_text()[-3000:]
        self._processes.clear()

    def discard(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait(10)

    def runs(self) -> dict[str, list[Run]]:
        """What was noted, job by job, in order."""
        found: dict[str, list[Run]] = {}
        for line in self.book.read_text().splitlines():
            job_id, pid, at, what = line.split(" ")
            found.setdefault(job_id, []).append(Run(int(pid), float(at), what))
        return found


@pytest.fixture
def fleet(
    start_redis: Callable[..., RedisServer], tmp_path: Path, chance: Random
) -> Iterator[tuple[Fleet, RedisServer]]:
    server = start_redis(*AOF)
    fleet = Fleet(server.url, tmp_path, chance)
    yield fleet, server
    fleet.discard()


def add(url: str) -> list[str]:
    options = [
        {}, {"priority": 3}, {"delay": 1.5}, {"data": {"fail_times": 1}, "attempts": 3},
        {"data": {"fail_times": 1}, "attempts": 2, "backoff": "fixed:50ms"},
        {"data": {"fail_times": 9}, "attempts": 2}, {"lifo": True}, {},
    ]  # fmt: skip
    with Queue("q", redis_url=url) as queue:
        ids = queue.add_bulk([NewJob("j", **options[n % len(options)]) for n in range(SINGLE)])
        for number in range(FLOWS):
            children = [FlowJob("child", "q", job_id=f"f{number}c{c}") for c in range(CHILDREN)]
            queue.add_flow(FlowJob("parent", "q", job_id=f"f{number}", children=children))
            ids += [f"f{number}", *(child.job_id or "" for child in children)]
    return ids


def ended(url: str, count: int) -> bool:
    try:
        client = connect(url)[1]
        try:
            return sum(int(client.call("ZCARD", Q(s))) for s in ("completed", "failed")) == count
        finally:
            client.close()
    except QctlError:
        return False


def unexplained(runs: list[Run], killed: set[int], outages: list[tuple[float, float]]) -> list[Run]:
    """Starts after the first that neither a failure nor a kill before them explains."""
    found = []
    before: Run | None = None
    for run in runs:
        if run.what == "start" and before is not None:
            hit = any(began <= run.at and before.at <= over for began, over in outages)
            if before.what != "fail" and before.pid not in killed and not hit:
                found.append(run)
        before = run
    return found


def test_no_kill_loses_a_job(fleet: tuple[Fleet, RedisServer], chance: Random) -> None:
    workers, server = fleet
    ids = add(server.url)
    for _ in range(WORKERS):
        workers.start()
    wait_until(workers.book.exists, "the first job to start")
    outages = []
    for number in range(KILLS):
        time.sleep(chance.uniform(0.1, 0.6))
        workers.mend()
        workers.kill_one()
        workers.start()
        if number % 5 == 2:
            time.sleep(chance.uniform(0, 0.2))
            began = time.time()
            server.kill()
            server.start()
            # Until the locks that ran out meanwhile have been seen to by the stalled checks.
            outages.append((began, time.time() + 1.0))
    time.sleep(0.5)
    workers.mend()
    wait_until(lambda: ended(server.url, len(ids)), "all jobs to end", timeout_s=40, every_s=0.1)
    workers.end()
    prove(connect(server.url)[1], workers, ids, outages)


def prove(
    client: Client, workers: Fleet, ids: list[str], outages: list[tuple[float, float]]
) -> None:
    completed = client.call("ZRANGE", Q("completed"), 0, -1)
    failed = client.call("ZRANGE", Q("failed"), 0, -1)
    assert sorted(completed + failed) == sorted(ids)
    assert len(failed) == len(range(5, SINGLE, 8))
    places = ("wait", "active", "delayed", "prioritized", "waiting-children", "paused")
    assert client.call("EXISTS", *map(Q, places), *map(Q.lock, ids)) == 0
    client.close()

    runs = workers.runs()
    assert runs.keys() == set(ids)
    stray = {job_id: unexplained(runs[job_id], workers.killed, outages) for job_id in ids}
    assert not {job_id: found for job_id, found in stray.items() if found}
    # The kills hit jobs in hand, or nothing was proved.
    starts = sum(run.what == "start" for job_id in ids for run in runs[job_id])
    assert starts > sum(run.what == "end" for job_id in completed for run in runs[job_id])
    # A parent ran when its children had.
    for number in range(FLOWS):
        first = runs[f"f{number}"][0].at
        last_of = [runs[f"f{number}c{c}"] for c in range(CHILDREN)]
        assert all(any(r.what == "end" and r.at <= first for r in child) for child in last_of)
