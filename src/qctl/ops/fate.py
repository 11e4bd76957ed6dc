"""What becomes of a stalled job: what BullMQ's stalled check will do with it, and when.

Every worker runs that check every ``stalledInterval`` (30 s by default), also while the queue is
paused. The first check that sees a job marks it, the next one puts a marked job without a lock back
to run next; one that stalled too often is then failed by the worker that takes it (wire format
5.13).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qctl.connect import Client
from qctl.ops.commands import command
from qctl.ops.jobs import Fate, Job, JobDetail, JobList
from qctl.wire import lists
from qctl.wire.clients import WorkerClient
from qctl.wire.keys import QueueKeys

# BullMQ's default; the real value is a worker option that stands nowhere in Redis.
STALLED_INTERVAL_S = 30
_SOON = f"within one or two stalled intervals (at most about {2 * STALLED_INTERVAL_S} s by default)"


def fate(
    job: Job,
    workers: Sequence[WorkerClient] | None,
    *,
    keys: QueueKeys,
    max_stalled_count: int,
    paused: bool = False,
    of_scheduler: bool = False,
) -> Fate:
    """What will happen to a stalled job.

    Args:
        workers: connected to its queue; None when Redis does not tell (no CLIENT LIST).
        max_stalled_count: the workers' ``maxStalledCount``.
        of_scheduler: it is a job of a scheduler that exists; those never stall too often.
    """
    if job.missing:
        return Fate(outcome="none", text="its record is gone from Redis: nothing is left to run")
    stall = job.stalled_count + 1
    too_often = stall > max_stalled_count and not of_scheduler
    verdict = f"this would be stall {stall} of {max_stalled_count} allowed"
    remedy = f"`{command(keys.prefix, 'jobs', 'retry-stalled', keys.name)}`"
    if workers is None:
        text = "Redis does not tell which workers are connected (by CLIENT LIST)"
        if too_often:
            text += f"; a worker would fail it for good: {verdict}"
        return Fate(outcome="unknown", text=text)
    if not workers:
        text = f"no worker is connected: nothing will recover it; {remedy}"
        if too_often:
            text += f" before one starts, which would fail it for good: {verdict}"
        return Fate(outcome="none", text=text)
    if too_often:
        text = f"would fail for good {_SOON}: {verdict}; {remedy} runs it again instead"
        return Fate(outcome="fails", text=text)
    count = len(workers)
    who = "1 worker is connected" if count == 1 else f"{count} workers are connected"
    text = f"put back to run next {_SOON}: {who}"
    if paused:
        text += "; it will run when the queue is resumed"
    return Fate(outcome="recovered", text=text)


def with_fates(
    client: Client,
    keys: QueueKeys,
    jobs: JobList,
    workers: Sequence[WorkerClient] | None,
    *,
    max_stalled_count: int,
    paused: bool,
) -> JobList:
    """The same list, its stalled jobs with their fate.

    Args:
        workers: of any queue of this prefix, as ``list_workers`` gives them.
    """
    stalled = [job for job in jobs.jobs if job.state == "stalled"]
    live = _of_scheduler(client, keys, stalled)
    mine = _serving(workers, keys)
    return replace(
        jobs,
        jobs=tuple(
            replace(
                job,
                fate=fate(
                    job,
                    mine,
                    keys=keys,
                    max_stalled_count=max_stalled_count,
                    paused=paused,
                    of_scheduler=job.scheduler in live,
                ),
            )
            if job.state == "stalled"
            else job
            for job in jobs.jobs
        ),
    )


def detail_with_fate(
    client: Client,
    keys: QueueKeys,
    job: JobDetail,
    workers: Sequence[WorkerClient] | None,
    *,
    max_stalled_count: int,
    paused: bool,
) -> JobDetail:
    """One job in full, with its fate if it is stalled."""
    if job.state != "stalled":
        return job
    live = _of_scheduler(client, keys, [job])
    return replace(
        job,
        fate=fate(
            job,
            _serving(workers, keys),
            keys=keys,
            max_stalled_count=max_stalled_count,
            paused=paused,
            of_scheduler=job.scheduler in live,
        ),
    )


def _of_scheduler(client: Client, keys: QueueKeys, jobs: Sequence[Job]) -> frozenset[str]:
    ids = sorted({job.scheduler for job in jobs if job.scheduler})
    return lists.known_schedulers(client, keys, ids)


def _serving(
    workers: Sequence[WorkerClient] | None, keys: QueueKeys
) -> Sequence[WorkerClient] | None:
    if workers is None:
        return None
    return [worker for worker in workers if worker.queue == keys.name]
