"""The result of ``qctl wait`` as text."""

from __future__ import annotations

from qctl.ops.follow.wait import WaitReport
from qctl.output.text import duration, visible


def report_line(report: WaitReport) -> str:
    """One line for a success; empty for a failure, which is an error."""
    after = f"after {duration(report.waited_s)}"
    if report.outcome == "completed":
        return visible(f"{report.text} {after}")
    if report.outcome in {"idle", "empty"}:
        return visible(f"queue {report.queue} is {report.outcome} {after}: {report.text}")
    return ""
