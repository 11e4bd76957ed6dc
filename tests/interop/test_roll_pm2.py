"""A roll over the instances of a PM2 app: no pause, and still nothing is interrupted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import psutil
import pytest

from tests.labs.drains import Lab, is_alive
from tests.labs.node import runs
from tests.labs.servers import wait_until

ROLL = ("restart", "pm2:app", "--strategy", "roll")


@pytest.mark.parametrize(
    ("cluster", "options", "queues", "prefix"),
    [
        (True, {}, ["q"], "bull"),
        (False, {"autorestart": False}, ["q"], "bull"),
        (False, {}, ["emails", "videos"], "{$QUEUE}"),
    ],
    ids=["cluster", "fork-no-autorestart", "two-prefixes"],
)
def test_a_roll_under_load(
    lab: Lab, cluster: bool, options: dict[str, object], queues: list[str], prefix: str
) -> None:
    lab.prefix = prefix
    lab.app(
        queues=",".join(queues), instances=2, cluster=cluster, concurrency=4, HANDLE_SIGINT=1,
        options=options,
    )  # fmt: skip
    before = sorted(row.pid for row in lab.pm2.rows("app"))
    producers = {queue: lab.producer(queue, EVERY_MS=60, JOB_MS=200) for queue in queues}
    for producer in producers.values():
        producer.wait_ids(5)
    held = {queue: lab.hold(2, queue=queue) for queue in queues}
    roll = lab.steps(*ROLL, "--prefix", prefix)
    roll.await_step("restarting")
    begun_ms = time.time() * 1000
    # Longer than PM2's kill timeout.
    time.sleep(2)
    for queue in queues:
        lab.release(queue)
    done = roll.finish()
    assert done.code == 0, done.err
    report = done.report

    def take_jobs() -> bool:
        pids = [{row["pid"] for row in runs(lab.client, queue)} for queue in queues]
        return all(set(report["new_pids"]) <= each for each in pids)

    wait_until(take_jobs, "the new processes to take jobs")
    last_start_ms = max(psutil.Process(pid).create_time() for pid in report["new_pids"]) * 1000
    added = {queue: [*held[queue], *producers[queue].stop()] for queue in queues}

    assert (report["outcome"], report["strategy"]) == ("restarted", "roll")
    assert (report["interrupted"], report["lost"], report["recovered"]) == (0, 0, 0)
    assert report["paused_s"] == 0
    assert report["idle_s"] < 1
    assert report["active_at_start"] >= 2 * len(queues)
    assert {job["result"] for job in report["jobs"]} <= {"completed", "running"}
    label = {queue: lab.keys(queue).label(report["prefix"]) for queue in queues}
    assert report["queues"] == [*label.values()]
    reported = {(job["queue"], job["id"]) for job in report["jobs"]}
    assert {(label[queue], job_id) for queue in queues for job_id in held[queue]} <= reported
    after = sorted(row.pid for row in lab.pm2.rows("app"))
    assert sorted(report["old_pids"]) == before
    assert sorted(report["new_pids"]) == after
    assert not any(map(is_alive, before))
    for queue in queues:
        lab.prove(added[queue], queue)
        assert {row["pid"] for row in runs(lab.client, queue)} == {*before, *after}
        # While a process was replaced, the other one took jobs of this queue.
        for old, new in zip(report["old_pids"], report["new_pids"], strict=True):
            assert others_took_jobs(runs(lab.client, queue), old, new), (queue, old, new)
    # The report does not hide a wait: none was longer than it says.
    waited_s = longest_wait_s(lab, added, begun_ms, last_start_ms)
    assert waited_s <= report["idle_s"] + 0.1


def others_took_jobs(rows: Sequence[dict[str, Any]], old: int, new: int) -> bool:
    """Whether other processes started jobs after the last job of ``old``, before any of ``new``."""
    ended = max(row["at"] for row in rows if row["pid"] == old)
    began = min(row["at"] for row in rows if row["pid"] == new)
    return any(
        row["ev"] == "start" and row["pid"] not in {old, new} and ended <= row["at"] <= began
        for row in rows
    )


def longest_wait_s(
    lab: Lab, added: Mapping[str, Sequence[str]], from_ms: float, until_ms: float
) -> float:
    """The longest time between two points in which jobs waited and none ran in any queue.

    By the times that BullMQ has written into the jobs, all of which have completed.
    """
    times = ("timestamp", "processedOn", "finishedOn")
    jobs = [
        [int(text) for text in lab.client.call("HMGET", lab.keys(queue)(job_id), *times)]
        for queue, ids in added.items()
        for job_id in ids
    ]
    jobs.sort(key=lambda job: job[1])
    longest, ended = 0.0, from_ms
    for number, (_, began, finished) in enumerate(jobs):
        if from_ms <= ended < began <= until_ms:
            arrived = min(job[0] for job in jobs[number:])
            longest = max(longest, began - max(ended, arrived))
        ended = max(ended, finished)
    return longest / 1000


def test_an_app_that_does_not_handle_the_signal_ends_the_roll(lab: Lab) -> None:
    lab.app(instances=2, LOCK_MS=1500)
    before = {row.pid for row in lab.pm2.rows("app")}
    jobs = lab.hold(2)
    done = lab.qctl(*ROLL, "--json")

    assert done.code == 1
    report = done.json
    assert report["outcome"] == "aborted"
    assert (report["interrupted"], report["recovered"], report["lost"]) == (1, 1, 0)
    assert "left 1 job behind" in report["error"]
    assert "--strategy pause" in report["error"]
    # Only the first was restarted.
    assert len(before & {row.pid for row in lab.pm2.rows("app")}) == 1
    again = [job["id"] for job in report["jobs"] if job["result"] == "interrupted"]
    lab.release()
    lab.prove(jobs, again=again)


def test_when_the_time_is_up_nothing_is_killed(lab: Lab) -> None:
    lab.app(instances=2, HANDLE_SIGINT=1, options={"autorestart": False})
    jobs = lab.hold(2)
    done = lab.qctl(*ROLL, "--timeout", "1s", "--json")
    assert done.code == 4
    report = done.json
    assert report["outcome"] == "timeout"
    assert report["new_pids"] == []
    assert len(report["old_pids"]) == 1
    assert {job["id"] for job in report["still_active"]} <= set(jobs)
    assert report["still_active"]
    # Nobody starts it again once it has left.
    assert any("pm2 start 0" in note or "pm2 start 1" in note for note in report["notes"])
    lab.release()
    lab.prove(jobs)


def test_one_process_alone_is_refused(lab: Lab) -> None:
    lab.app(HANDLE_SIGINT=1)
    lab.add(1)
    before = lab.pm2.rows("app")
    done = lab.qctl(*ROLL, "--json")
    assert done.code == 5
    assert "fewer than 2 processes" in done.err
    assert "--strategy pause" in done.err
    assert lab.pm2.rows("app") == before
    lab.prove_tidy("q")


@pytest.mark.parametrize(("most", "rolls"), [(2, 2), (1, 1)])
def test_rolls_in_a_row_are_no_crashes(lab: Lab, most: int, rolls: int) -> None:
    """PM2 counts an exit before min_uptime as a crash, and gives up at max_restarts of them."""
    options = {"min_uptime": 600_000, "max_restarts": most}
    lab.app(instances=2, HANDLE_SIGINT=1, options=options)
    added = lab.add(10)
    for _ in range(rolls):
        done = lab.qctl(*ROLL, "--json")
        assert done.code == 0, done.err
        assert done.json["outcome"] == "restarted"
        rows = lab.pm2.rows("app")
        assert [row.status for row in rows] == ["online", "online"]
        # What is left for crashes of its own.
        assert all(row.unstable < most for row in rows)
    lab.prove([*added, *lab.add(10)])


@pytest.mark.parametrize("autorestart", [True, False])
def test_a_process_that_is_stopped_during_its_turn_is_not_started(
    lab: Lab, autorestart: bool
) -> None:
    lab.app(instances=2, HANDLE_SIGINT=1, LOCK_MS=2000, options={"autorestart": autorestart})
    jobs = lab.hold(2)
    roll = lab.steps(*ROLL)
    first = roll.await_step("restarting")
    roll.await_step("waiting")
    # It kills when its patience is over, and takes the job with it.
    lab.pm2.run("stop", first["key"])
    done = roll.finish()
    assert done.code == 1
    assert "was stopped by somebody during the drain" in done.report["error"]
    assert (done.report["interrupted"], done.report["recovered"]) == (1, 1)
    assert sorted(row.status for row in lab.pm2.rows("app")) == ["online", "stopped"]
    again = [job["id"] for job in done.report["jobs"] if job["result"] == "interrupted"]
    lab.release()
    lab.prove(jobs, again=again)
