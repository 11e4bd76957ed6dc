"""Commands on many jobs on a terminal of 80 and of 120 columns, compared with snapshots."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from qctl.cli.bulk_run import confirm
from qctl.cli.environment import Environment
from qctl.cli.options import CommonOptions
from qctl.cli.streams import Streams
from qctl.errors import RefusedError
from qctl.ops.bulk.actions import Action, Selection, purging, removing, retrying
from qctl.ops.bulk.model import BulkProgress, BulkReport
from qctl.ops.bulk.queues import BulkQueue
from qctl.ops.jobs.model import Skipped
from qctl.ops.jobs.where import Filter
from qctl.output.bulk import bulk_block, progress_lines
from qctl.wire.keys import QueueKeys
from tests.labs.screens import compare

SCREENS = Path(__file__).parent / "screens"
LONG = "notifications-for-customers-in-the-european-union-region-1"
LONG_ID = "customer-4711-invoice-2026-11-30-reminder-2-of-the-second-quarter"
DONE = BulkReport(
    queue="imports",
    prefix="bull",
    action="retry",
    state="failed",
    total=20_000,
    scanned=20_000,
    matched=667,
    done=667,
    skipped_count=0,
    skipped=(),
    sample=tuple(map(str, range(10))),
    dry_run=False,
)
LEFT = replace(
    DONE,
    done=664,
    skipped_count=3,
    skipped=(
        Skipped(LONG_ID, "another unfinished job has its deduplication id"),
        Skipped("17", "it does not exist, or its data is gone"),
        Skipped("18", "it does not exist, or its data is gone"),
    ),
)
NOTHING = replace(DONE, total=0, scanned=0, matched=0, done=0, sample=())


def of(queue: str, report: BulkReport) -> BulkReport:
    return replace(report, queue=queue)


VERDICTS: dict[str, tuple[Sequence[BulkReport], Sequence[QueueKeys]]] = {
    "bulk-done": ([DONE], []),
    "bulk-dry-run": ([replace(DONE, dry_run=True)], []),
    "bulk-nothing": ([NOTHING], []),
    "bulk-left-alone": ([of(LONG, replace(LEFT, sample=(LONG_ID,) * 10))], []),
    "bulk-paused": ([DONE], [QueueKeys("bull", "imports")]),
    "bulk-interrupted": ([replace(DONE, scanned=400, complete=False, error="interrupted")], []),
    "bulk-purged": (
        [replace(DONE, action="purge", done=100_000, scanned=100_000, total=100_000)],
        [],
    ),
    "bulk-below": ([replace(DONE, action="remove", below_count=1_200)], []),
    "bulk-several": (
        [
            DONE,
            of(LONG, replace(LEFT, prefix="app")),
            of("mails", replace(DONE, done=3, complete=False, error="Redis is out of memory")),
            of("quiet", NOTHING),
        ],
        [QueueKeys("bull", "imports"), QueueKeys("app", LONG)],
    ),
    "bulk-many-queues": ([of(f"queue-{n}", DONE) for n in range(10_000)], []),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_the_end(name: str) -> None:
    reports, paused = VERDICTS[name]
    compare(
        SCREENS / f"{name}.txt",
        lambda width, _, colour: bulk_block(
            reports, 12.4, paused=paused, width=width, colour=colour
        ),
    )


PURGE = replace(DONE, action="purge", total=100_000, scanned=100_000, matched=667, done=667)
ALL = Selection(state="failed")
SOME = Selection(state="failed", only=Filter(name="mail"))
# The command, the queues, which jobs, what a count has found, and what the operator types.
QUESTIONS: dict[str, tuple[Action, Sequence[str], Selection, Sequence[BulkReport] | None]] = {
    "purge-question": (purging(), ["imports"], ALL, None),
    "purge-question-counted": (purging(), [LONG], SOME, [of(LONG, PURGE)]),
    "remove-question-below": (
        removing(with_children=True),
        [LONG],
        SOME,
        [of(LONG, replace(LEFT, action="remove", below_count=1_200, skipped_count=1))],
    ),
    "retry-question-several": (
        retrying("failed", reset_attempts=False),
        ["imports", LONG, "quiet"],
        SOME,
        [DONE, of(LONG, LEFT), of("quiet", NOTHING)],
    ),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_question(name: str) -> None:
    action, names, selection, scanned = QUESTIONS[name]
    queues = [BulkQueue(QueueKeys("bull", queue), 100_000, paused=False) for queue in names]

    def shown(width: int, _: int, colour: bool) -> Sequence[str]:
        typed = io.StringIO("no\n")
        environ = {"XDG_CONFIG_HOME": "/nonexistent"}
        streams = Streams(
            typed, io.StringIO(), io.StringIO(), *([True] * 3), width=width, environ=environ
        )
        env = Environment(streams, CommonOptions(no_color=not colour))
        with pytest.raises(RefusedError):
            confirm(env, queues, action, selection, scanned)
        assert typed.read() == ""
        return streams.stderr.getvalue().split("\n")  # type: ignore[attr-defined]

    compare(SCREENS / f"{name}.txt", shown)


STEP = BulkProgress(
    queue="imports", prefix="bull", scanned=12_345, matched=500, done=500, total=100_000
)
STEPS = {
    "bulk-progress-counting": ("counting", STEP, 4.0),
    "bulk-progress-start": ("retrying", replace(STEP, scanned=0, done=0), 0.1),
    "bulk-progress-empty": ("retrying", replace(STEP, scanned=0, done=0, total=0), 2.0),
    "bulk-progress-below": (
        "deleting",
        replace(STEP, queue=LONG, scanned=99_000_000, total=100_000_000, below_count=70_000),
        9_000.0,
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_the_progress(name: str) -> None:
    doing, step, took_s = STEPS[name]
    compare(
        SCREENS / f"{name}.txt",
        lambda width, _, colour: progress_lines(
            step, took_s, doing=doing, limit=None, width=width, colour=colour
        ),
    )


def test_the_bar_reaches_its_end_at_the_limit() -> None:
    _, line = progress_lines(STEP, 4.0, doing="retrying", limit=500, width=80, colour=False)
    assert "─" not in line
    assert "left" not in line
