"""Jobs that do not end in time: put everything back, or restart and bring them back."""

from __future__ import annotations

import signal

import pytest

from tests.labs.drains import Lab, is_alive
from tests.labs.servers import wait_until

DRAIN = ("drain", "q", "--then-restart", "--target", "pm2:app", "--timeout", "1s")


@pytest.mark.parametrize("then_restart", [True, False])
def test_a_timeout_puts_everything_back(lab: Lab, then_restart: bool) -> None:
    lab.app()
    added = [*lab.hold(), *lab.add(10)]
    pid = lab.pm2.pid("app")
    args = DRAIN if then_restart else ("drain", "q", "--timeout", "1s")
    done = lab.qctl(*args, "--json")
    assert done.code == 4, done.err
    report = done.json
    assert report["outcome"] == "timeout"
    assert [(job["queue"], job["id"]) for job in report["still_active"]] == [("q", added[0])]
    assert report["jobs"] == [{"queue": "q", "id": added[0], "result": "running", "was": "active"}]
    assert (report["interrupted"], report["lost"]) == (0, 0)
    assert (report["old_pids"], report["new_pids"], report["resumed"]) == ([], [], True)
    assert report["paused_s"] >= 1
    lab.prove_tidy("q")
    assert lab.pm2.pid("app") == pid
    lab.release()
    lab.prove(added)


def test_the_operator_is_told_what_still_runs(lab: Lab) -> None:
    lab.app(WORKER_NAME="porter")
    added = lab.hold()
    done = lab.qctl(*DRAIN)
    assert done.code == 4
    assert "timed out" in done.out
    assert f"q {added[0]}  job, running" in done.out
    assert "worker porter" in done.out
    assert done.out.rstrip().endswith("q running again")
    lab.release()
    lab.prove(added)


@pytest.mark.parametrize("version", [5, 6])
def test_a_sole_workers_jobs_are_put_back_at_once(lab: Lab, version: int) -> None:
    lab.app(version=version, concurrency=2)
    cut = lab.hold(2, version=version)
    more = lab.add(10, version=version)
    done = lab.steps(*DRAIN, "--on-timeout", "restart").finish()
    assert done.code == 0, done.err
    names = done.step_names
    (time_up,) = [step for step in done.steps if step["step"] == "time_up"]
    assert sorted(job["id"] for job in time_up["active"]) == sorted(cut)
    assert names.index("time_up") < names.index("restarting")
    # Their locks, which last 30 s, were not waited for.
    assert names.index("ready") < names.index("recovered") < names.index("resumed")
    report = done.report
    assert report["outcome"] == "restarted"
    assert (report["interrupted"], report["recovered"], report["lost"]) == (2, 2, 0)
    # They ran until they were killed, so the time of the wait is none in which nothing ran.
    events = lab.client.call("XRANGE", lab.keys()("events"), "-", "+")
    told = [(fields[1], int(at.partition("-")[0])) for at, fields in events]
    (paused_ms,) = [at for name, at in told if name == "paused"]
    started_ms = next(at for name, at in told if name == "active" and at > paused_ms)
    assert 0 < report["idle_s"] < (started_ms - paused_ms) / 1000 - 0.9
    assert report["jobs"] == [
        {"queue": "q", "id": i, "result": "interrupted", "was": "active"} for i in cut
    ]
    for job_id in cut:
        assert lab.client.call("HGET", lab.keys()(job_id), "stc") is None
    lab.release()
    lab.prove([*cut, *more], again=cut)
    # Uncounted: what they were cut short by was no attempt of theirs.
    assert all(lab.client.call("HGET", lab.keys()(i), "atm") == "1" for i in cut)


def test_a_restart_at_the_end_of_the_time_says_that_the_time_is_up(lab: Lab) -> None:
    lab.app()
    cut = lab.hold()
    done = lab.qctl(*DRAIN, "--on-timeout", "restart")
    assert done.code == 0, done.err
    assert "timed out after" in done.err
    lab.release()
    lab.prove(cut, again=cut)


def test_another_workers_job_is_left_alone(lab: Lab) -> None:
    lab.app(LOCK_MS=2000, STALLED_MS=600_000)
    outside = lab.bull(fresh=True)
    outside.start_worker("q", lockDuration=2000, stalledInterval=600_000)
    jobs = lab.hold(2)
    pid = lab.pm2.pid("app")
    (cut,) = [job_id for job_id in jobs if lab.rows(job_id)[0]["pid"] == pid]
    (kept,) = [job_id for job_id in jobs if lab.rows(job_id)[0]["pid"] == outside.pid]
    done = lab.steps(*DRAIN, "--on-timeout", "restart").finish()
    assert done.code == 0, done.err
    # Nothing tells whose lock it is, so each is put back when its lock has run out, if it does.
    names = done.step_names
    assert names.index("resumed") < names.index("recovered")
    report = done.report
    assert (report["interrupted"], report["recovered"], report["lost"]) == (1, 1, 0)
    results = {job["id"]: job["result"] for job in report["jobs"]}
    assert results[cut] == "interrupted"
    assert results[kept] in {"running", "completed"}
    assert lab.client.call("HGET", lab.keys()(cut), "stc") is None
    lab.release()
    lab.prove(jobs, again=[cut])
    assert [row["pid"] for row in lab.rows(kept)] == [outside.pid] * 2


def test_a_graceful_app_ends_its_jobs_after_the_timeout(lab: Lab) -> None:
    lab.app(HANDLE_SIGINT=1, options={"kill_timeout": 10_000})
    added = [*lab.hold(), *lab.add(10)]
    drain = lab.steps(*DRAIN, "--on-timeout", "restart")
    drain.await_step("restarting")
    lab.release()
    done = drain.finish()
    assert done.code == 0, done.err
    report = done.report
    assert (report["interrupted"], report["recovered"], report["lost"]) == (0, 0, 0)
    assert report["jobs"] == [
        {"queue": "q", "id": added[0], "result": "completed", "was": "active"}
    ]
    lab.prove(added)


def test_ctrl_c_while_a_process_takes_long_to_stop(lab: Lab) -> None:
    """PM2 would kill it only after an hour."""
    lab.app(HANDLE_SIGINT=1, options={"kill_timeout": 3_600_000})
    old = lab.pm2.pid("app")
    held = lab.hold()
    words = ("drain", "q", "--then-restart", "--target", "pm2:app", "--timeout", "0.5s")
    drain = lab.steps(*words, "--on-timeout", "restart")
    plan = drain.await_step("plan")
    assert any("SIGKILL only 1 h after the stop signal" in each for each in plan["warnings"])
    drain.await_step("restarting")
    wait_until(lambda: lab.pm2.rows("app")[0].status == "stopping", "PM2 to stop the app")
    drain.signal(signal.SIGINT)
    done = drain.finish()
    assert done.code == 130
    assert (done.report["outcome"], done.report["resumed"]) == ("aborted", True)
    assert any(f"pid {old} runs until it exits" in note for note in done.report["notes"])
    assert is_alive(old)
    # The old process still runs the job, so qctl has not put it back.
    assert done.report["recovered"] == 0
    lab.release()
    lab.prove(held)
    wait_until(lambda: lab.pm2.pid("app") not in {0, old}, "PM2 to start the app again")
