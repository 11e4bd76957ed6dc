"""``status`` and ``status --watch`` on a terminal of 80 and of 120 columns, as snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from qctl.ops.doctor_errors import DoctorErrors
from qctl.ops.queues.advice import Note
from qctl.ops.queues.problems import Problem
from qctl.ops.queues.status import ProcessStatus, QueueStatus, RedisInfo, StatusReport
from qctl.output.status import status_text, watch_text
from qctl.wire.read.snapshot import Counts
from tests.labs.reports import QUEUE, REDIS
from tests.labs.screens import compare

SCREENS = Path(__file__).parent / "screens"
LONG = "notifications-for-customers-in-the-european-union-region-1"
HEALTHY = replace(QUEUE, name="emails", paused_at=None)
BY = "qctl pause of ada@host (pid 42)"
SINCE = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


def queue(name: str, *notes: Note, counts: Counts | None = None, **fields: object) -> QueueStatus:
    found = replace(HEALTHY, name=name, notes=notes, **fields)  # type: ignore[arg-type]
    return found if counts is None else replace(found, counts=counts)


def problem(kind: str, severity: str, names: Sequence[str], text: str, *commands: str) -> Problem:
    return Problem(kind, severity, tuple(names), text, commands)  # type: ignore[arg-type]


NO_WORKER = Note("3 jobs wait, and no worker is connected", (), "no_worker", "error", 3)
STALLED = Note("1 job has stalled", ("qctl jobs list x",), "stalled", "error", 1)
GONE = Note("5 of 10 active jobs belong …", (), "worker_gone", "warning", 5, 27.0)
PAUSED = Note("paused", ("qctl resume x",), "paused", "warning", 1)
OVERDUE = Note("2 delayed jobs are overdue", (), "overdue", "warning", 2)
LIMITED = Note("rate limited", (), "rate_limited", "info", 1)
UNKNOWN = Note("1 job waits, and …", (), "workers_unknown", "unknown", 1)
BROKEN = Note("its global concurrency is 'x'", (), "broken", "error")


def hundred() -> StatusReport:
    names = [f"svc-{number:02}" for number in range(1, 101)]
    waiting = Counts(3, 0, 0, 0, 0, 0, 12, 0)
    queues = [queue(name, NO_WORKER, counts=waiting, workers=0) for name in names[:40]]
    queues += [queue(names[40], BROKEN, counts=waiting, is_broken=True)]
    queues += [queue(name, STALLED, counts=Counts(0, 1, 1, 0, 0, 0, 5, 2)) for name in names[41:46]]
    queues += [queue(names[46], GONE, counts=Counts(0, 10, 0, 0, 0, 0, 5, 0))]
    queues += [
        queue(name, PAUSED, paused=True, paused_by=BY, paused_at=SINCE) for name in names[47:50]
    ]
    queues += [queue(names[50], OVERDUE, counts=Counts(0, 0, 0, 2, 0, 0, 0, 0), overdue=2)]
    queues += [queue(names[51], LIMITED, rate_limited_s=41.0)]
    queues += [queue(names[52], UNKNOWN, workers=None)]
    queues += [queue(name) for name in names[53:]]
    problems = (
        problem(
            *("broken", "error", names[40:41]),
            "svc-41: its global concurrency is 'x', which is not a number: BullMQ fails on every "
            "add and every fetch",
        ),
        problem(
            *("no_worker", "error", names[:40]),
            "40 queues have 120 jobs waiting and no worker: svc-01, svc-02 and 38 more",
        ),
        problem(
            *("stalled", "error", names[41:46]),
            "5 queues have 5 stalled jobs: svc-42, svc-43 and 3 more",
            "qctl status svc-42",
        ),
        problem(
            *("worker_gone", "warning", names[46:47]),
            "svc-47: 5 of 10 active jobs belong to a worker that is not connected: they stall "
            "within 27 s, unless the worker is closing or comes back",
            "qctl jobs retry-stalled svc-47 --wait",
        ),
        problem(
            *("paused", "warning", names[47:50]),
            f"3 queues with 3 ready jobs are paused by {BY}, since 2026-11-30 12:00:00 UTC: "
            "svc-48, svc-49 and svc-50",
            *(f"qctl resume {name}" for name in names[47:50]),
        ),
        problem(
            *("overdue", "warning", names[50:51]),
            "svc-51: 2 delayed jobs are overdue: no worker has fetched them",
        ),
        problem(
            *("rate_limited", "info", names[51:52]),
            "svc-52: rate limited for another 41 s: 5 of 5 jobs have started in this window",
        ),
        problem(
            *("workers_unknown", "unknown", names[52:53]),
            "svc-53: 1 job waits, and it is unknown whether a worker is connected",
        ),
    )
    process = ProcessStatus("pm2:svc", "0", 411, "online", 61.0, 2, 12.4, 97_500_000, ("svc-60",))
    return StatusReport(REDIS, tuple(queues), (process,), problems=problems)


LONG_NAMES = StatusReport(
    REDIS,
    (queue(LONG, NO_WORKER, workers=0), queue(LONG.replace("1", "2"), NO_WORKER, workers=0)),
    (ProcessStatus("pm2:" + LONG, "0", 411, "online", 61.0, 2, 12.4, 97_500_000, (LONG,)),),
    problems=(
        problem(
            *("no_worker", "error", [LONG, LONG.replace("1", "2")]),
            f"2 queues have 6 jobs waiting and no worker: {LONG} and {LONG.replace('1', '2')}",
        ),
    ),
)
UNKNOWN_WORKERS = StatusReport(
    REDIS,
    (queue("emails", UNKNOWN, workers=None), queue("idle", counts=Counts(*[0] * 8), workers=None)),
    (),
    problems=(
        problem(
            *("workers_unknown", "unknown", ["emails"]),
            "emails: 1 job waits, and it is unknown whether a worker is connected",
        ),
    ),
)
REPLICA = replace(
    UNKNOWN_WORKERS,
    redis=RedisInfo("redis://h:1/0", "7.0.15", "standalone", replica_of="10.0.0.1:6379"),
)
DOCTOR = DoctorErrors(
    SINCE,
    720.0,
    4,
    (
        "emails: 3 jobs have stalled, and no worker checks for stalled jobs",
        f"{LONG}: 1 job is gone",
        "redis: not shown",
    ),
)
REPORTS = {
    "doctor": replace(hundred(), queues=hundred().queues[:2], doctor_errors=DOCTOR),
    "none": StatusReport(REDIS, (), ()),
    "healthy": StatusReport(REDIS, (HEALTHY,), ()),
    "hundred": hundred(),
    "long-names": LONG_NAMES,
    "unknown-workers": UNKNOWN_WORKERS,
    "replica": REPLICA,
}


@pytest.mark.parametrize("name", [name for name in REPORTS if name != "hundred"])
def test_status(name: str) -> None:
    def lines(width: int, _height: int, colour: bool) -> list[str]:
        return status_text(REPORTS[name], width=width, colour=colour).split("\n")

    compare(SCREENS / f"status-{name}.txt", lines)


@pytest.mark.parametrize("name", REPORTS)
def test_watch(name: str) -> None:
    def lines(width: int, height: int, colour: bool) -> list[str]:
        shown = watch_text(
            REPORTS[name],
            REPORTS[name].redis.remarks,
            banner="",
            foot="as of 12:00:00, 1 s ago; every 2 s, Ctrl-C to quit",
            width=width,
            height=height,
            colour=colour,
        ).split("\n")
        assert len(shown) <= height
        return shown

    compare(SCREENS / f"watch-{name}.txt", lines)


def test_watch_while_redis_is_away() -> None:
    def lines(width: int, height: int, colour: bool) -> list[str]:
        shown = watch_text(
            hundred(),
            (),
            banner="Redis has not answered for 4.0 s; these figures are 5.5 s old",
            foot="as of 12:00:00, 5 s ago; every 2 s, Ctrl-C to quit",
            width=width,
            height=height,
            colour=colour,
        ).split("\n")
        assert len(shown) == height
        return shown

    compare(SCREENS / "watch-away.txt", lines)


@pytest.mark.parametrize("height", range(3, 40))
def test_a_small_screen_is_full_and_says_what_is_missing(height: int) -> None:
    shown = watch_text(
        hundred(), (), banner="", foot="foot", width=80, height=height, colour=False
    ).split("\n")
    assert (len(shown), shown[-1]) == (height, "foot")
    assert shown[-2].startswith("and ")
    rows = sum(line.startswith("svc-") for line in shown)
    assert f"{100 - rows} more queues" in shown[-2]


def test_of_ten_thousand_queues_a_screen_counts_those_that_do_not_fit() -> None:
    many = replace(hundred(), queues=tuple(queue(f"q{number}") for number in range(10_000)))
    shown = watch_text(many, (), banner="", foot="foot", width=80, height=24, colour=False).split(
        "\n"
    )
    rows = sum(line.startswith("q") for line in shown)
    assert shown[-2] == f"and {10_000 - rows:,} more queues, 1 more process"


def test_queues_with_problems_come_first_and_each_part_in_the_order_of_names() -> None:
    text = status_text(hundred(), width=80, colour=False)
    rows = [line.split()[0] for line in text.split("\n") if line.startswith("svc-")]
    errors, warnings = range(1, 47), range(47, 52)
    assert rows == [f"svc-{number:02}" for number in (*errors, *warnings, *range(52, 101))]
