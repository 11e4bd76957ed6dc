"""A job that vanishes during a drain: the proof must not pass over it."""

from __future__ import annotations

from tests.interop import drain_lab
from tests.interop.drain_lab import Lab
from tests.servers import wait_until

lab_pm2 = drain_lab.lab_pm2
lab = drain_lab.lab

DRAIN = ("drain", "q", "--then-restart", "--target", "pm2:app")


def test_a_job_that_vanishes_is_lost_and_says_so(lab: Lab) -> None:
    lab.app()
    added = lab.hold()
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
