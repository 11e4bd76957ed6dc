"""What ``impact`` says of qctl's own workers, and what a restart then does to their jobs."""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.labs import masters as labs
from tests.labs.masters import MasterLab
from tests.labs.pm2 import Pm2

master_lab = labs.master_lab


def ask(lab: MasterLab, *words: str, **environ: str) -> dict[str, Any]:
    done = lab.qctl("impact", *words, "--json", **environ)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def have_run(lab: MasterLab, seconds: int) -> None:
    """A history of a job that took so long; really it was shorter."""
    (ran,) = lab.add(1, s=0)
    lab.wait_completed([ran])
    lab.client.call("HINCRBY", f"bull:q:{ran}", "processedOn", -seconds * 1000)


def test_under_pm2_they_are_known_to_finish(master_lab: MasterLab, pm2: Pm2) -> None:
    pm2.start(
        "emails",
        sys.executable,
        {"QCTL_REDIS_URL": master_lab.redis_url},
        args=["-m", "qctl", "worker", "run", "app:worker"],
        cwd=str(master_lab.folder),
        interpreter="none",
        wait_ready=True,
        listen_timeout=120_000,
        kill_timeout=35_000,
    )
    have_run(master_lab, 5)
    # Longer than `qctl impact` takes on a machine that is busy.
    ids = master_lab.add(2, s=8)
    master_lab.wait_started(*ids)
    told = ask(master_lab, PM2_HOME=str(pm2.home))
    assert (told["target"], told["handles_signal"], told["kill_after_s"]) == (
        "pm2:emails",
        True,
        35,
    )
    assert sorted(job["id"] for job in told["interrupted"]) == sorted(ids)
    assert told["unattributed"] == told["interrupted_if_handled"] == []
    assert told["verdict"]["word"] == "drain first"
    pm2.run("restart", "emails")
    master_lab.wait_completed(ids)
    assert [master_lab.job(job_id)["ats"] for job_id in ids] == ["1", "1"]


def test_a_master_of_their_own_lets_them_finish(master_lab: MasterLab) -> None:
    started = master_lab.qctl("worker", "start", "emails", "app:worker")
    assert started.returncode == 0, started.stderr
    try:
        ids = master_lab.add(2, s=4)
        master_lab.wait_started(*ids)
        told = ask(master_lab, "q")
        assert told["target"] == "qctl:emails"
        assert (told["handles_signal"], told["kill_after_s"]) == (True, None)
        assert [job["held_by"] for job in told["jobs"]] == ["target", "target"]
        assert told["interrupted"] == told["recovery"] == []
        assert told["verdict"]["word"] == "safe"
        assert master_lab.qctl("worker", "restart", "emails").returncode == 0
        master_lab.wait_completed(ids)
        assert [master_lab.job(job_id)["ats"] for job_id in ids] == ["1", "1"]
    finally:
        master_lab.qctl("worker", "stop", "emails", "--now")


def test_a_drain_finds_the_target_that_impact_names(master_lab: MasterLab) -> None:
    """One master and no PM2: both ask all managers."""
    assert master_lab.qctl("worker", "start", "emails", "app:worker").returncode == 0
    try:
        assert ask(master_lab, "q")["target"] == "qctl:emails"
        for words in (("q",), ()):
            plan = master_lab.qctl(
                "drain", *words, "--then-restart", "--yes", "--dry-run", "--json"
            )
            assert plan.returncode == 0, plan.stderr
            told = json.loads(plan.stdout)
            assert (told["target"], told["queues"]) == ("qctl:emails", ["q"])
        done = master_lab.qctl("drain", "q", "--then-restart", "--yes", "--json")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert (report["outcome"], report["target"]) == ("restarted", "qctl:emails")
        assert report["old_pids"] != report["new_pids"]
    finally:
        master_lab.qctl("worker", "stop", "emails", "--now")
