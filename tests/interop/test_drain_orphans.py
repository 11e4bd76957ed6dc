"""Jobs whose worker died before or during a drain: they do not hold it up, and run again."""

from __future__ import annotations

import pytest

from tests.labs.drains import Lab, kill
from tests.labs.servers import wait_until

DRAIN = ("drain", "q", "--then-restart", "--target", "pm2:app")
# No worker looks for stalled jobs while the test runs: what is recovered, qctl has recovered.
QUIET = {"STALLED_MS": 600_000}


def kill_app(lab: Lab) -> int:
    """kill -9 of the app's process; the pid of the one that PM2 starts instead."""
    old = lab.pm2.pid("app")
    kill(old)
    new = wait_until(lambda: lab.pm2.pid("app") not in {0, old} and lab.pm2.pid("app"), "a new pid")
    lab.wait_workers()
    return new


@pytest.mark.parametrize("version", [5, 6])
def test_a_job_whose_lock_runs_out_during_the_wait(lab: Lab, version: int) -> None:
    lab.app(version=version, LOCK_MS=60_000, **QUIET)
    (orphan,) = lab.hold(version=version)
    (other,) = lab.add(10, version=version)
    kill_app(lab)
    lab.release()
    lab.wait_completed([other])
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    # Its worker is gone, so the test may say when the lock's time is over.
    assert lab.client.call("PEXPIRE", lab.keys().lock(orphan), 500) == 1
    done = drain.finish()
    assert done.code == 0, done.err
    waiting = [s for s in done.steps if s["step"] == "waiting"]
    assert [job["id"] for job in waiting[0]["active"]] == [orphan]
    (drained,) = [s for s in done.steps if s["step"] == "drained"]
    assert [job["id"] for job in drained["orphans"]] == [orphan]
    # After the restart and the resume: before, nobody could have run it.
    assert done.step_names[-3:] == ["resumed", "recovered", "report"]
    assert done.steps[-2]["ids"] == [orphan]
    report = done.report
    # It had a lock when the drain began, so it was taken for running; its process ended first.
    assert (report["recovered"], report["interrupted"], report["lost"]) == (1, 1, 0)
    assert report["jobs"] == [
        {"queue": "q", "id": orphan, "result": "interrupted", "was": "active"}
    ]
    # A stall of which the job is innocent does not count against it.
    assert lab.client.call("HGET", lab.keys()(orphan), "stc") is None
    lab.prove([orphan, other], again=[orphan])


def test_orphans_of_a_worker_that_is_long_gone(lab: Lab) -> None:
    doomed = lab.bull(fresh=True)
    doomed.start_worker("q", concurrency=2, lockDuration=1000, stalledInterval=600_000)
    jobs = [
        {"name": "plain", "data": {"held": True}, "opts": {}},
        {"name": "first", "data": {"held": True}, "opts": {"priority": 3}},
    ]
    orphans = lab.bull().add_bulk("q", jobs)
    lab.wait_started(*orphans)
    doomed.kill()
    locks = [lab.keys().lock(job_id) for job_id in orphans]
    wait_until(lambda: not lab.client.call("EXISTS", *locks), "the locks to run out")
    lab.app(concurrency=2, **QUIET)
    added = lab.hold()

    done = lab.drain_held(*DRAIN)
    assert done.code == 0, done.err
    report = done.report
    assert (report["recovered"], report["interrupted"], report["lost"]) == (2, 0, 0)
    assert report["active_at_start"] == 3
    results = {job["id"]: job["result"] for job in report["jobs"]}
    assert results == {orphans[0]: "recovered", orphans[1]: "recovered", added[0]: "completed"}
    lab.prove([*orphans, *added], again=orphans)


def test_a_worker_that_dies_during_the_wait(lab: Lab) -> None:
    lab.app(LOCK_MS=2000, **QUIET)
    added = [*lab.hold(), *lab.add(10)]
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    new = kill_app(lab)
    lab.release()
    done = drain.finish()
    assert done.code == 0, done.err
    # The process that is restarted is the one that runs now, not the one of the plan.
    assert done.report["old_pids"] == [new]
    assert done.report["new_pids"] == [lab.pm2.pid("app")] != [new]
    report = done.report
    assert (report["interrupted"], report["recovered"], report["lost"]) == (1, 1, 0)
    # Nothing ran during the restart at least, although jobs waited.
    assert report["idle_s"] >= 1
    lab.prove(added, again=added[:1])


def test_a_plain_drain_leaves_orphans_and_says_so(lab: Lab) -> None:
    lab.app(LOCK_MS=1000, **QUIET)
    added = lab.hold()
    kill_app(lab)
    lab.release()
    done = lab.qctl("drain", "q", "--json")
    assert done.code == 0, done.err
    assert done.json["outcome"] == "drained"
    assert done.json["jobs"] == [
        {"queue": "q", "id": added[0], "result": "orphaned", "was": "active"}
    ]
    assert (done.json["recovered"], done.json["lost"]) == (0, 0)
    assert lab.places(added[0]) == ["active"]
    assert lab.qctl("resume", "q").code == 0
    assert lab.qctl("jobs", "retry-stalled", "q", "--yes").code == 0
    lab.prove(added, again=added)
