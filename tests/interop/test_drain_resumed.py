"""Apps that resume their queues when they start, and others who resume a queue during a drain."""

from __future__ import annotations

from qctl.ops.drain.pause import MAX_RESUMES
from tests.labs.drains import Lab
from tests.labs.node import runs
from tests.labs.servers import wait_until

DRAIN = ("drain", "q", "--then-restart", "--target", "pm2:app")


def test_an_app_that_resumes_its_queue_at_start_is_drained(lab: Lab) -> None:
    """With BullMQ 5 and two processes; the next tests have BullMQ 6, and one."""
    lab.app(version=5, instances=2, RESUME_AT_START=1)
    added = [*lab.hold(2, version=5), *lab.add(*[60] * 28, version=5)]
    before = {row.pid for row in lab.pm2.rows("app")}

    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    added += lab.add(*[60] * 10, version=5)
    lab.release()
    done = drain.finish()
    lab.prove(added)
    assert len(runs(lab.client, "q")) == 2 * 40
    assert done.code == 0, done.err
    report = done.report
    assert report["outcome"] == "restarted"
    assert (report["interrupted"], report["lost"], report["resumed"]) == (0, 0, True)
    # The first process resumed the queue before the second one was restarted.
    assert report["paused_again"] == 1
    assert report["active_at_start"] == 2
    (note,) = report["notes"]
    assert "resumed while pm2:app started" in note
    assert not before & {row.pid for row in lab.pm2.rows("app")}


def test_doctor_names_the_app_that_resumed_its_queue_at_start(lab: Lab) -> None:
    lab.app(RESUME_AT_START=1)
    assert lab.qctl(*DRAIN).code == 0
    findings = lab.qctl("doctor", "q", "--json").json["findings"]
    (habit,) = [each for each in findings if each["check"] == "resumes-at-start"]
    assert habit["subject"] == {"kind": "queue", "name": "q"}
    assert habit["evidence"]["target"] == "pm2:app"


def test_a_queue_that_is_resumed_during_the_wait_is_paused_again(lab: Lab) -> None:
    lab.app(version=5, concurrency=2)
    added = [*lab.hold(version=5), *lab.add(*[30] * 10, version=5)]
    lab.wait_completed(added[1:])
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    added += lab.add(*[30] * 10, version=5)
    lab.bull(5).resume("q")
    drain.await_step("paused", again=True)
    assert lab.is_paused()
    lab.release()
    done = drain.finish()
    assert (done.code, done.report["outcome"], done.report["lost"]) == (0, "restarted", 0)
    assert (done.report["paused_again"], done.report["interrupted"]) == (1, 0)
    assert done.report["notes"] == [
        "q was resumed by somebody else during the drain, and paused again once"
    ]
    lab.prove(added)


def test_a_queue_that_is_resumed_again_and_again(lab: Lab) -> None:
    lab.app()
    added = [*lab.hold(), *lab.add(10)]
    pid = lab.pm2.pid("app")
    drain = lab.steps(*DRAIN)
    for count in range(MAX_RESUMES + 1):
        drain.await_steps(count + 1, "paused")
        lab.bull().resume("q")
    done = drain.finish()
    assert (done.code, done.report["outcome"]) == (1, "aborted")
    assert f"resumed by somebody else {MAX_RESUMES + 1} times" in done.report["error"]
    assert done.report["old_pids"] == []
    assert lab.pm2.pid("app") == pid
    lab.prove_tidy("q")
    lab.release()
    lab.prove(added)


def test_a_queue_that_is_to_stay_paused_does(lab: Lab) -> None:
    lab.app(RESUME_AT_START=1)
    added = [*lab.hold(), *lab.add(10, 10)]
    done = lab.drain_held(*DRAIN, "--keep-paused")
    assert (done.code, done.report["resumed"], done.report["paused_again"]) == (0, False, 1)
    assert lab.is_paused()
    assert "resumed while pm2:app started" in done.report["notes"][0]
    verdict = lab.qctl("impact", "q", "--json").json["verdict"]
    assert (verdict["word"], verdict["commands"]) == (
        "drain first",
        ["qctl restart pm2:app --keep-paused"],
    )
    assert verdict["reasons"][0].startswith("a restart ends the pause of q: pm2:app resumes ")
    # As it says, also of a pause that is not the drain's.
    assert lab.qctl("restart", "pm2:app", "--keep-paused").code == 0
    assert lab.is_paused()
    assert lab.qctl("resume", "q").code == 0
    lab.prove(added)


def test_a_pause_of_somebody_else_that_is_resumed_is_not_brought_back(lab: Lab) -> None:
    """It was ended by who resumed it: the drain pauses for its own time only."""
    lab.app(RESUME_AT_START=1, instances=2)
    held = lab.hold(2)
    assert lab.qctl("pause", "q").code == 0
    added = [*held, *lab.add(10, 10)]
    done = lab.drain_held(*DRAIN)
    assert (done.code, done.report["outcome"], done.report["interrupted"]) == (0, "restarted", 0)
    assert (done.report["resumed"], done.report["still_paused"]) == (True, [])
    assert "stays paused" in done.steps[0]["warnings"][0]
    assert "it was paused before the drain, and runs now" in done.report["notes"][0]
    assert not lab.is_paused()
    lab.wait_completed(added)
    lab.prove_runs()
    # Seen once, it is said beforehand, and the last line is right.
    assert lab.qctl("pause", "q").code == 0
    done = lab.qctl(*DRAIN, "--yes")
    assert done.code == 0, done.err
    assert "pm2:app seems to resume it when it starts" in done.out + done.err
    assert "q running again" in done.out
    assert "still paused" not in done.out


def test_what_bullmq_6_adds_during_a_drain_of_bullmq_5_survives_its_resume(lab: Lab) -> None:
    """It adds to ``wait``, over which BullMQ 5 renames its list when the new process starts."""
    lab.app(version=5, RESUME_AT_START=1)
    added = [*lab.hold(version=5), *lab.add(10, 10, version=5)]
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    added += lab.add(10, 10, version=6)
    wait_until(lambda: lab.places(added[-1]) == ["paused"], "the drain to bring the lists together")
    # With the last job in the way gone, it restarts the process.
    added += lab.add(10, 10, version=6)
    lab.release()
    done = drain.finish()
    assert (done.code, done.report["outcome"], done.report["lost"]) == (0, "restarted", 0)
    lab.prove(added)


def test_a_job_of_the_new_process_is_not_put_back_when_the_time_is_up(lab: Lab) -> None:
    lab.app(instances=2, RESUME_AT_START=1, LOCK_MS=2000)
    interrupted = lab.hold(2)
    job = {"name": "job", "data": {"held": True}, "opts": {}}
    (later,) = lab.bull().add_bulk("q", [job])
    drain = lab.steps(*DRAIN, "--timeout", "1s", "--on-timeout", "restart")
    # It starts in the first new process, which has resumed the queue, and runs on.
    lab.wait_started(later)
    done = drain.finish()
    assert (done.code, done.report["outcome"]) == (0, "restarted")
    assert done.report["interrupted"] == 2
    # One of the jobs put back waits until a worker is free, but others have started.
    assert not [note for note in done.report["notes"] if "none has started" in note]
    lab.release()
    lab.prove([*interrupted, later], again=interrupted)
