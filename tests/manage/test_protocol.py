"""What each process manager can do."""

from __future__ import annotations

import pytest

from qctl.manage.kinds import KINDS
from qctl.manage.numbers import whole_number
from qctl.manage.protocol import Restarter, Rollout
from qctl.ops.processes.managers import manager_for
from tests.labs.impact import SETTINGS


@pytest.mark.parametrize("kind", KINDS)
def test_processes_are_restarted_one_by_one_or_together(kind: str) -> None:
    manager = manager_for(kind, SETTINGS)
    assert isinstance(manager, Rollout) == (kind in {"kubernetes", "command"})
    assert isinstance(manager, Restarter) != isinstance(manager, Rollout)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *((5, 5), ("5", 5), (5.9, 5), (0, 0), (2**53, 2**53), (str(2**53), 2**53)),
        *((value, None) for value in (2**53 + 1, 10**400, -1, "-1", "1_0", "²", "9" * 5000, "")),
        *((value, None) for value in (float("nan"), float("inf"), True, None, [1], "5.5")),
    ],
)
def test_numbers_of_managers(value: object, number: int | None) -> None:
    assert whole_number(value) == number
