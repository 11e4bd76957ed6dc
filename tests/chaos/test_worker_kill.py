"""kill -9 of a worker process and of its master: no job is lost, none waits for its lock."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

from qctl.runtime.processes.slots import MAX_CRASHES
from qctl.wire.read.heartbeats import read_all
from tests.labs import masters as labs
from tests.labs.masters import MasterLab
from tests.labs.servers import RedisServer, wait_until

master_lab = labs.master_lab


def test_jobs_of_a_killed_process_go_back_at_once(master_lab: MasterLab) -> None:
    master = master_lab.run()
    ids = master_lab.add(3, s=1)
    master_lab.wait_started(*ids)
    (pid,) = master.pids
    os.kill(pid, signal.SIGKILL)
    (row,) = master.wait_log("process's jobs put back")
    assert (row["pid"], sorted(row["jobs"].split(","))) == (pid, sorted(ids))
    # Their locks would have held for 30 s.
    master_lab.wait_completed(ids, timeout_s=15)
    assert set(master_lab.counts().values()) == {2}
    # A stall each, as BullMQ counts the jobs of a worker that died.
    assert [master_lab.job(job_id)["stc"] for job_id in ids] == ["1"] * 3
    assert [beat.pid for beat in read_all(master_lab.client, "bull")] == master.pids
    master.stop()


def test_without_its_master_a_process_finishes_and_leaves(master_lab: MasterLab) -> None:
    master = master_lab.run("--processes", "2")
    ids = master_lab.add(4, s=1)
    master_lab.wait_started(*ids)
    pids = master.pids
    os.kill(master.process.pid, signal.SIGKILL)
    wait_until(lambda: all(map(labs.is_gone, pids)), "the processes to leave")
    assert sorted(master_lab.ids("completed")) == sorted(ids)
    assert master_lab.ids("active") == []
    assert set(master_lab.counts().values()) == {1}


def test_kills_at_random_moments_lose_nothing(master_lab: MasterLab) -> None:
    rng = random.Random(7)
    master = master_lab.run("--processes", "2")
    ids: list[str] = []
    kills = 0
    for _ in range(4):
        ids += master_lab.add(200, s=0.01)
        done = len(ids) - rng.randrange(50, 150)
        wait_until(lambda: len(master_lab.ids("completed")) > done, "some to be completed")  # noqa: B023
        os.kill(rng.choice(wait_until(lambda: master.pids, "a process")), signal.SIGKILL)
        kills += 1
    wait_until(
        lambda: len(master_lab.ids("completed")) + len(master_lab.ids("failed")) >= len(ids),
        "all jobs to end",
        timeout_s=20,
    )
    ended = master_lab.ids("completed") + master_lab.ids("failed")
    assert sorted(ended, key=int) == sorted(ids, key=int)
    # A job may have been in the hands of two that were killed.
    reasons = {master_lab.job(job_id)["failedReason"] for job_id in master_lab.ids("failed")}
    assert reasons <= {"job stalled more than allowable limit"}
    assert (master_lab.ids("wait"), master_lab.ids("active")) == ([], [])
    # No process has more than its concurrency in hand.
    assert sum(master_lab.counts().values()) - len(ids) <= kills * 4
    master.stop()


def test_masters_killed_at_random_moments_lose_nothing(master_lab: MasterLab) -> None:
    rng = random.Random(11)
    ids: list[str] = []
    for _ in range(4):
        master = master_lab.run("--processes", "2")
        pids = master.pids
        ids += master_lab.add(300, s=0.01)
        done = len(ids) - rng.randrange(50, 250)
        wait_until(lambda: len(master_lab.ids("completed")) > done, "some to be completed")  # noqa: B023
        os.kill(master.process.pid, signal.SIGKILL)
        wait_until(lambda: all(map(labs.is_gone, pids)), "the processes to leave")  # noqa: B023
    master = master_lab.run("--processes", "2")
    master_lab.wait_completed(ids)
    assert sorted(master_lab.ids("completed"), key=int) == sorted(ids, key=int)
    assert (master_lab.ids("wait"), master_lab.ids("active")) == ([], [])
    # The processes themselves were not killed, so nothing was started twice.
    assert set(master_lab.counts().values()) == {1}
    master.stop()


def test_a_process_that_dies_while_redis_is_away(
    start_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    lab = MasterLab(tmp_path, server.url)
    try:
        master = lab.run("--processes", "2")
        ids = lab.add(8, s=1)
        lab.wait_started(*ids)
        server.stop()
        for pid in master.pids:
            os.kill(pid, signal.SIGKILL)
        master.wait_log("process's jobs not yet put back", 2)
        # More often than makes a crash loop: what has worked will work again.
        master.wait_log("process died before it was ready", MAX_CRASHES + 1)
        assert master.process.poll() is None
        server.start()
        master.wait_log("process's jobs put back", 2)
        lab.wait_completed(ids)
        assert set(lab.counts().values()) == {2}
        master.stop()
    finally:
        lab.close()
