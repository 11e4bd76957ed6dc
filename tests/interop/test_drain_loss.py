"""Jobs that vanish during a drain: the proof must not pass over them."""

from __future__ import annotations

import signal

from tests.labs.drains import Lab
from tests.labs.servers import wait_until

RESTART = ("drain", "q", "--then-restart", "--target", "pm2:app")


def test_a_job_that_vanishes_is_lost_and_says_so(lab: Lab) -> None:
    lab.app()
    added = lab.hold()
    drain = lab.steps(*RESTART)
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


def hold_with_backlog(lab: Lab) -> list[str]:
    """A job that runs and three that wait behind it, of which the ids."""
    lab.app()
    lab.hold()
    return lab.add(0, 0, 0)


def test_a_backlog_that_somebody_destroys_is_lost(lab: Lab) -> None:
    waiting = hold_with_backlog(lab)
    drain = lab.steps(*RESTART)
    drain.await_step("waiting")
    # What a resume by BullMQ 5 does to one of the two lists (wire format 5.20).
    lab.client.call("DEL", lab.keys()("wait"), lab.keys()("paused"))
    lab.release()
    done = drain.finish()
    assert done.code == 1
    report = done.report
    assert (report["outcome"], report["lost"]) == ("restarted", 3)
    lost = {job["id"]: job["was"] for job in report["jobs"] if job["result"] == "lost"}
    assert lost == dict.fromkeys(waiting, "waiting")
    assert report["proof"]["checked"] == "all ids"
    (note,) = report["notes"]
    assert "qctl doctor q --full" in note
    assert f"qctl jobs show q {min(waiting)}" in note
    found = lab.qctl("doctor", "q", "--full", "--json").json["findings"]
    (finding,) = [each for each in found if each["check"] == "lost-jobs"]
    assert sorted(finding["evidence"]["lost"]) == sorted(waiting)
    typed = note.rpartition(": qctl ")[2].split()
    assert lab.qctl(*typed).code == 0
    lab.wait_completed(waiting)


def test_jobs_that_come_and_go_during_a_drain_are_not_lost(lab: Lab) -> None:
    waiting = hold_with_backlog(lab)
    drain = lab.steps(*RESTART)
    drain.await_step("waiting")
    added = lab.add(0, 0)
    delayed = lab.bull().add("q", {"ms": 0}, delay=60_000)
    lab.bull().queue("q", "remove", waiting[0])
    # Deletes what waits without any event.
    lab.bull().queue("q", "drain")
    again = lab.add(0, 0)
    lab.release()
    done = drain.finish()
    assert done.code == 0, done
    assert (done.report["lost"], done.report["proof"]["deleted"]) == (0, 4)
    assert "4 jobs were deleted during the drain without an event" in done.report["notes"][0]
    lab.wait_completed(again)
    assert lab.places(delayed) == ["delayed"]
    assert [lab.places(job_id) for job_id in added] == [[], []]


def test_a_resume_by_bullmq_5_that_destroys_a_list_is_seen(lab: Lab) -> None:
    lab.app(version=5)
    lab.hold(version=5)
    lab.add(0, 0, version=5)
    drain = lab.steps(*RESTART, "--mixed-versions")
    drain.await_step("waiting")
    # Of the lists for what waits, one holds the jobs of before; a job of another version goes into
    # the other, and a resume by version 5 renames one over the other (wire format 10.2).
    (other,) = lab.add(0, version=6)
    assert lab.places(other) == ["wait"]
    lab.bull(5).resume("q")
    lab.release()
    done = drain.finish()
    report = done.report
    assert done.code == 1
    assert any("q was resumed by somebody else" in note for note in report["notes"])
    assert lab.places(other) == []
    assert report["lost"] == 1
    (lost,) = [job for job in report["jobs"] if job["result"] == "lost"]
    assert (lost["id"], lost["was"]) == (other, "waiting")
    assert report["proof"]["resumed_by_others"] == ["q"]


def test_a_job_whose_events_were_trimmed_is_not_lost(lab: Lab) -> None:
    """A busy queue with a small stream: its end was told, and is not there to be read."""
    lab.app()
    job = {"name": "job", "data": {"held": True}, "opts": {"removeOnComplete": True}}
    (held,) = lab.bull().add_bulk("q", [job])
    lab.wait_started(held)
    drain = lab.steps(*RESTART)
    drain.await_step("waiting")
    drain.signal(signal.SIGSTOP)
    # Redis answers the read that is under way with this event alone.
    lab.add(0)
    lab.release()
    wait_until(lambda: not lab.client.call("EXISTS", lab.keys()(held)), "the job to end")
    lab.client.call("XTRIM", lab.keys()("events"), "MAXLEN", 0)
    lab.bull().add("q", delay=60_000)
    drain.signal(signal.SIGCONT)
    report = drain.finish().report
    assert {job["id"]: job["result"] for job in report["jobs"]} == {held: "unknown"}
    assert (report["outcome"], report["lost"], report["idle_s"]) == ("restarted", None, None)
