"""Put back one job, stalled or failed, that was chosen in the live view."""

from __future__ import annotations

from dataclasses import replace

from qctl.connection.address import Client
from qctl.errors import RefusedError
from qctl.ops.jobs.retry_stalled import SKIPPED, RetryPlan, plan_retry
from qctl.ops.processes.suggest import command
from qctl.ops.queues.find import find_queues, require_bullmq
from qctl.wire.write.transitions import retry_finished

_REFUSED = SKIPPED | {"inactive": "it is no longer failed"}


def plan_stalled(client: Client, prefix: str, queue: str, job_id: str, *, db: int) -> RetryPlan:
    """The plan of ``jobs retry-stalled`` for this queue, narrowed to one job. Writes nothing.

    Raises:
        NotFoundError: the queue does not exist.
        RefusedError: the job is not stalled, or the queue is Bull 3/4's.
    """
    plan = plan_retry(client, prefix, [queue], db=db)
    found = plan.queues[0]
    own = tuple(job for job in found.stalled if job.id == job_id)
    if not own:
        raise RefusedError(
            f"job {job_id!r} of {queue} is not stalled",
            why="a worker holds its lock, or it has left active",
            hint=command(prefix, "jobs", "show", queue, job_id),
        )
    return replace(plan, queues=(replace(found, stalled=own, waiting_for=()),))


def retry_one_failed(client: Client, prefix: str, queue: str, job_id: str) -> None:
    """Run a failed job again, as ``jobs retry`` does.

    Raises:
        NotFoundError: the queue does not exist.
        RefusedError: the job is no longer failed, or its data is gone, or the queue is Bull 3/4's.
    """
    (snapshot,) = find_queues(client, prefix, [queue])
    require_bullmq([snapshot])
    answer = retry_finished(client, snapshot.keys, [job_id], source="failed")[job_id]
    if answer != "retried":
        raise RefusedError(f"job {job_id!r} of {queue} was left alone", why=_REFUSED[answer])
