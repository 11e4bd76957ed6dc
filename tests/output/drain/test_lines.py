"""The report of a drain as a table."""

from __future__ import annotations

from dataclasses import replace

from qctl.ops.drain.ledger import JobOutcome
from qctl.ops.drain.steps import Drained, DrainReport, Proof, RunningJob, Step, TimeUp, Waiting
from qctl.output.drain.lines import step_lines

REPORT = DrainReport(
    outcome="restarted",
    queues=("q",),
    target="pm2:app",
    active_at_start=1,
    completed=1,
    interrupted=0,
    lost=0,
    paused_s=2.0,
    idle_s=0.5,
    new_pids=(7,),
    resumed=True,
    proof=Proof(checked="all ids", ids=1_200),
    unserved=(),
)


def lines(step: Step) -> list[str]:
    return list(step_lines(step))


def test_nothing_lost_says_what_was_checked() -> None:
    assert lines(REPORT) == [
        "jobs active at the start: 1: 1 completed, 0 failed, 0 retried, 0 recovered",
        "interrupted: 0   lost: 0   (all 1,200 jobs checked)",
        "paused for 2.0 s; longest gap with jobs waiting: 0.5 s",
        "restarted pm2:app (now pid 7); q running again",
    ]


def test_which_queues_run_goes_by_what_is_so_at_the_end() -> None:
    head = "restarted pm2:app (now pid 7); "
    two = replace(REPORT, queues=("q", "r"))
    for resumed, still, told in (
        (True, (), "q, r running again"),
        # One was paused before.
        (True, ("r",), "q running again; r still paused; resume with: qctl resume r"),
        (False, ("r",), "q running again; r still paused; resume with: qctl resume r"),
        (False, ("q", "r"), "still paused; resume with: qctl resume q r"),
        # It could not be read.
        (False, None, "still paused; resume with: qctl resume q r"),
        (True, None, "q, r running again"),
    ):
        report = replace(two, resumed=resumed, still_paused=still)
        assert lines(report)[-1] == head + told


def test_of_a_large_queue_it_was_counts_and_a_sample() -> None:
    proof = Proof(checked="counts and a sample of 10,000 jobs", ids=10_000)
    told = lines(replace(REPORT, proof=proof))
    assert told[1] == "interrupted: 0   lost: 0   (counts and a sample of 10,000 jobs checked)"


def test_lost_jobs_are_named_with_where_they_were() -> None:
    jobs = tuple(JobOutcome("q", str(number), "lost", "delayed") for number in range(60))
    told = lines(replace(REPORT, lost=60, jobs=jobs))
    assert told[1] == "interrupted: 0   lost: 60   (all 1,200 jobs checked)"
    assert told[2] == "    q 0: lost, was delayed"
    assert told[52] == "    … and 10 more; --json lists all"


def test_what_could_not_be_checked_is_unknown() -> None:
    report = replace(
        REPORT, interrupted=None, lost=None, idle_s=None, proof=Proof(why="Redis is away")
    )
    told = lines(report)
    assert told[1] == "interrupted: unknown   lost: unknown (Redis is away)"
    assert told[2] == "paused for 2.0 s; longest gap with jobs waiting: unknown"
    told = lines(replace(REPORT, interrupted=1))
    assert told[2] == "paused for 2.0 s; longest gap with jobs waiting: at most 0.5 s"


def test_a_queue_without_a_worker_does_not_run_again() -> None:
    aborted = replace(REPORT, outcome="aborted", queues=("q", "r"), unserved=("q",))
    assert lines(aborted)[-1] == (
        "aborted; r running again; q resumed, but without a worker: none is connected"
    )
    # Something was stopped, and nothing came in its place.
    told = lines(replace(aborted, queues=("q",), unserved=(), old_pids=(6, 7)))
    assert told[-1] == "aborted; q resumed"
    rolled = replace(REPORT, strategy="roll", resumed=False, unserved=("q",))
    assert lines(rolled)[-1] == (
        "restarted pm2:app (now pid 7); q without a worker: none is connected"
    )
    assert lines(replace(REPORT, unserved=None))[-1] == "restarted pm2:app (now pid 7); q resumed"


def test_jobs_without_a_lock_may_still_run() -> None:
    job = RunningJob("q", "1", "job", 2.0, None, None, None)
    (told,) = lines(Drained(2.0, (job,)))
    assert "no job with a lock is running; not waited for: 1 stalled job" in told
    assert "may still be running" in told
    report = replace(REPORT, outcome="drained", jobs=(JobOutcome("q", "1", "orphaned"),))
    assert lines(report)[-1].startswith("drained: nothing with a lock is running; ")


def test_orphans_alone_are_nothing_to_wait_for() -> None:
    job = RunningJob("q", "1", "job", 3.0, None, None, None)
    told = lines(Waiting(active=(), orphans=(job,), waited_s=2.0))
    assert told == ["no job is left to wait for, 2.0 s so far"]


def test_a_timeout_after_a_restart_does_not_say_that_nothing_was_restarted() -> None:
    told = lines(replace(REPORT, outcome="timeout"))
    expected = "timed out: jobs were still running after 1 process had been restarted"
    assert told[-1] == f"{expected}; q running again"


def test_only_a_restart_that_was_wanted_was_not_made() -> None:
    timed_out = replace(REPORT, outcome="timeout", old_pids=(), new_pids=())
    assert "still running, so nothing was restarted;" in lines(timed_out)[-1]
    told = lines(replace(timed_out, target=None))[-1]
    assert told == "timed out: jobs were still running; q running again"


def test_a_restart_at_the_end_of_the_time_says_that_the_time_is_up() -> None:
    job = RunningJob("q", "1", "n", 1.0, 1_000, None, None)
    (line,) = lines(TimeUp(300.0, (job, job)))
    assert line.startswith("timed out after 5 min")
    assert "2 jobs still run" in line
