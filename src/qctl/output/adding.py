"""How an added job is told."""

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
        told = f"nothing was added: job {report.id} exists in {report.queue} ({state})"
    elif report.outcome == "deduplicated":
        told = f"nothing was added: job {report.id} of {report.queue} stands for it ({state})"
    else:
        new = "new queue" if report.created_queue else "queue"
        # BullMQ takes an empty name, which is likelier a variable that was not set.
        told = f"{report.name or 'a job without a name'} was added to {new} {report.queue}: {state}"
    if report.dry_run:
        told = told.replace(" was added", " would be added").replace(
            "nothing was", "nothing would be"
        )
        told += " (dry run)"
    return [told, *report.remarks]
