"""``qctl restart qctl:NAME`` under load: no pause, no gap, each job runs once."""

from __future__ import annotations

import json
import random
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qctl import Queue
from tests.labs.drains import is_alive
from tests.labs.masters import MasterLab, Q
from tests.labs.servers import wait_until

APP = """
    import asyncio, os
    from qctl import Worker

    worker = Worker("q", concurrency=8)

    @worker.task()
    async def run(job):
        with open("starts", "a") as file:
            file.write(f"{job.id} {os.getpid()}\\n")
        await asyncio.sleep(job.data["s"])
        return VERSION
"""


@pytest.fixture
def lab(tmp_path: Path, redis_url: str) -> Iterator[MasterLab]:
    lab = MasterLab(tmp_path, redis_url)
    lab.write(APP.replace("VERSION", "1"))
    try:
        yield lab
    finally:
        lab.qctl("worker", "stop", "app", "--grace", "0.1s")
        lab.close()


class Load:
    """Adds jobs of 0.2 to 1 s until it is stopped."""

    def __init__(self, redis_url: str) -> None:
        self.ids: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._add, args=[redis_url])
        self._thread.start()

    def _add(self, redis_url: str) -> None:
        queue = Queue("q", redis_url=redis_url)
        chance = random.Random(7)
        while not self._over.wait(0.06):
            self.ids.append(queue.add("job", {"s": chance.uniform(0.2, 1)}))
        queue.close()

    def stop(self) -> list[str]:
        self._over.set()
        self._thread.join(10)
        return self.ids


@pytest.fixture
def load(lab: MasterLab) -> Iterator[Load]:
    load = Load(lab.redis_url)
    yield load
    load.stop()


def start(lab: MasterLab, *words: str) -> list[int]:
    """Start two processes; their pids."""
    done = lab.qctl("worker", "start", "app", "app:worker", "--processes", "2", *words)
    assert done.returncode == 0, done.stderr
    return pids(lab)


def pids(lab: MasterLab) -> list[int]:
    (worker,) = json.loads(lab.qctl("worker", "list", "--json").stdout)["workers"]
    return [process["pid"] for process in worker["processes"]]


def test_a_restart_under_load(lab: MasterLab, load: Load) -> None:
    before = start(lab)
    wait_until(lambda: len(lab.starts()) > 10, "jobs to run")
    lab.write(APP.replace("VERSION", "2"))
    done = lab.qctl("restart", "qctl:app", "--json")
    added = load.stop()

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["outcome"], report["strategy"]) == ("restarted", "roll")
    assert (report["interrupted"], report["lost"], report["recovered"]) == (0, 0, 0)
    assert report["paused_s"] == 0
    assert report["idle_s"] < 0.5
    assert report["active_at_start"] > 0
    assert {job["result"] for job in report["jobs"]} <= {"completed", "running"}
    after = pids(lab)
    assert report["old_pids"] == before
    assert report["new_pids"] == after
    assert not any(map(is_alive, before))

    lab.wait_completed(added)
    assert lab.counts() == dict.fromkeys(added, 1)
    assert {pid for _, pid in lab.starts()} == {*before, *after}
    # The new processes run the new code.
    assert {lab.job(job_id)["returnvalue"] for job_id in added} == {"1", "2"}
    assert lab.job(added[-1])["returnvalue"] == "2"
    assert lab.client.call("KEYS", "qctl:lease*") == []
    assert not lab.client.call("HEXISTS", Q("meta"), "paused")


@pytest.mark.parametrize("strategy", ["roll", "pause"])
def test_code_that_does_not_start_changes_nothing(
    lab: MasterLab, load: Load, strategy: str
) -> None:
    before = start(lab)
    lab.write("raise ImportError('a module is missing')")
    done = lab.qctl("restart", "qctl:app", "--strategy", strategy, "--json")
    added = load.stop()
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert (report["outcome"], report["interrupted"], report["lost"]) == ("aborted", 0, 0)
    what, why = report["error"].splitlines()[:2]
    assert what == "qctl:app (id app/0) was not replaced; the old process keeps working"
    assert why.endswith("died before it was ready: ImportError: a module is missing")
    # The old ones were told nothing.
    assert (report["old_pids"], report["notes"]) == ([], [])
    assert pids(lab) == before
    lab.wait_completed(added)
    assert lab.counts() == dict.fromkeys(added, 1)


def test_two_rolls_in_a_row(lab: MasterLab) -> None:
    seen = start(lab)
    lab.queue.add("job", {"s": 0})
    for _ in range(2):
        done = lab.qctl("restart", "qctl:app", "--json")
        assert done.returncode == 0, done.stderr
        seen += json.loads(done.stdout)["new_pids"]
        assert pids(lab) == seen[-2:]
    assert len(set(seen)) == 6


@pytest.mark.parametrize("strategy", ["roll", "pause"])
def test_a_master_that_is_stopped_meanwhile_is_not_started(lab: MasterLab, strategy: str) -> None:
    before = start(lab, "--grace", "0.5s")
    jobs = [lab.queue.add("job", {"s": 15}) for _ in range(8)]
    lab.wait_started(*jobs)
    done: list[subprocess.CompletedProcess[str]] = []
    words = ("restart", "qctl:app", "--strategy", strategy, "--json")
    drain = threading.Thread(target=lambda: done.append(lab.qctl(*words)))
    drain.start()

    def has_begun() -> bool:
        if strategy == "pause":
            return bool(lab.client.call("HEXISTS", Q("meta"), "paused"))
        return pids(lab)[0] != before[0]

    wait_until(has_begun, "the drain to wait")
    assert lab.qctl("worker", "stop", "app").returncode == 0
    drain.join(60)
    report = json.loads(done[0].stdout)
    assert (done[0].returncode, report["outcome"]) == (1, "aborted")
    assert "its master has ended: somebody stopped it during the drain" in report["error"]
    assert (report["retried"], report["interrupted"], report["lost"]) == (8, 0, 0)
    assert lab.client.call("LLEN", Q("wait")) == 8
    assert lab.client.call("KEYS", "qctl:lease*") == []
    assert not lab.client.call("HEXISTS", Q("meta"), "paused")


def test_jobs_may_take_longer_than_the_grace(lab: MasterLab) -> None:
    start(lab, "--grace", "0.5s")
    # Both processes have some.
    jobs = [lab.queue.add("job", {"s": 5}) for _ in range(16)]
    lab.wait_started(*jobs)
    done = lab.qctl("restart", "qctl:app", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert (report["completed"], report["interrupted"], report["lost"]) == (16, 0, 0)
    assert lab.counts() == dict.fromkeys(jobs, 1)


def test_when_the_time_is_up_it_stops_and_the_old_process_goes_on(lab: MasterLab) -> None:
    before = start(lab)
    jobs = [lab.queue.add("job", {"s": 5}) for _ in range(16)]
    lab.wait_started(*jobs)
    done = lab.qctl("restart", "qctl:app", "--timeout", "1.5s", "--json")
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 4
    assert (report["outcome"], report["interrupted"], report["lost"]) == ("timeout", 0, 0)
    # Those of the first process alone.
    assert len(report["still_active"]) == 8
    assert report["old_pids"] == before[:1]
    lab.wait_completed(jobs)
    assert lab.counts() == dict.fromkeys(jobs, 1)


def test_the_plan(lab: MasterLab) -> None:
    start(lab)
    lab.queue.add("job", {"s": 0})
    done = lab.qctl("restart", "qctl:app", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "one process after another" in done.stdout
    assert "qctl:app id app/1" in done.stdout
    for words in (["--keep-paused"], ["--on-timeout", "restart"]):
        done = lab.qctl("restart", "qctl:app", *words)
        assert done.returncode == 2
        assert words[0] in done.stderr
        assert "--strategy pause" in done.stderr
