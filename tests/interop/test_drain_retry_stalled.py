"""``jobs retry-stalled`` with real workers: what died runs again, what failed for it too."""

from __future__ import annotations

import pytest

from tests.labs.drains import Lab
from tests.labs.servers import wait_until

STALL_TEXT = "job stalled more than allowable limit"


def die_with_a_job(lab: Lab, version: int, *, lock_ms: int) -> str:
    """A job whose worker has died with it in hand."""
    doomed = lab.bull(version, fresh=True)
    # The interval also keeps others from looking for stalled jobs, even after its death.
    doomed.start_worker("q", lockDuration=lock_ms, stalledInterval=300)
    (job_id,) = lab.add(400, version=version)
    lab.wait_started(job_id)
    doomed.kill()
    wait_until(lambda: not lab.count_workers(), "the dead worker to be gone")
    return job_id


@pytest.mark.parametrize("version", [5, 6])
def test_it_waits_for_the_lock_of_a_dead_worker(lab: Lab, version: int) -> None:
    job_id = die_with_a_job(lab, version, lock_ms=60_000)
    waiting = lab.start("jobs", "retry-stalled", "q", "--wait", "--json")
    wait_until(lambda: "for 1 lock" in waiting.remarks, "the wait to be announced")
    lab.client.call("PEXPIRE", lab.keys().lock(job_id), 1)
    done = waiting.finish()
    assert done.code == 0, done.err
    (queue,) = done.json["queues"]
    assert (queue["stalled"], queue["retried"], queue["skipped"]) == (1, [job_id], [])
    lab.bull(version).start_worker("q")
    lab.prove([job_id], again=[job_id])
    assert lab.client.call("HGET", lab.keys()(job_id), "stc") is None


@pytest.mark.parametrize("version", [5, 6])
def test_a_job_that_bullmq_has_given_up(lab: Lab, version: int) -> None:
    job_id = die_with_a_job(lab, version, lock_ms=500)
    wait_until(lambda: not lab.client.call("EXISTS", lab.keys().lock(job_id)), "the lock to go")
    lab.bull(version).start_worker("q", stalledInterval=200, maxStalledCount=0)
    wait_until(lambda: lab.places(job_id) == ["failed"], "BullMQ to fail the job")
    assert lab.client.call("HGET", lab.keys()(job_id), "failedReason") == STALL_TEXT
    without = lab.qctl("jobs", "retry-stalled", "q", "--json").json["queues"][0]
    assert without["retried"] == []
    # It is no longer active, so that there is nothing to ask about.
    done = lab.qctl("jobs", "retry-stalled", "q", "--failed", "--json")
    assert done.code == 0, done.err
    assert done.json["queues"][0]["retried"] == [job_id]
    lab.wait_completed([job_id])
    # BullMQ counts as a start that it took the job only to fail it.
    assert [(row["ev"], row["ats"]) for row in lab.rows(job_id)] == [
        ("start", 1),
        ("start", 3),
        ("end", 3),
    ]
    lab.prove_tidy("q")


@pytest.mark.parametrize("version", [5, 6])
def test_a_counted_stall_too_many_is_failed_by_bullmq(lab: Lab, version: int) -> None:
    job_id = die_with_a_job(lab, version, lock_ms=500)
    wait_until(lambda: not lab.client.call("EXISTS", lab.keys().lock(job_id)), "the lock to go")
    lab.client.call("HSET", lab.keys()(job_id), "stc", 1)
    assert lab.qctl("jobs", "retry-stalled", "q", "--count-stall").code == 0
    assert lab.client.call("HGET", lab.keys()(job_id), "stc") == "2"
    lab.bull(version).start_worker("q")
    wait_until(lambda: lab.places(job_id) == ["failed"], "BullMQ to fail the job")
    assert lab.client.call("HGET", lab.keys()(job_id), "failedReason") == STALL_TEXT
    # It has not run again.
    assert [row["ev"] for row in lab.rows(job_id)] == ["start"]
