"""``impact`` on a terminal of 80 and of 120 columns, as snapshots."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from qctl.ops.drain.steps import ProcessPlan
from qctl.ops.impact.assess import Impact
from qctl.ops.impact.downtime import Downtime
from qctl.ops.impact.jobs_at_risk import JobAtRisk, JobRef
from qctl.ops.impact.recovery import Recovery
from qctl.ops.impact.verdict import Verdict
from qctl.ops.impact.waiting_work import QueueImpact
from qctl.ops.jobs.estimate import Runtimes
from qctl.output.impact.page import impact_text
from tests.labs.screens import compare

SCREENS = Path(__file__).parent / "screens"
LONG = "notifications-for-customers-in-the-european-union-region-1"
PROCESS = ProcessPlan("pm2:worker", "0", 9587, "online", "SIGINT", 1600, ("emails",), "")
QUEUE = QueueImpact(
    name="emails", prefix="bull", paused=False, waiting=12, waiting_is_least=False, prioritized=0,
    delayed=2, waiting_children=0, active=5, stalled=0, workers=1, other_workers=0,
    next_due_at=None,
)  # fmt: skip


def job(number: int, queue: str = "emails") -> JobAtRisk:
    return JobAtRisk(
        queue=queue, id=str(number), name="welcome", runtime_s=float(number), lock_ttl_ms=28_000,
        worker=None, held_by="target", stalled_count=0, is_exempt=False, interrupted=True,
        interrupted_if_handled=number < 3, fails_for_good=False,
        remaining_p50_s=1.0, remaining_p95_s=2.0,
    )  # fmt: skip


def refs(*numbers: int) -> tuple[JobRef, ...]:
    return tuple(JobRef("emails", str(number)) for number in numbers)


BUSY = Impact(
    asked_at=datetime(2026, 11, 30, 12, 0, tzinfo=UTC),
    verdict=Verdict(
        "drain first",
        ("a plain restart would interrupt 5 jobs", "12 jobs wait, so one may start at any moment"),
        ("qctl restart pm2:worker",),
    ),
    target="pm2:worker",
    why_no_target="",
    prefix="bull",
    processes=(PROCESS,),
    stop_signal=None,
    handles_signal=None,
    kill_after_s=1.6,
    last_restarts=(),
    queues=(QUEUE,),
    also=(),
    foreign=(),
    unread=(),
    bull=(),
    jobs=tuple(job(number) for number in range(1, 6)),
    interrupted=refs(1, 2, 3, 4, 5),
    interrupted_if_handled=refs(1, 2),
    fails_for_good=(),
    fails_if_handled=(),
    unattributed=(),
    max_stalled_count=1,
    runtimes=(
        Runtimes(queue="emails", name="welcome", active=5, sample=200, p50_s=3.0, p95_s=5.0),
    ),
    recovery=(
        Recovery(
            queue="emails", by="restarted", min_s=30.0, max_s=92.0, lock_ms=30_000,
            interval_ms=30_000, interval_assumed=True, is_checked=False, next_check_ms=22_000,
        ),
    ),
    away_s=4.5,
    schedules=(),
    schedules_unread=0,
    downtime=Downtime(
        boot_s=(0.1, 2.9), boot_is_assumed=False, plain_s=(0.1, 4.5), drain_wait_p50_s=3.0,
        drain_wait_p95_s=5.0, drain_p50_s=4.0, drain_p95_s=6.0, roll_is_possible=False,
        roll_why_not="only 1 process is online",
    ),
    data=(),
    best_time=None,
)  # fmt: skip
IDLE = replace(
    BUSY,
    verdict=Verdict(
        "safe",
        ("no job is running, and no job is known that could start at this moment",),
        ("qctl restart pm2:worker",),
    ),
    queues=(replace(QUEUE, waiting=0, delayed=0, active=0),),
    jobs=(),
    interrupted=(),
    interrupted_if_handled=(),
    runtimes=(),
    recovery=(),
)
UNKNOWN = replace(
    BUSY,
    verdict=Verdict(
        "not now",
        (f"{LONG} cannot be read: WRONGTYPE", "it is unknown whose the active jobs are"),
        (f"qctl status {LONG}",),
    ),
    target=None,
    why_no_target="no managed process on this host holds their workers",
    processes=(),
    handles_signal=None,
    kill_after_s=None,
    interrupted_if_handled=None,
    last_restarts=None,
    queues=(replace(QUEUE, name=LONG, workers=None, other_workers=None, waiting_is_least=True),),
    unread=(LONG,),
    schedules=None,
    schedules_unread=None,
    data=None,
    downtime=replace(
        BUSY.downtime, plain_s=None, drain_wait_p50_s=None, drain_wait_p95_s=None,
        drain_p50_s=None, drain_p95_s=None, roll_is_possible=None,
        roll_why_not="it is unknown which process would be restarted",
    ),
)  # fmt: skip
IMPACTS = {"drain-first": BUSY, "safe": IDLE, "unknown": UNKNOWN}


@pytest.mark.parametrize("name", IMPACTS)
def test_impact(name: str) -> None:
    compare(
        SCREENS / f"impact-{name}.txt",
        lambda width, _, colour: impact_text(
            IMPACTS[name], width=width, colour=colour
        ).splitlines(),
    )


@pytest.mark.parametrize("name", IMPACTS)
def test_the_verdict_comes_first(name: str) -> None:
    first = impact_text(IMPACTS[name], width=80, colour=False).splitlines()[0]
    word = IMPACTS[name].verdict.word
    assert first.startswith("safe now: " if word == "safe" else f"{word}: ")
