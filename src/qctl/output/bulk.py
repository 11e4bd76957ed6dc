"""Questions and reports about jobs in bulk."""

from __future__ import annotations

from collections.abc import Iterator

from qctl.ops.bulk.actions import Action
from qctl.ops.bulk.choice import Selection
from qctl.ops.bulk.report import BulkProgress, BulkReport
from qctl.output.text import count, visible
from qctl.plurals import counted

_ASKING = {
    "retry": "Run {} again",
    "promote": "Run {} now",
    "remove": "Delete {}",
    "purge": "Delete {}",
}
_DONE = {"retry": "retried", "promote": "promoted", "remove": "deleted", "purge": "deleted"}
_FORESEEN = {
    "retry": "would be retried",
    "promote": "would be promoted",
    "remove": "would be deleted",
    "purge": "would be deleted",
}
_MAX_SHOWN = 10


def question(action: Action, queue: str, selection: Selection, most: int) -> str:
    """What is about to be done, without a question mark."""
    state = f"{selection.state} " if selection.state else ""
    is_certain = bool(selection.named_count) or not selection.only.is_set
    which = counted(most, f"{state}job")
    if not is_certain:
        which = "up to " + counted(most, f"matching {state}job")
    text = _ASKING[action.name].format(f"{which} of {queue}")
    if action.with_children:
        text += f" and all jobs below {'it' if most == 1 else 'them'}"
    return text + ("; that cannot be undone" if action.name in {"remove", "purge"} else "")


def progress_text(progress: BulkProgress) -> str:
    """One line for a terminal."""
    scanned = f"{count(progress.scanned)} of {count(progress.total)} scanned"
    below = f", {count(progress.below_count)} below them" if progress.below_count else ""
    return f"{scanned}, {count(progress.matched)} match, {count(progress.done)} done{below}"


def report_lines(report: BulkReport, *, paused: bool) -> Iterator[str]:
    """What was done, or would be.

    Args:
        paused: whether the queue is paused; then the jobs run after a resume.
    """
    queue = visible(report.queue)
    words = _FORESEEN if report.dry_run else _DONE
    ids = ", ".join(visible(job_id, 40) for job_id in report.sample)
    if report.done > len(report.sample):
        ids += f" and {count(report.done - len(report.sample))} more"
    yield f"{queue}: {counted(report.done, 'job')} {words[report.action]}" + (ids and f": {ids}")
    if report.below_count:
        yield f"{counted(report.below_count, 'job')} below {words[report.action]}"
    if report.state is not None:
        end = "" if report.complete else "; it ended early"
        yield f"{count(report.scanned)} of {count(report.total)} {report.state} scanned{end}"
    for skipped in report.skipped[:_MAX_SHOWN]:
        yield f"{visible(skipped.id, 40)} left alone: {visible(skipped.reason)}"
    if report.skipped_count > _MAX_SHOWN:
        yield f"{counted(report.skipped_count - _MAX_SHOWN, 'more job')} left alone"
    if paused and report.done and report.action in {"retry", "promote"}:
        yield f"{queue} is paused: they run after `qctl resume`"
