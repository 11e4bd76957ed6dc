"""What each process manager can do."""

from __future__ import annotations

import pytest

from qctl.manage.kinds import KINDS
from qctl.manage.protocol import Restarter, Rollout
from qctl.ops.processes.managers import manager_for
from tests.labs.impact import SETTINGS


@pytest.mark.parametrize("kind", KINDS)
def test_processes_are_restarted_one_by_one_or_together(kind: str) -> None:
    manager = manager_for(kind, SETTINGS)
    assert isinstance(manager, Rollout) == (kind in {"kubernetes", "command"})
    assert isinstance(manager, Restarter) != isinstance(manager, Rollout)
