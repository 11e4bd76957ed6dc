"""What will happen to an active job whose worker is gone: what the stalled check does, and when.

Workers make a stalled check every ``stalledInterval`` (30 s by default), even in a paused queue.
Workers with ``skipStalledCheck``, and code that fetches jobs by hand, make no checks. One check
marks all active jobs. The next check puts marked jobs without a lock back, to run next. A job that
has stalled too often fails in the worker that takes it (wire format 5.13).

A job is *held* while its lock exists and its worker is not connected. No check moves a held job
before the lock expires: the worker may be shutting down, and may still finish the job.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from qctl.connection.address import Client
from qctl.durations import duration
from qctl.ops.jobs.model import Fate, Job
from qctl.ops.processes.suggest import command
from qctl.ops.queues.advice import NO_CHECK
from qctl.plurals import counted
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import WorkerClient, is_absent, is_listed, worker_counts
from qctl.wire.read.stalled_check import StalledClock, existing_schedulers, read_clocks

AnyJob = TypeVar("AnyJob", bound=Job)


def stalled_fate(
    job: Job,
    workers: Sequence[WorkerClient] | None,
    *,
    clock: StalledClock,
    max_stalled_count: int,
    paused: bool = False,
    has_scheduler: bool = False,
) -> Fate:
    """What will happen to a stalled job.

    Args:
        workers: the workers connected to the job's queue; None if unknown.
        max_stalled_count: the workers' ``maxStalledCount``.
        has_scheduler: whether the job's scheduler exists; if so, the job never fails for stalling.
    """
    if job.missing:
        return Fate(outcome="none", text="its record is gone from Redis: nothing is left to run")
    keys = clock.keys
    stall = job.stalled_count + 1
    too_often = stall > max_stalled_count and not has_scheduler
    verdict = f"this would be stall {stall}, and the limit is {max_stalled_count}"
    remedy = f"`{command(keys.prefix, 'jobs', 'retry-stalled', keys.name)}`"
    if workers is None:
        why = command(keys.prefix, "workers", keys.name)
        text = f"it is unknown which workers are connected (`{why}` says why)"
        if too_often:
            text += f"; a worker would fail it for good: {verdict}"
        return Fate(outcome="unknown", text=text)
    if not workers:
        text = (
            "no worker is connected, so nothing is recovered until one starts; "
            f"{remedy} puts stalled jobs back now"
        )
        if too_often:
            text = (
                f"no worker is connected; run {remedy} before one starts, because that worker "
                f"would fail it for good: {verdict}"
            )
        return Fate(outcome="none", text=text)
    count = worker_counts(workers).total()
    connected = counted(count, "worker is connected", "workers are connected")
    if not clock.ran_recently:
        text = f"{NO_CHECK} ({connected}); {remedy} puts stalled jobs back"
        if too_often:
            text += f"; a stalled check would make it fail for good: {verdict}"
        return Fate(outcome="unknown", text=text)
    interval_ms, _ = clock.interval_ms(round(time.time() * 1000))
    # One check marks the job, and the next one puts it back.
    deadline = f"within two stalled intervals (about {duration(2 * interval_ms / 1000)})"
    if too_often:
        text = f"will fail for good {deadline}: {verdict}; {remedy} runs it again instead"
        return Fate(outcome="fails", text=text)
    text = f"will be put back {deadline}, to run next: {connected}"
    if paused:
        text += "; it will run when the queue is resumed"
    return Fate(outcome="recovered", text=text)


def _is_held(job: Job, workers: Sequence[WorkerClient] | None) -> bool:
    # CLIENT LIST never shows workers with certain names, so these workers always look absent.
    is_gone = is_absent(job.worker, workers) and is_listed(job.worker or "")
    return job.state == "active" and is_gone


def _held_fate(lock_ttl_ms: int | None, keys: QueueKeys) -> Fate:
    text = "its worker is not connected"
    if lock_ttl_ms is None:
        text += ", and its lock never expires: nothing puts it back until the lock's key is deleted"
        return Fate(outcome="held", text=text)
    wait = command(keys.prefix, "jobs", "retry-stalled", keys.name, "--wait")
    text += (
        ": it is shutting down and will finish the job, or it has died and the lock expires within "
        f"{duration(lock_ttl_ms / 1000)}; until then nothing can put the job back; `{wait}` waits "
        "until then and puts it back"
    )
    return Fate(outcome="held", text=text)


def add_fates(
    client: Client,
    keys: QueueKeys,
    jobs: Sequence[AnyJob],
    workers: Sequence[WorkerClient] | None,
    *,
    max_stalled_count: int,
    paused: bool,
) -> tuple[AnyJob, ...]:
    """The same jobs, with a fate for each job that is stalled or held.

    Args:
        workers: the workers connected to the queue; None if unknown.
        max_stalled_count: the workers' ``maxStalledCount``.
    """
    stalled = [job for job in jobs if job.state == "stalled"]
    clock = read_clocks(client, [(keys, ())])[0] if stalled else None
    ids = sorted({job.scheduler for job in stalled if job.scheduler})
    schedulers = existing_schedulers(client, keys, ids)
    # All held jobs show the longest time, because only jobs with equal texts share a line.
    longest_ms = max((job.lock_ttl_ms or 0 for job in jobs if _is_held(job, workers)), default=0)

    def fate_of(job: Job) -> Fate | None:
        if job.state == "stalled" and clock is not None:
            return stalled_fate(
                job,
                workers,
                clock=clock,
                max_stalled_count=max_stalled_count,
                paused=paused,
                has_scheduler=job.scheduler in schedulers,
            )
        if _is_held(job, workers):
            return _held_fate(None if job.lock_ttl_ms is None else longest_ms, keys)
        return None

    return tuple(replace(job, fate=fate_of(job)) for job in jobs)
