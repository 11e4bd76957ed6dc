"""The summary of a sequence of drains, for a pipe and as snapshots of a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from qctl.errors import RefusedError
from qctl.ops.drain.ledger import JobOutcome
from qctl.ops.drain.sequence import SequenceReport, TurnBegins, not_begun
from qctl.ops.drain.steps import DrainReport, RunningJob
from qctl.output.drain.verdict import verdict_block
from qctl.output.sequence import heading, sequence_block, summary_lines
from tests.labs.screens import compare

SCREENS = Path(__file__).parent / "screens"
LONG = "notifications-for-customers-in-the-european-union-region-1"


def report(prefix: str | None, *queues: str, still_paused: tuple[str, ...] = ()) -> DrainReport:
    return DrainReport(
        outcome="restarted", queues=queues, target="pm2:a", strategy="pause", prefix=prefix,
        still_paused=still_paused,
    )  # fmt: skip


def test_queues_of_several_prefixes_are_shown_with_them() -> None:
    reports = (report("bull", "emails"), report("staging", "emails"), report(None, "x@a", "y@b"))
    lines = list(summary_lines(SequenceReport("restarted", reports, None), ["a", "b", "c"]))
    assert [line.partition("queues: ")[2] for line in lines] == [
        "emails@bull",
        "emails@staging",
        "x@a, y@b",
    ]


def test_what_stays_paused_is_said_again() -> None:
    one = report("bull", "emails", "images", still_paused=("images",))
    (line,) = summary_lines(SequenceReport("restarted", (one,), None), ["a"])
    assert line == "a  restarted; queues: emails, images; still paused: images"


WORKER = DrainReport(
    outcome="restarted", queues=("emails", "images"), target="pm2:worker", prefix="bull",
    active_at_start=2, completed=2, paused_s=3.7, idle_s=1.2, old_pids=(9587,), new_pids=(9702,),
    resumed=True, still_paused=(), unserved=(), interrupted=0, lost=0,
)  # fmt: skip
OTHER = replace(WORKER, target=f"docker:{LONG}", queues=(LONG, *(f"svc-{n}" for n in range(40))))
LATE = replace(
    WORKER, target="pm2:reports", outcome="timeout", queues=("reports",), old_pids=(), new_pids=(),
    active_at_start=1, completed=0, exit_status=4,
    jobs=(JobOutcome("reports", "7", "running"),),
    still_active=(RunningJob("reports", "7", "yearly", 1_234.0, 28_000, None, None),),
)  # fmt: skip
REFUSED = not_begun(
    "pm2:reports",
    ("reports",),
    "pause",
    RefusedError("reports is being drained", why="by ada@host (pid 42)", hint="wait for its end"),
)
SEQUENCES = {
    "restart-several": ((WORKER, OTHER), None),
    "restart-several-timeout": ((WORKER, LATE), "reports"),
    "restart-several-refused": ((WORKER, REFUSED), "reports"),
    "restart-several-interrupted": (
        (replace(WORKER, interrupted=1), replace(OTHER, still_paused=("svc-7",), resumed=False)),
        None,
    ),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_several_targets_on_a_terminal(name: str) -> None:
    reports, resume_from = SEQUENCES[name]
    report = SequenceReport(reports[-1].outcome, reports, resume_from)
    targets = ["worker", "reports", "archive"] if resume_from else ["worker", f"docker:{LONG}"]

    def shown(width: int, _: int, colour: bool) -> Iterator[str]:
        for number, each in enumerate(reports):
            yield heading(TurnBegins(targets[number], number + 1, len(targets)))
            yield from verdict_block(each, 4.2, width=width, colour=colour)
        yield ""
        yield from sequence_block(report, targets, width=width, colour=colour)

    compare(SCREENS / f"{name}.txt", shown)
