"""The demo's proof: what holds, and everything that must make it fail."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from qctl.demo import record
from qctl.demo.record import Proof, Run

KILLED, OTHER = 1, 2
PLAIN = Run("a", "welcome", 0, OTHER, 0.0, "end")
FAILED = Run("b", "crm-sync", 0, OTHER, 0.0, "fail")
RETRIED = Run("b", "crm-sync", 1, OTHER, 1.0, "end")
SCHEDULED = Run("repeat:report:1", "report", 0, OTHER, 0.0, "end")
GOOD = (PLAIN, FAILED, RETRIED, SCHEDULED)


def judge(runs: Sequence[Run], *, completed: int = 3, left: int = 0) -> Proof:
    return record.judge(
        runs,
        {"a": 1, "b": 2},
        killed_pid=KILLED,
        completed=completed,
        left=left,
    )


def test_it_holds() -> None:
    proof = judge(GOOD)
    assert proof == Proof(2, 2, 1, 1, 0, 0, (), (), 3, 0)
    assert proof.holds


@pytest.mark.parametrize("outcome", [None, "end", "fail"])
def test_what_the_kill_cut_off_is_its_own(outcome: str | None) -> None:
    """Its handler may have ended: what counts is that Redis never heard of it."""
    cut = Run("a", "welcome", 0, KILLED, -1.0, outcome)
    proof = judge([cut, *GOOD])
    assert (proof.killed, proof.interrupted, proof.holds) == (1, 0, True)


@pytest.mark.parametrize(
    ("runs", "field", "value"),
    [
        pytest.param([FAILED, RETRIED], "lost", ("a",), id="never started"),
        pytest.param([PLAIN, FAILED], "lost", ("b",), id="never retried"),
        pytest.param([*GOOD, PLAIN], "interrupted", 1, id="ran twice"),
        pytest.param(
            [Run("a", "welcome", 0, 3, -1.0), *GOOD], "interrupted", 1, id="began again elsewhere"
        ),
        pytest.param(
            [FAILED, RETRIED, Run("a", "welcome", 0, 3, 0.0)], "interrupted", 1, id="cut off"
        ),
        pytest.param(
            [FAILED, RETRIED, Run("a", "welcome", 0, KILLED, 0.0)], "lost", ("a",), id="not back"
        ),
        pytest.param(
            [*GOOD, Run("a", "welcome", 1, OTHER, 2.0, "end")], "wrong", ("a",), id="once more"
        ),
        pytest.param(
            [PLAIN, Run("b", "crm-sync", 0, OTHER, 0.0, "end")], "wrong", ("b",), id="did not fail"
        ),
        pytest.param(
            [*GOOD, Run("z", "welcome", 0, OTHER, 0.0, "end")],
            "wrong",
            ("z",),
            id="nobody added it",
        ),
    ],
)
def test_it_fails(runs: list[Run], field: str, value: object) -> None:
    proof = judge(runs)
    assert getattr(proof, field) == value
    assert not proof.holds


def test_redis_must_agree() -> None:
    assert not judge(GOOD, completed=4).holds
    assert not judge(GOOD, left=1).holds


def test_no_jobs_prove_nothing() -> None:
    proof = record.judge([], {}, killed_pid=KILLED, completed=0, left=0)
    assert not proof.holds


def test_written_and_read(tmp_path: Path) -> None:
    file = tmp_path / record.RECORD_FILE
    record.write(file, "start", "a", "welcome", 0)
    assert not file.exists(), "without a file nobody wants to know"
    file.touch()
    for event, job_id, attempt in [("start", "a", 0), ("start", "b", 0), ("fail", "a", 0)]:
        record.write(file, event, job_id, "welcome", attempt)
    with file.open("a") as half:
        half.write('["start", "c"')
    runs = record.read(file)
    assert [(run.job_id, run.outcome) for run in runs] == [("a", "fail"), ("b", None)]
    assert {pid: [run.job_id for run in mine] for pid, mine in record.unfinished(runs).items()} == {
        os.getpid(): ["b"]
    }
