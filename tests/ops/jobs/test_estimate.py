"""How long a running job still takes: the median of what those that ran as long still took."""

from __future__ import annotations

import pytest

from qctl.connection.address import Client
from qctl.ops.jobs.estimate import all_ended_s, quantile, remaining_s
from qctl.wire.read.active import ActiveJob
from qctl.wire.read.finished import read_recent_runs
from tests.labs.build import Q, put


def job(name: str | None = "mail") -> ActiveJob:
    return ActiveJob(Q, "1", name, 0, None, 0, None, "t", 1)


@pytest.mark.parametrize(
    ("runs", "elapsed", "expected"),
    [
        ([1, 2, 9], 0.0, 2.0),
        # Those of 1 s and 2 s are out: this one has run for longer already.
        ([1, 2, 9, 13], 3.0, 8.0),
        ([1, 2], 2.0, 0.0),
        ([1, 2], 2.1, None),
        ([], 0.0, None),
        ([5], None, None),
    ],
)
def test_the_formula(runs: list[float], elapsed: float | None, expected: float | None) -> None:
    assert remaining_s(job(), elapsed, {Q: {"mail": runs}}) == expected


def test_only_runs_of_the_same_name_tell(fake: Client) -> None:
    put(fake, "1", "completed", name="mail", processedOn=1000, finishedOn=4000)
    put(fake, "2", "completed", name="film", processedOn=1000, finishedOn=90_000)
    put(fake, "3", "completed", name="mail", processedOn=1000)
    durations = read_recent_runs(fake, [Q])
    assert durations == {Q: {"mail": [3.0], "film": [89.0]}}
    assert remaining_s(job(), 1.0, durations) == 2.0
    assert remaining_s(job("other"), 1.0, durations) is None
    assert remaining_s(job(None), 1.0, durations) is None


def test_a_broken_record_stops_no_drain(fake: Client) -> None:
    fake.call("SET", Q("completed"), "text")
    assert read_recent_runs(fake, [Q]) == {Q: {}}


@pytest.mark.parametrize(
    ("remaining", "share", "expected"),
    [
        ([], 0.5, 0.0),
        ([[1.0, 2.0, 3.0, 4.0]], 0.5, 2.0),
        ([[1.0, 2.0, 3.0, 4.0]], 0.95, 4.0),
        # Both: one in four pairs has ended by 2, nine in sixteen by 3.
        ([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]], 0.5, 3.0),
        ([[0.25], [7.0]], 0.5, 7.0),
        ([[0.25], []], 0.5, None),
    ],
)
def test_when_all_have_ended(
    remaining: list[list[float]], share: float, expected: float | None
) -> None:
    assert all_ended_s(remaining, share) == expected


def test_quantiles_are_values_that_were_seen() -> None:
    assert [quantile([1.0, 2.0, 3.0, 4.0], share) for share in (0.0, 0.5, 0.51, 0.95, 1.0)] == [
        *(1.0, 2.0, 3.0, 4.0, 4.0),
    ]
    assert quantile([], 0.5) is None
