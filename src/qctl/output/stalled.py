"""The risks and the result of ``jobs retry-stalled`` as text."""

from __future__ import annotations

from collections.abc import Iterator

from qctl.ops.jobs.retry_stalled import RetryPlan, RetryReport
from qctl.output.text import listed, visible
from qctl.plurals import counted

_MAX_IDS = 10


def risk_lines(plan: RetryPlan) -> Iterator[str]:
    """Why putting jobs back is a risk here: they may still be running."""
    for queue in plan.risky:
        name = visible(queue.keys.name)
        jobs = counted(len(queue.stalled), "stalled job")
        ids = listed([job.id for job in queue.stalled], _MAX_IDS)
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


def report_lines(report: RetryReport, plan: RetryPlan) -> Iterator[str]:
    """What was put back, queue by queue."""
    waiting = {queue.keys.name: queue.waiting_for for queue in plan.queues}
    quiet = 0
    for queue in report.queues:
        name = visible(queue.name)
        later = waiting.get(queue.name, ())
        if not queue.retried and not queue.skipped and not later:
            quiet += 1
            continue
        if queue.retried:
            of_failed = f", {queue.failed} of them failed ones" if queue.failed else ""
            jobs = counted(len(queue.retried), "job")
            yield f"{name}: {jobs} put back{of_failed}: {listed(queue.retried, _MAX_IDS)}"
        for skipped in queue.skipped:
            yield f"{name}: {visible(skipped.id, 40)} left alone: {skipped.reason}"
        if later:
            ids = listed([job.id for job in later], _MAX_IDS)
            yield (
                f"{name}: {counted(len(later), 'job')} of gone workers still locked "
                f"({ids}); --wait waits for that"
            )
    if quiet:
        yield f"no stalled jobs in {counted(quiet, 'queue')}"
