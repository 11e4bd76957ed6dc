"""What the report at the end of a drain says."""

from __future__ import annotations

from dataclasses import replace

from qctl.ops.drain.proof import Verdict
from qctl.ops.drain.report import _exit_status
from qctl.ops.drain.steps import Proof


def test_a_resume_by_others_that_could_not_be_checked_is_no_success() -> None:
    checked = Verdict(0, Proof(resumed_by_others=("q",)))
    assert _exit_status("restarted", None, checked) == 0
    assert _exit_status("restarted", None, replace(checked, lost=None)) == 1
    assert _exit_status("restarted", None, replace(checked, lost=1)) == 1
    # Mere ignorance is said, and is no sign of a loss.
    assert _exit_status("restarted", None, Verdict(None, Proof())) == 0
