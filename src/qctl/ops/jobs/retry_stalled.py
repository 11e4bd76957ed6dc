"""Puts stalled jobs back to run next. A worker would need two stalled checks for this.

On request, also puts back jobs that failed for stalling too often, or one job chosen by its id.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from qctl.config.prefixes import Prefixes, only
from qctl.connection.address import Client
from qctl.errors import QctlError, RefusedError, is_outage
from qctl.grouping import grouped
from qctl.ops.jobs.model import Skipped
from qctl.ops.processes.suggest import command
from qctl.ops.queues.find import Queues, find_queues, queues_named_or_all, require_bullmq
from qctl.wire.jobs import STALLED_TOO_OFTEN
from qctl.wire.keys import QueueKeys
from qctl.wire.read.active import ActiveJob, read_active
from qctl.wire.read.clients import WorkerClient, is_absent, list_workers_under, worker_counts
from qctl.wire.read.finished import failed_with
from qctl.wire.write.transitions import retry_finished, retry_stalled

POLL_S = 0.2

# Why a job was left alone, for each answer of the Lua script.
_SKIPPED = {
    "locked": "a worker has locked it since",
    "inactive": "it has left its state since",
    "missing": "its data (the job hash) is gone, so it cannot run",
    "duplicate": "another unfinished job has its deduplication id",
}
# Reasons that mean that the job is no longer stalled or failed.
_NOT_STALLED = {_SKIPPED["locked"], _SKIPPED["inactive"]}


@dataclass(frozen=True, slots=True)
class RetriedQueue:
    """What was done to one queue (see docs/cli.md).

    Args:
        retried: ids of the stalled or failed jobs that were put back; in a dry run, of those that
            would be put back.
        failed: how many jobs in ``retried`` were failed jobs that had stalled too often.
        error: the error that occurred while the queue's jobs were put back; None if there was none.
            Some of the jobs may have been put back before the error.
    """

    name: str
    prefix: str
    stalled: int
    retried: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    failed: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RetryReport:
    """What ``jobs retry-stalled`` did."""

    queues: tuple[RetriedQueue, ...]

    @property
    def left_alone(self) -> int:
        """How many jobs were not put back, although they are still stalled or failed."""
        return sum(
            skipped.reason not in _NOT_STALLED for queue in self.queues for skipped in queue.skipped
        )


@dataclass(frozen=True, slots=True)
class QueueToRetry:
    """What would be put back in one queue.

    Args:
        stalled: active jobs without a lock.
        waiting_for: active jobs whose worker is not connected, but whose lock still exists.
        failed_ids: jobs that failed with "job stalled more than allowable limit", oldest failures
            first.
        live_workers: how many workers are connected; None if unknown.
    """

    keys: QueueKeys
    stalled: tuple[ActiveJob, ...]
    waiting_for: tuple[ActiveJob, ...]
    failed_ids: tuple[str, ...]
    live_workers: int | None

    @property
    def is_risky(self) -> bool:
        """Whether a job that looks stalled may still be running.

        A worker whose event loop is blocked cannot renew its locks.
        """
        return bool(self.stalled) and self.live_workers != 0


@dataclass(frozen=True, slots=True)
class RetryPlan:
    """What would be put back, by queue; ``found`` also lists the queues that cannot be read."""

    queues: tuple[QueueToRetry, ...]
    found: Queues

    @property
    def risky(self) -> tuple[QueueToRetry, ...]:
        return tuple(queue for queue in self.queues if queue.is_risky)


def plan_retry(
    client: Client,
    prefixes: Prefixes,
    names: Sequence[str],
    *,
    db: int = 0,
    failed: bool = False,
) -> RetryPlan:
    """Find the stalled jobs of the named queues, or of all queues. Writes nothing.

    Args:
        failed: also find jobs that have failed for stalling too often.

    Raises:
        NotFoundError: a named queue does not exist, or no queue is named and none exists.
        RefusedError: a named queue belongs to Bull 3 or 4.
    """
    found = queues_named_or_all(client, prefixes, names)
    if names:
        require_bullmq(found.readable)
    return _plan(client, prefixes, found, db=db, failed=failed)


def _plan(
    client: Client, prefixes: Prefixes, found: Queues, *, db: int, failed: bool = False
) -> RetryPlan:
    snapshots = found.bullmq
    workers = list_workers_under(client, prefixes, [s.keys for s in snapshots], db)
    active = grouped(read_active(client, [s.keys for s in snapshots]), lambda job: job.keys)
    queues = []
    for keys in (snapshot.keys for snapshot in snapshots):
        own = active.get(keys, [])
        failed_ids = [*failed_with(client, keys, STALLED_TOO_OFTEN)] if failed else []
        running = sum(not job.is_orphan for job in own)
        queue_workers = None if workers is None else workers.of(keys, running=running)
        queues.append(
            QueueToRetry(
                keys=keys,
                stalled=tuple(job for job in own if job.is_orphan),
                waiting_for=tuple(job for job in own if worker_is_absent(job, queue_workers)),
                failed_ids=tuple(reversed(failed_ids)),
                live_workers=None
                if queue_workers is None
                else worker_counts(queue_workers).total(),
            )
        )
    return RetryPlan(tuple(queues), found)


def plan_stalled(client: Client, prefix: str, queue: str, job_id: str, *, db: int) -> RetryPlan:
    """The plan of ``jobs retry-stalled`` for one job of a queue. Writes nothing.

    Raises:
        NotFoundError: the queue does not exist.
        RefusedError: the job is not stalled, or the queue belongs to Bull 3 or 4.
    """
    queues = find_queues(client, prefix, [queue])
    require_bullmq(queues)
    plan = _plan(client, only(prefix), Queues(tuple(queues)), db=db)
    found = plan.queues[0]
    own = tuple(job for job in found.stalled if job.id == job_id)
    if not own:
        raise RefusedError(
            f"job {job_id!r} of {queue} is not stalled",
            why="a worker holds its lock, or the job has left active",
            hint=command(prefix, "jobs", "show", queue, job_id),
        )
    return replace(plan, queues=(replace(found, stalled=own, waiting_for=()),))


def worker_is_absent(job: ActiveJob, workers: Sequence[WorkerClient] | None) -> bool:
    """Whether a job has a lock, but its worker is known not to be connected.

    The worker is closing or has died. A closing worker goes on renewing its locks, so only a lock
    that expires shows that the worker has died.
    """
    return not job.is_orphan and is_absent(job.worker, workers)


def await_locks(
    client: Client, plan: RetryPlan, stop: Callable[[], bool] = lambda: False
) -> Iterator[list[ActiveJob]]:
    """Wait until the locks of the plan's ``waiting_for`` jobs have expired.

    Args:
        stop: ends the wait early when it returns True.

    Yields:
        Several times a second, the jobs whose locks have not expired yet. A job whose lock is
        renewed is left out from then on, because its worker is alive.
    """
    pending = {job.key: job for queue in plan.queues for job in queue.waiting_for}
    queues = [queue.keys for queue in plan.queues]
    while pending and not stop():
        yield list(pending.values())
        time.sleep(POLL_S)
        now = {job.key: job for job in read_active(client, queues)}
        for key, before in list(pending.items()):
            job = now.get(key)
            if job is None or job.is_orphan or job.was_renewed_since(before):
                del pending[key]
            else:
                pending[key] = job


def carry_out(
    client: Client,
    plan: RetryPlan,
    *,
    max_stalled: int | None = None,
    dry_run: bool = False,
) -> RetryReport:
    """Put the jobs of a plan back, except jobs that have a lock again or are no longer failed.

    After an error in one queue, the jobs of the other queues are still put back, unless Redis is
    away.

    Args:
        max_stalled: the workers' ``maxStalledCount``. As in BullMQ, one more stall is counted for
            each stalled job, and a job with more stalls than this number fails when it runs next.
            If None, no stall is counted, and earlier stalls are forgotten.

    Raises:
        QctlError: there was an error in every queue.
    """
    done: list[RetriedQueue] = []
    errors: list[QctlError] = []
    for queue in plan.queues:
        try:
            if errors and is_outage(errors[-1]):
                # Do not wait for the same Redis once more.
                raise errors[-1]
            done.append(_retry_queue(client, queue, max_stalled, dry_run))
        except QctlError as error:
            errors.append(error)
            done.append(
                RetriedQueue(
                    name=queue.keys.name,
                    prefix=queue.keys.prefix,
                    stalled=len(queue.stalled),
                    retried=(),
                    skipped=(),
                    error=error.what,
                )
            )
    if errors and len(errors) == len(done):
        raise errors[0]
    return RetryReport(tuple(done))


def _retry_queue(
    client: Client, queue: QueueToRetry, max_stalled: int | None, dry_run: bool
) -> RetriedQueue:
    ids = [job.id for job in queue.stalled]
    if dry_run:
        answers = {job.id: "missing" if job.name is None else "retried" for job in queue.stalled}
        answers |= dict.fromkeys(queue.failed_ids, "retried")
    else:
        answers = retry_stalled(client, queue.keys, dict.fromkeys(ids, ""), max_stalled=max_stalled)
        answers |= retry_finished(
            client,
            queue.keys,
            queue.failed_ids,
            source="failed",
            only_reason=STALLED_TOO_OFTEN,
            run_next=True,
            forget="stalls",
        )
    return RetriedQueue(
        name=queue.keys.name,
        prefix=queue.keys.prefix,
        stalled=len(ids),
        retried=tuple(job_id for job_id, answer in answers.items() if answer == "retried"),
        skipped=tuple(
            Skipped(job_id, _SKIPPED[answer])
            for job_id, answer in answers.items()
            if answer != "retried"
        ),
        failed=sum(answers[job_id] == "retried" for job_id in queue.failed_ids),
    )


def retry_one_failed(client: Client, prefix: str, queue: str, job_id: str) -> None:
    """Run a failed job again, as ``jobs retry`` does.

    Raises:
        NotFoundError: the queue does not exist.
        RefusedError: the job is no longer failed, its data is gone, another unfinished job has its
            deduplication id, or the queue belongs to Bull 3 or 4.
    """
    (snapshot,) = find_queues(client, prefix, [queue])
    require_bullmq([snapshot])
    answer = retry_finished(client, snapshot.keys, [job_id], source="failed")[job_id]
    if answer != "retried":
        reasons = _SKIPPED | {"inactive": "it is no longer failed"}
        raise RefusedError(f"job {job_id!r} of {queue} was left alone", why=reasons[answer])
