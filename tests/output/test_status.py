"""The picture of a status report."""

from __future__ import annotations

from dataclasses import replace

from qctl.ops.queues.advice import Note
from qctl.ops.queues.status import (
    QueueStatus,
    RateLimitStatus,
    StatusReport,
)
from qctl.ops.queues.workers import WorkersReport, WorkerStatus
from qctl.output.status import status_text, workers_text
from qctl.output.text import cells
from qctl.wire.read.snapshot import Counts
from tests.labs.reports import PROCESS, QUEUE, REDIS


def text(*queues: QueueStatus, width: int = 200, colour: bool = False) -> str:
    return status_text(StatusReport(REDIS, queues, ()), width=width, colour=colour)


def test_a_row_has_everything() -> None:
    assert text(QUEUE).splitlines()[0] == "redis://h:1/0, Redis 7.0.15, prefix bull"
    row = text(QUEUE).splitlines()[2].split()
    assert row == ["email", "running", "1", "2", "0", "0", "0", "0", "3", "0", "4m10s", "1"]


def test_states() -> None:
    def state(queue: QueueStatus) -> str:
        return text(queue).splitlines()[2].split()[1]

    assert state(replace(QUEUE, paused=True)) == "paused"
    assert state(replace(QUEUE, paused=True, draining=True)) == "draining"
    assert state(replace(QUEUE, rate_limited_s=2.0)) == "limited"
    assert state(replace(QUEUE, is_maxed=True)) == "maxed"
    unknown = RateLimitStatus(used=3, max=None, left_s=2.0, holds=None)
    assert state(replace(QUEUE, rate_limit=unknown)) == "running"
    idle = replace(QUEUE, counts=replace(QUEUE.counts, active=0), rate_limit=unknown)
    assert state(idle) == "limited?"
    assert state(replace(QUEUE, workers=None)) == "running"
    assert text(replace(QUEUE, workers=None)).splitlines()[2].split()[-1] == "?"


def test_an_age_that_cannot_be_read_is_not_shown_as_none() -> None:
    def age(queue: QueueStatus) -> str:
        return text(queue).splitlines()[2].split()[-2]

    assert age(replace(QUEUE, oldest_waiting_s=None)) == "?"
    empty = replace(QUEUE, counts=replace(QUEUE.counts, waiting=0), oldest_waiting_s=None)
    assert age(empty) == "-"


def test_commands_stand_on_lines_of_their_own() -> None:
    shown = text(replace(QUEUE, notes=(Note("paused\x1b", ("qctl resume email",)),)))
    assert shown.endswith("\nemail: paused\\x1b\n    qctl resume email\n")


def test_eighty_columns_are_enough_for_the_worst_row() -> None:
    worst = replace(
        QUEUE,
        name="a-very-long-queue-name-indeed-europe-west-1",
        draining=True,
        counts=Counts(*[12_345_678] * 8),
        oldest_waiting_s=86_400.0 * 12 + 40_000,
        workers=100,
    )
    lines = text(worst, width=80).splitlines()
    assert all(cells(line) <= 80 for line in lines)
    assert lines[2].split()[2:] == ["12.3M"] * 8 + ["12d11h", "100"]


def test_processes_and_workers_show_names_harmlessly() -> None:
    report = StatusReport(REDIS, (QUEUE,), (PROCESS,))
    row = status_text(report, width=200, colour=False).splitlines()[-1]
    assert row.split() == [
        *("pm2:w\\x1b[2J", "3", "4711", "online", "1m1s", "2", "12", "%", "93", "MiB", "email")
    ]
    workers = WorkersReport(
        (WorkerStatus("q", "bull", "w\n", "1.2.3.4:5", None, None, None, None, None, 61),)
    )
    row = workers_text(workers, width=200, colour=False).splitlines()[1]
    assert row.split() == ["q", "w\\n", "1.2.3.4:5", "-", "-", "-", "-", "-", "1m1s"]
