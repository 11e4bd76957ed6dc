"""The output of the commands that change a whole queue."""

from __future__ import annotations

from collections.abc import Iterator

from qctl.ops.queues.delete import DeletionReport
from qctl.ops.queues.limits import LimitsReport
from qctl.output.text import count, duration, visible
from qctl.plurals import counted
from qctl.wire.write.limits import GlobalRateLimit

_KINDS = {
    "jobs": ("job", "jobs"),
    "locks": ("lock", "locks"),
    "logs": ("log", "logs"),
    "children": ("list of children", "lists of children"),
    "schedulers": ("key of schedulers", "keys of schedulers"),
    "deduplication": ("deduplication id", "deduplication ids"),
    "metrics": ("key of metrics", "keys of metrics"),
    "groups": ("key of groups", "keys of groups"),
    "queue": ("key of the queue itself", "keys of the queue itself"),
}


def limits_lines(report: LimitsReport) -> Iterator[str]:
    """One line for each limit. If a limit has changed, its line also shows the old value."""
    name = visible(report.queue)
    pairs = (
        ("concurrency", _concurrency(report.concurrency), _concurrency(report.was_concurrency)),
        ("rate limit", _rate_limit(report.rate_limit), _rate_limit(report.was_rate_limit)),
    )
    for what, now, before in pairs:
        was = f" (was {before})" if now != before else ""
        yield f"{name}: global {what} {now}{was}"


def _concurrency(value: int | str | None) -> str:
    if value is None:
        return "none"
    return count(value) if isinstance(value, int) else f"{visible(value, 40)} (not a number)"


def _rate_limit(value: GlobalRateLimit | None) -> str:
    if value is None:
        return "none"
    return f"{counted(value.max, 'job')} in {duration(value.duration_ms / 1000)}"


def counting_text(keys: int) -> str:
    """How far the count is, on one line."""
    return f"looking at all keys of this Redis: {counted(keys, 'key')} of the queue so far"


def deleting_text(deleted: int, total: int) -> str:
    """How far the deletion is, on one line."""
    return f"{count(deleted)} of {counted(total, 'key')} deleted"


def deletion_question(report: DeletionReport) -> str:
    """What will be deleted, for the question."""
    kinds = ", ".join(_kinds(report))
    return f"Delete queue {report.queue} with {kinds}; that cannot be undone."


def deletion_lines(report: DeletionReport) -> Iterator[str]:
    """What was deleted, or in a dry run, what would be."""
    name = visible(report.queue)
    if report.dry_run:
        yield f"{name}: {counted(report.total, 'key')} would be deleted"
        yield from _kinds(report)
    elif report.complete:
        yield f"{name} is deleted: {counted(report.deleted, 'key')}"
    else:
        yield f"{name}: {count(report.deleted)} of {counted(report.total, 'key')} deleted"


def _kinds(report: DeletionReport) -> Iterator[str]:
    for kind, number in report.keys.items():
        yield counted(number, *_KINDS[kind])


def deletion_remarks(report: DeletionReport) -> Iterator[str]:
    """What else the operator should know before the deletion."""
    if report.workers is None:
        yield "it is unknown whether workers are connected"
    elif report.workers:
        yield f"{counted(report.workers, 'worker is', 'workers are')} connected"
    elif report.running:
        yield f"{counted(report.running, 'active job has', 'active jobs have')} a lock"
    if report.schedulers:
        schedulers = counted(report.schedulers, "scheduler")
        yield f"with {schedulers}; an app that upserts them at its start creates the queue again"
    if report.parents_elsewhere:
        jobs = counted(report.parents_elsewhere, "job has a parent", "jobs have parents")
        yield (
            f"{jobs} in another queue; these parents may wait for ever. `qctl jobs remove` deletes "
            "such jobs so that their parents go on"
        )
    if report.children_elsewhere:
        jobs = counted(report.children_elsewhere, "job waits", "jobs wait")
        yield f"{jobs} for children in another queue; these children stay"
