"""A drain on a terminal of 80 and of 120 columns, compared with snapshots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from qctl.ops.drain.ledger import JobOutcome
from qctl.ops.drain.steps import (
    CommandDone,
    Drained,
    DrainReport,
    Paused,
    Planned,
    ProcessPlan,
    Proof,
    Recovered,
    Restarting,
    Resumed,
    RunningCommand,
    RunningJob,
    Step,
    TimeUp,
    Waiting,
)
from qctl.ops.processes.replacement import QueueWorkers
from qctl.ops.processes.restart import Ready
from qctl.output.drain.checklist import Checklist
from qctl.output.drain.plan import plan_block
from qctl.output.drain.verdict import verdict_block
from tests.labs.screens import compare

SCREENS = Path(__file__).parent / "screens"
LONG = "notifications-for-customers-in-the-european-union-region-1"


def job(number: int, *, queue: str = "emails", estimate_s: float | None = 2.0) -> RunningJob:
    return RunningJob(queue, str(96 + number), "welcome", 0.4 + number, 28_000, None, estimate_s)


def process(number: int = 0, *, target: str = "pm2:worker") -> ProcessPlan:
    return ProcessPlan(
        target, str(number), 9587 + number, "online", "SIGINT", 1600, ("emails", "images"), ""
    )


PLAN = Planned(
    queues=("emails", "images"),
    already_paused=(),
    target="pm2:worker",
    processes=(process(),),
    backlog=12,
    active=tuple(map(job, range(4))),
    orphans=(),
    estimate_s=3.2,
    warnings=(),
)
WIDE_PLAN = replace(
    PLAN,
    queues=(LONG, *(f"svc-{number:02}" for number in range(40))),
    processes=(process(), process(1, target=f"docker:{LONG}/worker")),
    active=tuple(job(number, queue=LONG, estimate_s=None) for number in range(33)),
    orphans=(job(50),),
    estimate_s=None,
    warnings=(
        "the app resumes emails when it starts, so the drain will have to pause emails again",
    ),
)
REPORT = DrainReport(
    outcome="restarted",
    queues=("emails", "images"),
    target="pm2:worker",
    active_at_start=26,
    completed=22,
    retried=4,
    interrupted=0,
    lost=0,
    jobs=tuple(JobOutcome("emails", str(number), "completed") for number in range(26)),
    paused_s=3.7,
    idle_s=1.2,
    old_pids=(9587,),
    new_pids=(9702,),
    resumed=True,
    still_paused=(),
    proof=Proof("all ids", 1_234),
    unserved=(),
    prefix="bull",
)
MANY = tuple(f"svc-{number}" for number in range(10_000))
_CRASH = (
    "pm2:worker (id 0) keeps crashing after the restart\n"
    "TypeError: Cannot read properties of undefined (reading 'smtp')\n"
    "    at Object.<anonymous> (/srv/shop/worker.js:4:89)\n"
    "2 new processes have died; its status is online; no worker of emails is connected now\n"
    "fix the app, then pm2 restart 0"
)
REPORTS = {
    "restarted": REPORT,
    "drained": replace(
        REPORT, outcome="drained", target=None, old_pids=(), new_pids=(), resumed=False,
        still_paused=("emails", "images"),
    ),
    "rolled": replace(REPORT, strategy="roll", paused_s=0.0, old_pids=(1, 2), new_pids=(3, 4)),
    "by-command": replace(
        REPORT,
        target=None,
        old_pids=(),
        new_pids=(),
        command=("docker", "compose", "up", "-d", "worker"),
        rule="as many as before",
        workers=(QueueWorkers("emails", 2, 0, 2, 2),),
    ),
    "crash-loop": replace(
        REPORT,
        outcome="aborted",
        new_pids=(),
        unserved=("emails", "images"),
        error=_CRASH,
        hint="fix the app, then pm2 restart 0",
        exit_status=1,
    ),
    "timeout": replace(
        REPORT,
        outcome="timeout",
        old_pids=(),
        new_pids=(),
        completed=22,
        retried=0,
        jobs=tuple(
            JobOutcome("emails", str(96 + number), "running" if number < 4 else "completed")
            for number in range(26)
        ),
        still_active=tuple(map(job, range(9))),
        exit_status=4,
    ),
    "stopped": replace(
        REPORT,
        outcome="aborted",
        old_pids=(),
        new_pids=(),
        completed=20,
        jobs=tuple(
            JobOutcome("emails", str(96 + number), "running" if number < 2 else "completed")
            for number in range(26)
        ),
        error="interrupted",
        exit_status=130,
    ),
    "lost": replace(
        REPORT,
        interrupted=1,
        lost=2,
        jobs=(
            JobOutcome("emails", "97", "interrupted"),
            JobOutcome("emails", "99", "lost"),
            JobOutcome("images", "order:4711", "lost", "waiting"),
        ),
        notes=("to put the lost jobs back: qctl jobs retry emails 99",),
        exit_status=1,
    ),
    "redis-away": replace(
        REPORT,
        outcome="aborted",
        interrupted=None,
        lost=None,
        idle_s=None,
        old_pids=(),
        new_pids=(),
        resumed=False,
        still_paused=None,
        unserved=None,
        proof=Proof(why="the outcome of the jobs could not be read: Redis does not answer"),
        notes=("emails, images may still be paused; the watchdog (pid 9703) tries to resume",),
        error="cannot reach Redis at localhost:6379\nConnection refused",
        exit_status=6,
    ),
    "no-jobs": replace(REPORT, active_at_start=0, completed=0, retried=0, jobs=()),
    "many-long-names": replace(
        REPORT, queues=WIDE_PLAN.queues, target=f"docker:{LONG}/worker",
        old_pids=tuple(range(20, 40)), new_pids=tuple(range(50, 70)),
        still_paused=(LONG,),
    ),
    "many-still-paused": replace(
        REPORT, outcome="aborted", error="interrupted", exit_status=130, new_pids=(),
        queues=MANY, still_paused=MANY, resumed=False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REPORTS)
def test_verdict(name: str) -> None:
    compare(
        SCREENS / f"{name}.txt",
        lambda width, _, colour: verdict_block(REPORTS[name], 4.2, width=width, colour=colour),
    )


BATCH_PLAN = replace(PLAN, processes=tuple(map(process, range(4))), max_unavailable=2)


@pytest.mark.parametrize(
    ("name", "plan"), [("plan", PLAN), ("wide-plan", WIDE_PLAN), ("batch-plan", BATCH_PLAN)]
)
def test_plan(name: str, plan: Planned) -> None:
    compare(
        SCREENS / f"{name}.txt",
        lambda width, _, colour: plan_block(plan, width=width, colour=colour, with_jobs=True),
    )


PAUSED = (Paused("emails", changed=True), Paused("images", changed=True))
WAITING = Waiting(PLAN.active[:3], (), 1.5)
RESTARTING = Restarting("pm2:worker", "0", 9587)
READY = Ready("pm2:worker", "0", 9587, 9702, 1.2, ("emails", "images"))
RUNS: dict[str, tuple[Planned, Sequence[Step]]] = {
    "waits": (PLAN, (*PAUSED, WAITING)),
    "waits-for-many": (WIDE_PLAN, (*PAUSED, Waiting(WIDE_PLAN.active, WIDE_PLAN.orphans, 75.0))),
    "restarts-two": (
        BATCH_PLAN,
        (
            *PAUSED,
            Drained(2.8, ()),
            RESTARTING,
            Restarting("pm2:worker", "1", 9588),
            Ready("pm2:worker", "1", 9588, 9703, 1.2, ("emails", "images")),
        ),
    ),
    "restarts": (PLAN, (*PAUSED, WAITING, Drained(2.8, ()), RESTARTING)),
    "resumed": (
        PLAN,
        (
            *PAUSED,
            Paused("emails", changed=True, again=True),
            TimeUp(600.0, PLAN.active),
            RESTARTING,
            READY,
            Recovered("emails", ("97", "98")),
            Resumed("emails", 0),
            Resumed("images", 0),
        ),
    ),
    "runs-a-command": (
        replace(PLAN, target=None, processes=(), command=("make", "deploy")),
        (
            *PAUSED,
            Drained(0.0, (job(7),)),
            RunningCommand(("make", "deploy")),
            CommandDone((QueueWorkers("emails", 2, 0, 2, 2),), "as many as before", 7.5),
        ),
    ),
}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("silent", [(), (("Redis", 2.1),)], ids=["", "redis-away"])
def test_checklist(
    name: str, silent: Sequence[tuple[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qctl.output.drain.checklist.time.monotonic", lambda: 1000.0)
    plan, steps = RUNS[name]

    def shown(width: int, height: int, colour: bool) -> Iterable[str]:
        checklist = Checklist(width=width, colour=colour)
        checklist.begin(plan)
        for step in steps:
            yield from checklist.update(step)
        yield from checklist.flush()
        live = [*checklist.live(silent, height)]
        # The plan is above, and the live lines must not scroll.
        assert len(live) < height - 2
        yield from live

    if not silent or name == "waits":
        compare(SCREENS / f"{name}{'-redis-away' * bool(silent)}.txt", shown)
