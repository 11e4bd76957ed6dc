"""Questions and reports of the commands that change queues or jobs, such as pause and retry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from qctl.output.json import iso_time
from qctl.output.text import listed, visible
from qctl.plurals import counted
from qctl.wire.keys import QueueKeys

if TYPE_CHECKING:
    from qctl.ops.jobs.add import AddReport
    from qctl.ops.jobs.retry_stalled import RetryPlan, RetryReport
    from qctl.ops.queues.pause import PauseResult

_MAX_SHOWN = 10
# The words of ``pause_line`` for a pause (True) or a resume (False). The first text says that the
# queue was changed, the second that it was not. The other two are a noun and a verb for the jobs.
_PAUSED = {
    True: ("paused", "was paused already", "job", "still running"),
    False: ("resumed", "was not paused", "job", "moved back from the paused list"),
}
# The words to use before anything is changed; ``{}`` stands for "will" or "would".
_PLANNED = {
    True: ("{} be paused", "is paused already, and stays so", "active job", "{} continue"),
    False: ("{} be resumed", "is not paused", "job", "{} be moved back from the paused list"),
}


def pause_line(
    result: PauseResult,
    auxiliary: Literal["will", "would", ""] = "",
    *,
    prefix: str | None,
) -> str:
    """What a pause or resume did to one queue.

    Args:
        auxiliary: ``will`` before a change, ``would`` in a dry run, "" after the change.
        prefix: the prefix to leave out; None if the queues have several prefixes.
    """
    changed, unchanged, noun, verb = (_PLANNED if auxiliary else _PAUSED)[result.paused]
    number, stalled = result.moved, 0
    if result.paused:
        stalled = result.stalled if result.changed else 0
        number = result.active - stalled if result.changed else 0
    jobs = f"; {counted(number, noun)} {verb.format(auxiliary)}" if number else ""
    jobs += f"; {counted(stalled, 'stalled job')}" if stalled else ""
    done = changed.format(auxiliary) if result.changed else unchanged
    name = QueueKeys(result.prefix, result.name).label(prefix)
    return f"{visible(name)} {done}{jobs}"


def added_id(report: AddReport) -> str:
    """The job's id alone, for ``id=$(qctl jobs add …)``."""
    text = "(a new number)" if report.id is None else visible(report.id)
    return text + (" (dry run)" if report.dry_run else "")


def add_lines(report: AddReport) -> list[str]:
    """What ``jobs add`` did, and why the job may not run soon."""
    state = report.state or "in no list"
    if report.due_at is not None:
        state += f" until {iso_time(report.due_at)}"
    nothing = f"nothing {'would be' if report.dry_run else 'was'} added: job {report.id}"
    if report.outcome == "exists":
        text = f"{nothing} exists in {report.queue} ({state})"
    elif report.outcome == "deduplicated":
        text = f"{nothing} of {report.queue} has the same deduplication id ({state})"
    else:
        new = "new queue" if report.created_queue else "queue"
        # BullMQ accepts an empty name, but it probably comes from an unset variable.
        name = report.name or "a job without a name"
        done = "would be" if report.dry_run else "was"
        text = f"{name} {done} added to {new} {report.queue}: {state}"
    return [text + (" (dry run)" if report.dry_run else ""), *report.remarks]


def retry_risk_lines(plan: RetryPlan) -> Iterator[str]:
    """Why it is risky to put these jobs back: they may still be running."""
    is_single = len({queue.keys.prefix for queue in plan.queues}) == 1
    for queue in plan.risky:
        name = visible(queue.keys.name if is_single else queue.keys.full_name)
        jobs = counted(len(queue.stalled), "stalled job")
        ids = listed([job.id for job in queue.stalled], _MAX_SHOWN)
        workers = (
            "it is unknown whether a worker is connected"
            if queue.live_workers is None
            else f"{counted(queue.live_workers, 'worker')} connected"
        )
        yield f"{name}: {jobs} ({ids}), {workers}"
    yield (
        "A connected worker whose event loop is blocked cannot renew its locks: its jobs look "
        "stalled but are still running, and would run twice. BullMQ's own stalled check also puts "
        "stalled jobs back, within about a minute."
    )


def retry_lines(report: RetryReport, plan: RetryPlan, *, dry_run: bool = False) -> Iterator[str]:
    """For each queue, which stalled jobs were put back, or in a dry run, would be put back."""
    done = "would be put back" if dry_run else "put back"
    waiting = {queue.keys: queue.waiting_for for queue in plan.queues}
    is_single = len({keys.prefix for keys in waiting}) == 1
    quiet = 0
    for queue in report.queues:
        keys = QueueKeys(queue.prefix, queue.name)
        name = visible(keys.name if is_single else keys.full_name)
        later = waiting.get(keys, ())
        if queue.error is not None:
            yield f"{name}: not done in full: {visible(queue.error)}"
        elif not queue.retried and not queue.skipped and not later:
            quiet += 1
        if queue.retried:
            of_failed = f", of which {queue.failed} had failed" if queue.failed else ""
            ids = listed(queue.retried, _MAX_SHOWN)
            yield f"{name}: {counted(len(queue.retried), 'job')} {done}{of_failed}: {ids}"
        for skipped in queue.skipped:
            yield f"{name}: {visible(skipped.id, 40)} left alone: {skipped.reason}"
        if later:
            ids = listed([job.id for job in later], _MAX_SHOWN)
            yield (
                f"{name}: still locked by workers that are gone: {counted(len(later), 'job')} "
                f"({ids}); --wait waits until the locks expire"
            )
    if quiet:
        yield f"no stalled jobs in {counted(quiet, 'queue')}"
