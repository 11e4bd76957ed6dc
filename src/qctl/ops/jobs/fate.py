"""What will happen to a job whose worker is gone: what BullMQ's stalled check does, and when.

Workers run that check every ``stalledInterval`` (30 s by default), even while the queue is paused,
unless they have ``skipStalledCheck``. Code that fetches jobs by hand does not run it. One check
marks the active jobs, and the next one puts marked jobs without a lock back to run next. A job that
has stalled too often then fails in the worker that takes it (wire format 5.13). No check touches a
job that has a lock.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from qctl.connection.address import Client
from qctl.durations import duration
from qctl.ops.jobs.model import Fate, Job, JobDetail, JobList
from qctl.ops.processes.suggest import command
from qctl.ops.queues.advice import NO_CHECK, locks_end
from qctl.plurals import counted
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import WorkerClient, is_absent, is_listed
from qctl.wire.read.stalled_check import StalledClock, existing_schedulers, read_clocks


def fate(
    job: Job,
    workers: Sequence[WorkerClient] | None,
    *,
    clock: StalledClock,
    max_stalled_count: int,
    paused: bool = False,
    of_scheduler: bool = False,
) -> Fate:
    """What will happen to a stalled job.

    Args:
        workers: those connected to its queue; None if unknown (no CLIENT LIST).
        clock: when its queue is checked for stalled jobs.
        max_stalled_count: the workers' ``maxStalledCount``.
        of_scheduler: it is a job of a scheduler that exists; such a job never fails for stalling.
    """
    if job.missing:
        return Fate(outcome="none", text="its record is gone from Redis: nothing is left to run")
    keys = clock.keys
    stall = job.stalled_count + 1
    too_often = stall > max_stalled_count and not of_scheduler
    verdict = f"this would be stall {stall} of {max_stalled_count} allowed"
    remedy = f"`{command(keys.prefix, 'jobs', 'retry-stalled', keys.name)}`"
    if workers is None:
        text = "which workers are connected is unknown (Redis denies CLIENT LIST)"
        if too_often:
            text += f"; a worker would fail it for good: {verdict}"
        return Fate(outcome="unknown", text=text)
    if not workers:
        text = f"no worker is connected: nothing will recover it; {remedy}"
        if too_often:
            text += f" before one starts, which would fail it for good: {verdict}"
        return Fate(outcome="none", text=text)
    who = counted(len(workers), "worker is connected", "workers are connected")
    if not clock.ran_recently:
        text = f"{NO_CHECK} ({who}); {remedy} puts it back"
        if too_often:
            text += f", a check would have it fail for good: {verdict}"
        return Fate(outcome="unknown", text=text)
    soon = _soon(clock)
    if too_often:
        text = f"would fail for good {soon}: {verdict}; {remedy} runs it again instead"
        return Fate(outcome="fails", text=text)
    text = f"put back to run next {soon}: {who}"
    if paused:
        text += "; it will run when the queue is resumed"
    return Fate(outcome="recovered", text=text)


def _soon(clock: StalledClock) -> str:
    """When the job is put back: one check marks it, and the next one puts it back."""
    interval_ms, _ = clock.interval_ms(round(time.time() * 1000))
    longest = duration(2 * interval_ms / 1000)
    return f"within one or two stalled intervals (at most about {longest})"


def fate_of_held(job: Job, workers: Sequence[WorkerClient] | None, keys: QueueKeys) -> Fate | None:
    """What will happen to a job with a lock whose worker is not connected; None for all others."""
    if not _is_held(job, workers):
        return None
    return _held(job.lock_ttl_ms, keys)


def _is_held(job: Job, workers: Sequence[WorkerClient] | None) -> bool:
    is_gone = is_absent(job.worker, workers) and is_listed(job.worker or "")
    return job.state == "active" and is_gone


def _held(lock_ttl_ms: int | None, keys: QueueKeys) -> Fate:
    if lock_ttl_ms is None:
        text = f"its worker is not connected; {locks_end([None])}"
        return Fate(outcome="held", text=text)
    wait = command(keys.prefix, "jobs", "retry-stalled", keys.name, "--wait")
    return Fate(
        outcome="held",
        text="its worker is not connected: it is closing and ends the job, or has died; then the "
        f"lock runs out within {duration(lock_ttl_ms / 1000)}, and nothing puts the job back "
        f"before; `{wait}` waits for that and does",
    )


def with_fates(
    client: Client,
    keys: QueueKeys,
    jobs: JobList,
    workers: Sequence[WorkerClient] | None,
    *,
    max_stalled_count: int,
    paused: bool,
) -> JobList:
    """The same list, with the fate of jobs that have stalled or whose worker is gone.

    Args:
        workers: of any queues of this prefix, as ``list_workers`` returns them.
    """
    stalled = [job for job in jobs.jobs if job.state == "stalled"]
    live = _of_scheduler(client, keys, stalled)
    (clock,) = read_clocks(client, [(keys, ())])
    mine = _serving(workers, keys)
    # One time for all of them, so that one line can report them together.
    longest_ms = max((job.lock_ttl_ms or 0 for job in jobs.jobs if _is_held(job, mine)), default=0)

    def fate_of(job: Job) -> Fate | None:
        if job.state != "stalled":
            left_ms = None if job.lock_ttl_ms is None else longest_ms
            return _held(left_ms, keys) if _is_held(job, mine) else None
        return fate(
            job,
            mine,
            clock=clock,
            max_stalled_count=max_stalled_count,
            paused=paused,
            of_scheduler=job.scheduler in live,
        )

    return replace(jobs, jobs=tuple(replace(job, fate=fate_of(job)) for job in jobs.jobs))


def detail_with_fate(
    client: Client,
    keys: QueueKeys,
    job: JobDetail,
    workers: Sequence[WorkerClient] | None,
    *,
    max_stalled_count: int,
    paused: bool,
) -> JobDetail:
    """One job in full, with its fate if it has stalled or its worker is gone."""
    if job.state != "stalled":
        return replace(job, fate=fate_of_held(job, _serving(workers, keys), keys))
    (clock,) = read_clocks(client, [(keys, ())])
    live = _of_scheduler(client, keys, [job])
    return replace(
        job,
        fate=fate(
            job,
            _serving(workers, keys),
            clock=clock,
            max_stalled_count=max_stalled_count,
            paused=paused,
            of_scheduler=job.scheduler in live,
        ),
    )


def _of_scheduler(client: Client, keys: QueueKeys, jobs: Sequence[Job]) -> frozenset[str]:
    ids = sorted({job.scheduler for job in jobs if job.scheduler})
    return existing_schedulers(client, keys, ids)


def _serving(
    workers: Sequence[WorkerClient] | None, keys: QueueKeys
) -> Sequence[WorkerClient] | None:
    if workers is None:
        return None
    return [worker for worker in workers if worker.queue == keys.name]
