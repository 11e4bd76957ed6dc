"""The result of ``jobs add`` as text."""

from __future__ import annotations

from qctl.ops.jobs.add import AddReport
from qctl.output.json import iso_time
from qctl.output.text import visible


def id_line(report: AddReport) -> str:
    """The id alone, for ``id=$(qctl jobs add …)``."""
    text = "(a new number)" if report.id is None else visible(report.id)
    return text + (" (dry run)" if report.dry_run else "")


def remark_lines(report: AddReport) -> list[str]:
    """What happened, and what keeps the job from running."""
    state = report.state or "in no list"
    if report.due_at is not None:
        state += f" until {iso_time(report.due_at)}"
    if report.outcome == "exists":
        text = f"nothing was added: job {report.id} exists in {report.queue} ({state})"
    elif report.outcome == "deduplicated":
        text = f"nothing was added: job {report.id} of {report.queue} stands for it ({state})"
    else:
        new = "new queue" if report.created_queue else "queue"
        # BullMQ accepts an empty name; it is probably an unset variable.
        text = f"{report.name or 'a job without a name'} was added to {new} {report.queue}: {state}"
    if report.dry_run:
        text = text.replace(" was added", " would be added").replace(
            "nothing was", "nothing would be"
        )
        text += " (dry run)"
    return [text, *report.remarks]
