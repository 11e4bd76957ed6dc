"""Drains that do not go as planned: the queue ends as it was, and nothing is lost."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.interop import drain_lab
from tests.interop.drain_lab import Lab, kill
from tests.servers import wait_until

lab_pm2 = drain_lab.lab_pm2
lab = drain_lab.lab

DRAIN = ("drain", "q", "--then-restart", "--target", "pm2:app")


def test_an_app_that_keeps_crashing(lab: Lab, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    lab.app(CRASH_MS=100, CRASH_IF=broken, options={"max_restarts": 4, "min_uptime": 5000})
    added = lab.add(300, 10)
    broken.touch()
    done = lab.qctl(*DRAIN, "--json")
    assert done.code == 1
    assert done.json["outcome"] == "aborted"
    assert "keeps crashing" in done.json["error"]
    assert "crashing on purpose: a setting is missing" in done.json["error"]
    assert done.json["resumed"] is True
    lab.prove_tidy("q")
    broken.unlink()
    lab.pm2.run("restart", "app")
    lab.prove(added)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("step", ["waiting", "restarting"])
def test_interrupted(lab: Lab, number: signal.Signals, step: str) -> None:
    lab.app()
    added = lab.add(800, 10)
    lab.wait_started(added[0])
    drain = lab.steps(*DRAIN)
    drain.await_step(step)
    drain.signal(number)
    done = drain.finish()
    assert done.code == 130
    assert (done.report["outcome"], done.report["resumed"]) == ("aborted", True)
    assert done.report["lost"] == done.report["interrupted"] == 0
    lab.prove(added)


def test_jobs_that_run_for_longer_than_the_time_allowed(lab: Lab) -> None:
    lab.app()
    added = lab.add(3000, 10)
    lab.wait_started(added[0])
    (before,) = lab.pm2.rows("app")
    done = lab.qctl(*DRAIN, "--timeout", "500ms", "--json")
    assert done.code == 4
    assert (done.json["outcome"], done.json["resumed"]) == ("timeout", True)
    assert [job["id"] for job in done.json["still_active"]] == [added[0]]
    assert [job["result"] for job in done.json["jobs"]] == ["running"]
    assert lab.pm2.rows("app") == [before]
    lab.prove(added)


def test_restarting_all_the_same_puts_the_only_workers_jobs_back_at_once(lab: Lab) -> None:
    lab.app(concurrency=2)
    added = lab.add(2500, 2500, 10)
    lab.wait_started(*added[:2])
    options = ("--timeout", "300ms", "--on-timeout", "restart", "--json")
    done = lab.qctl(*DRAIN, *options)
    assert done.code == 0, done.err
    assert done.json["outcome"] == "restarted"
    assert (done.json["interrupted"], done.json["recovered"], done.json["lost"]) == (2, 2, 0)
    lab.prove(added, again=added[:2])
    # An interruption that was ours never counts against the job.
    for job_id in added:
        assert lab.client.call("HGET", lab.keys()(job_id), "stc") is None


def test_restarting_all_the_same_leaves_other_workers_jobs_alone(lab: Lab) -> None:
    lab.app(LOCK_MS=2000, STALLED_MS=60_000)
    lab.bull().start_worker("q", lockDuration=2000, stalledInterval=60_000, name="elsewhere")
    lab.wait_workers(count=2)
    added = lab.add(6000, 6000)
    lab.wait_running(2)
    options = ("--timeout", "300ms", "--on-timeout", "restart", "--json")
    done = lab.qctl(*DRAIN, *options)
    assert done.code == 0, done.err
    assert (done.json["interrupted"], done.json["recovered"], done.json["lost"]) == (1, 1, 0)
    results = sorted(job["result"] for job in done.json["jobs"])
    assert results in (["interrupted", "running"], ["completed", "interrupted"])
    lab.wait_completed(added)


def test_jobs_of_a_worker_that_was_killed_before(lab: Lab) -> None:
    dead = lab.bull(fresh=True)
    dead.start_worker("q", lockDuration=1000, stalledInterval=60_000)
    lab.wait_workers()
    orphan = lab.add(60_000)
    lab.wait_running(1)
    kill(dead.pid)
    lab.client.call("HSET", lab.keys()(orphan[0]), "data", '{"ms": 10}')
    lab.wait_workers(count=0)
    lab.app(STALLED_MS=60_000)
    added = lab.add(600, 10)
    done = lab.qctl(*DRAIN, "--json")
    assert done.code == 0, done.err
    assert done.json["recovered"] == 1
    assert {job["id"]: job["result"] for job in done.json["jobs"]}[orphan[0]] == "recovered"
    assert (done.json["interrupted"], done.json["lost"]) == (0, 0)
    lab.wait_completed([*orphan, *added])
    lab.prove_tidy("q")


@pytest.mark.parametrize("version", [5, 6])
def test_a_queue_that_was_paused_before_stays_paused(lab: Lab, version: int) -> None:
    lab.app(version=version)
    added = lab.add(10, version=version)
    lab.wait_completed(added)
    lab.bull(version).pause("q")
    done = lab.qctl(*DRAIN, "--json")
    assert done.code == 0, done.err
    assert (done.json["outcome"], done.json["resumed"]) == ("restarted", False)
    assert lab.is_paused()
    assert lab.qctl("resume", "q").code == 0
    lab.prove([*added, *lab.add(10, version=version)])


@pytest.mark.parametrize("by", ["node", "qctl"])
def test_somebody_elses_pause_meanwhile_outlives_the_drain(lab: Lab, by: str) -> None:
    lab.app()
    added = lab.add(1500, 10)
    lab.wait_started(added[0])
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    if by == "node":
        lab.bull().pause("q")
    else:
        assert lab.qctl("pause", "q").code == 0
    done = drain.finish()
    assert done.code == 0, done.err
    assert done.report["resumed"] is False
    assert any("paused by somebody else" in note for note in done.report["notes"])
    assert lab.is_paused()
    assert lab.qctl("resume", "q").code == 0
    lab.prove(added)


def test_somebody_resumes_the_queue_meanwhile(lab: Lab) -> None:
    lab.app()
    added = lab.add(2500, 10)
    lab.wait_started(added[0])
    (before,) = lab.pm2.rows("app")
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    lab.bull().resume("q")
    done = drain.finish()
    assert done.code == 1
    assert done.report["outcome"] == "aborted"
    assert "resumed by somebody else" in done.report["error"]
    assert lab.pm2.rows("app") == [before]
    lab.prove(added)


def test_a_second_drain_is_refused_and_the_first_unharmed(lab: Lab) -> None:
    lab.app()
    added = lab.add(2000, 10)
    lab.wait_started(added[0])
    first = lab.steps(*DRAIN)
    first.await_step("waiting")
    second = lab.qctl(*DRAIN, "--json")
    assert second.code == 5
    assert second.json["outcome"] == "refused"
    assert f"(pid {first.pid})" in second.err
    assert lab.qctl("resume", "q").code == 5
    done = first.finish()
    assert done.code == 0, done.err
    assert done.report["lost"] == 0
    lab.prove(added)


def test_a_job_that_vanishes_is_lost_and_says_so(lab: Lab) -> None:
    lab.app()
    added = lab.add(2500)
    lab.wait_started(*added)
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    keys = lab.keys()
    lab.client.call("LREM", keys("active"), 1, added[0])
    lab.client.call("DEL", keys(added[0]), keys.lock(added[0]))
    done = drain.finish()
    assert done.code == 1
    assert (done.report["outcome"], done.report["lost"]) == ("restarted", 1)
    assert [job["result"] for job in done.report["jobs"]] == ["lost"]
    wait_until(lambda: not lab.is_paused(), "the queue to run again")
    lab.prove_tidy("q")
