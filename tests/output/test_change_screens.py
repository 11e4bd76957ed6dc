"""Pause, resume, retry-stalled and one job on a terminal, compared with snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from qctl.ops.jobs.model import Children, Fate, JobDetail, JobParent, Skipped
from qctl.ops.jobs.retry_stalled import QueueToRetry, RetriedQueue, RetryPlan, RetryReport
from qctl.ops.queues.find import Queues
from qctl.ops.queues.pause import PauseResult
from qctl.output.changes_block import pause_block, retry_block, risk_block, waiting_lines
from qctl.output.job_block import job_block
from qctl.output.text import cells
from qctl.wire.keys import QueueKeys
from qctl.wire.read.active import ActiveJob
from tests.labs.screens import compare

SCREENS = Path(__file__).parent / "screens"
LONG = "notifications-for-customers-in-the-european-union-region-1"
LONG_ID = "customer-4711-invoice-2026-11-30-reminder-2-of-the-second-quarter"
NOW = datetime(2026, 11, 30, 4, 10, tzinfo=UTC)

# Pause and resume


def paused(name: str, **fields: Any) -> PauseResult:
    return replace(PauseResult(name, "bull", paused=True, changed=True, active=2), **fields)


MIXED = (
    "BullMQ 5 and BullMQ 6 both work on this queue: jobs that are added while it is paused can be "
    "lost if BullMQ 5 resumes it"
)
PAUSES: dict[str, tuple[Sequence[PauseResult], bool]] = {
    "pause-one": ([paused("emails")], False),
    "pause-long": ([paused(LONG, active=1_234)], False),
    "pause-stalled": ([paused("emails", active=5, stalled=3)], False),
    "pause-again": ([paused("emails", changed=False)], False),
    "pause-dry-run": ([paused("emails")], True),
    "pause-mixed": ([paused("emails", warnings=(MIXED,))], False),
    "pause-several": (
        [paused("emails"), paused(LONG, active=0), paused("imports", changed=False)],
        False,
    ),
    "pause-many": ([paused(f"queue-{number}") for number in range(10_000)], False),
    "resume-one": ([paused("emails", paused=False, moved=12)], False),
    "resume-several": (
        [paused("emails", paused=False), paused(LONG, paused=False, changed=False)],
        False,
    ),
    "resume-prefixes": (
        [paused(LONG, paused=False, prefix="app"), paused("b", paused=False, moved=3)],
        True,
    ),
}


@pytest.mark.parametrize("name", PAUSES)
def test_a_pause_or_resume(name: str) -> None:
    results, dry_run = PAUSES[name]
    prefix = None if len({result.prefix for result in results}) > 1 else "bull"
    lines = list(pause_block(results, prefix=prefix, dry_run=dry_run, width=80, colour=False))
    assert len(lines) <= 20
    compare(
        SCREENS / f"{name}.txt",
        lambda width, _, colour: pause_block(
            results, prefix=prefix, dry_run=dry_run, width=width, colour=colour
        ),
    )


# Retry of stalled jobs


def active(keys: QueueKeys, job_id: str) -> ActiveJob:
    return ActiveJob(keys, job_id, "mail", None, None, 0, None, None, None)


def to_retry(
    name: str, stalled: int = 2, waiting: int = 0, workers: int | None = 1
) -> QueueToRetry:
    keys = QueueKeys("bull", name)
    jobs = [active(keys, str(number)) for number in range(stalled + waiting)]
    return QueueToRetry(keys, tuple(jobs[:stalled]), tuple(jobs[stalled:]), (), workers)


def retried(name: str, *ids: str, **fields: Any) -> RetriedQueue:
    return replace(RetriedQueue(name, "bull", len(ids), ids, ()), **fields)


GONE = Skipped(LONG_ID, "its data (the job hash) is gone, so it cannot run")
RETRIES: dict[str, tuple[Sequence[RetriedQueue], Sequence[QueueToRetry], bool]] = {
    "stalled-one": ([retried("emails", "1", "2")], [to_retry("emails")], False),
    "stalled-none": ([retried("emails")], [to_retry("emails", 0)], False),
    "stalled-none-several": (
        [retried("emails"), retried("images")],
        [to_retry("emails", 0), to_retry("images", 0)],
        False,
    ),
    "stalled-dry-run": ([retried("emails", "1", LONG_ID)], [to_retry("emails")], True),
    "stalled-left": (
        [retried("emails", "1", skipped=(GONE,), failed=1)],
        [to_retry("emails")],
        False,
    ),
    "stalled-locked": ([retried("emails")], [to_retry("emails", 0, 3)], False),
    "stalled-several": (
        [
            retried("emails", *map(str, range(2_000))),
            retried(LONG, LONG_ID, skipped=(GONE,)),
            retried("imports", error="Redis is out of memory"),
            *(retried(f"quiet-{number}") for number in range(40)),
        ],
        [to_retry("emails", waiting=1), to_retry(LONG), to_retry("imports")],
        False,
    ),
}


@pytest.mark.parametrize("name", RETRIES)
def test_a_retry_of_stalled_jobs(name: str) -> None:
    queues, plans, dry_run = RETRIES[name]
    plan = RetryPlan(tuple(plans), Queues(()))
    compare(
        SCREENS / f"{name}.txt",
        lambda width, _, colour: retry_block(
            RetryReport(tuple(queues)),
            plan,
            prefix="bull",
            dry_run=dry_run,
            width=width,
            colour=colour,
        ),
    )


def test_the_risk_of_a_retry() -> None:
    plan = RetryPlan((to_retry("emails"), to_retry(LONG, 1, workers=None)), Queues(()))
    compare(
        SCREENS / "stalled-risk.txt",
        lambda width, _, colour: risk_block(plan, prefix="bull", width=width, colour=colour),
    )


def test_the_wait_for_locks() -> None:
    compare(
        SCREENS / "stalled-waiting.txt",
        lambda width, _, colour: waiting_lines(3, 12.3, 17.7, width=width, colour=colour),
    )


# One job

FAILED = JobDetail(
    queue="emails",
    id="4711",
    name="send",
    state="failed",
    data={"user": {"id": 7}},
    opts={"attempts": 3},
    attempts_made=3,
    attempts_started=3,
    attempts_max=3,
    added_at=NOW - timedelta(hours=2),
    started_at=NOW - timedelta(minutes=12),
    finished_at=NOW - timedelta(minutes=11),
    runtime_s=61.2,
    failed_reason="connect ETIMEDOUT 10.0.0.7:25",
    stacktrace=("Error: connect ETIMEDOUT 10.0.0.7:25\n    at TCPConnectWrap (node:net:1605:16)",),
)
HUGE = replace(
    FAILED,
    queue=LONG,
    id=LONG_ID,
    name="名前" * 30,
    data={"url": "https://example.com/" + "a" * 200, "text": "word " * 60, "bad": "\x1b[31m"},
    failed_reason="x" * 90 + "\nsecond line",
    parent=JobParent("bull:flows:9", "flows", "9", "bull", "waiting-children", False),
    children=Children(1, 2, 0, 1, (), 3),
    log_rows=12,
)
JOBS = {
    "job-failed": FAILED,
    "job-huge": HUGE,
    "job-completed": replace(
        FAILED, state="completed", failed_reason=None, stacktrace=(), returnvalue={"sent": True}
    ),
    "job-stalled": replace(
        FAILED,
        state="stalled",
        finished_at=None,
        failed_reason=None,
        stacktrace=(),
        worker="worker-1",
        fate=Fate(outcome="recovered", text="a stalled check puts it back within 30 s"),
    ),
    "job-delayed": replace(
        FAILED,
        state="delayed",
        started_at=None,
        finished_at=None,
        runtime_s=None,
        failed_reason=None,
        stacktrace=(),
        due_at=NOW + timedelta(minutes=3),
    ),
    "job-lost": replace(FAILED, state="unknown", failed_reason=None, stacktrace=()),
}


@pytest.mark.parametrize("name", JOBS)
def test_one_job(name: str) -> None:
    compare(
        SCREENS / f"{name}.txt",
        lambda width, _, colour: job_block(JOBS[name], NOW, "bull", width=width, colour=colour),
    )


@pytest.mark.parametrize("width", [20, 33, 80])
def test_nothing_of_a_job_is_lost_by_folding(width: int) -> None:
    lines = [*job_block(HUGE, NOW, "bull", width=width, colour=False)]
    assert all(cells(line) <= width for line in lines if "qctl " not in line)
    together = "".join(line.strip() for line in lines)
    assert "a" * 200 in together
    assert "x" * 90 in together
    assert "u001b" in together
