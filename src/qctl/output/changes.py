"""Questions and reports of the commands that change queues: pause, add, retry, remove, purge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qctl.output.json import iso_time
from qctl.output.text import count, listed, visible
from qctl.plurals import counted

if TYPE_CHECKING:
    from qctl.ops.bulk.actions import Action
    from qctl.ops.bulk.choice import Selection
    from qctl.ops.bulk.model import BulkProgress, BulkReport
    from qctl.ops.jobs.add import AddReport
    from qctl.ops.jobs.retry_stalled import RetryPlan, RetryReport
    from qctl.ops.queues.pause import PauseResult

_MAX_SHOWN = 10
# By whether it is a pause: what happens to the queue, what if it was so before, and to which jobs.
_PAUSED = {
    True: ("paused", "was paused already", "job", "still running"),
    False: ("resumed", "was not paused", "job", "moved back from the paused list"),
}
_PLANNED = {
    True: ("will be paused", "is paused already, and stays so", "active job", "will continue"),
    False: ("will be resumed", "is not paused", "job", "will be moved back from the paused list"),
}
_ASKING = {
    "retry": "Run {} again",
    "promote": "Run {} now",
    "remove": "Delete {}",
    "purge": "Delete {}",
}
_DONE = {"retry": "retried", "promote": "promoted", "remove": "deleted", "purge": "deleted"}


def pause_line(result: PauseResult, *, planned: bool = False) -> str:
    """What a pause or resume did to one queue, or what it will do if it is only planned."""
    changed, unchanged, noun, move = (_PLANNED if planned else _PAUSED)[result.paused]
    number = result.moved if not result.paused else result.active if result.changed else 0
    jobs = f"; {counted(number, noun)} {move}" if number else ""
    return f"{visible(result.name)} {changed if result.changed else unchanged}{jobs}"


def added_id(report: AddReport) -> str:
    """The id alone, for ``id=$(qctl jobs add …)``."""
    text = "(a new number)" if report.id is None else visible(report.id)
    return text + (" (dry run)" if report.dry_run else "")


def add_lines(report: AddReport) -> list[str]:
    """What happened, and what keeps the job from running."""
    state = report.state or "in no list"
    if report.due_at is not None:
        state += f" until {iso_time(report.due_at)}"
    nothing = f"nothing {'would be' if report.dry_run else 'was'} added: job {report.id}"
    if report.outcome == "exists":
        text = f"{nothing} exists in {report.queue} ({state})"
    elif report.outcome == "deduplicated":
        text = f"{nothing} of {report.queue} stands for it ({state})"
    else:
        new = "new queue" if report.created_queue else "queue"
        # BullMQ accepts an empty name; it is probably an unset variable.
        name = report.name or "a job without a name"
        done = "would be" if report.dry_run else "was"
        text = f"{name} {done} added to {new} {report.queue}: {state}"
    return [text + (" (dry run)" if report.dry_run else ""), *report.remarks]


def retry_risk_lines(plan: RetryPlan) -> Iterator[str]:
    """Why putting jobs back is a risk here: they may still be running."""
    for queue in plan.risky:
        name = visible(queue.keys.name)
        jobs = counted(len(queue.stalled), "stalled job")
        ids = listed([job.id for job in queue.stalled], _MAX_SHOWN)
        workers = (
            "whether a worker is connected is unknown"
            if queue.live_workers is None
            else f"{counted(queue.live_workers, 'worker')} connected"
        )
        yield f"{name}: {jobs} ({ids}), {workers}"
    yield (
        "A connected worker whose event loop is blocked cannot renew its locks: such a job looks "
        "stalled, is still running, and would run twice. BullMQ's own stalled check also puts "
        "stalled jobs back, within about a minute."
    )


def retry_lines(report: RetryReport, plan: RetryPlan) -> Iterator[str]:
    """Which stalled jobs were put back, queue by queue."""
    waiting = {queue.keys.name: queue.waiting_for for queue in plan.queues}
    quiet = 0
    for queue in report.queues:
        name = visible(queue.name)
        later = waiting.get(queue.name, ())
        if not queue.retried and not queue.skipped and not later:
            quiet += 1
        if queue.retried:
            of_failed = f", {queue.failed} of them failed ones" if queue.failed else ""
            ids = listed(queue.retried, _MAX_SHOWN)
            yield f"{name}: {counted(len(queue.retried), 'job')} put back{of_failed}: {ids}"
        for skipped in queue.skipped:
            yield f"{name}: {visible(skipped.id, 40)} left alone: {skipped.reason}"
        if later:
            ids = listed([job.id for job in later], _MAX_SHOWN)
            yield (
                f"{name}: {counted(len(later), 'job')} of gone workers still locked "
                f"({ids}); --wait waits for that"
            )
    if quiet:
        yield f"no stalled jobs in {counted(quiet, 'queue')}"


def bulk_question(action: Action, queue: str, selection: Selection, most: int) -> str:
    """What is about to be done, without a question mark."""
    state = f"{selection.state} " if selection.state else ""
    which = counted(most, f"{state}job")
    if selection.only.is_set and not selection.named_count:
        which = "up to " + counted(most, f"matching {state}job")
    text = _ASKING[action.name].format(f"{which} of {queue}")
    if action.with_children:
        text += f" and all jobs below {'it' if most == 1 else 'them'}"
    return text + ("; that cannot be undone" if action.name in {"remove", "purge"} else "")


def bulk_progress(progress: BulkProgress) -> str:
    """One line for a terminal."""
    scanned = f"{count(progress.scanned)} of {count(progress.total)} scanned"
    below = f", {count(progress.below_count)} below them" if progress.below_count else ""
    return f"{scanned}, {count(progress.matched)} match, {count(progress.done)} done{below}"


def bulk_lines(report: BulkReport, *, paused: bool) -> Iterator[str]:
    """What was done, or would be.

    Args:
        paused: whether the queue is paused; then the jobs run after a resume.
    """
    queue = visible(report.queue)
    done = ("would be " if report.dry_run else "") + _DONE[report.action]
    ids = listed(report.sample, len(report.sample), total=report.done)
    yield f"{queue}: {counted(report.done, 'job')} {done}" + (ids and f": {ids}")
    if report.below_count:
        yield f"{counted(report.below_count, 'job')} below {done}"
    if report.state is not None:
        end = "" if report.complete else "; it ended early"
        yield f"{count(report.scanned)} of {count(report.total)} {report.state} scanned{end}"
    for skipped in report.skipped[:_MAX_SHOWN]:
        yield f"{visible(skipped.id, 40)} left alone: {visible(skipped.reason)}"
    if report.skipped_count > _MAX_SHOWN:
        yield f"{counted(report.skipped_count - _MAX_SHOWN, 'more job')} left alone"
    if paused and report.done and report.action in {"retry", "promote"}:
        yield f"{queue} is paused: they run after `qctl resume`"
