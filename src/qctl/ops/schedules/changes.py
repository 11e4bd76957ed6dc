"""The changes that ``qctl schedules`` makes: remove a scheduler, or add one of its jobs now."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qctl.connection.address import Client
from qctl.errors import FailedError
from qctl.ops.jobs.add import run_remarks
from qctl.ops.processes.suggest import command
from qctl.ops.queues.find import find_queues, require_bullmq
from qctl.ops.schedules.listing import ALIVE, Schedule, find_schedule
from qctl.wire import scripts
from qctl.wire.read.locate import locate
from qctl.wire.replies import read_json
from qctl.wire.schedulers import scheduling


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """The result of ``schedules remove``.

    Args:
        schedule: the scheduler as it was before the removal.
        removed: False in a dry run, or if another client removed the scheduler first.
        job_left: the id of the scheduler's pending job if the removal leaves the job in the queue,
            because the job is no longer delayed; else None.
    """

    schedule: Schedule
    removed: bool
    job_left: str | None
    dry_run: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNow:
    """The result of ``schedules run``.

    Args:
        state: the scheduler's state, which the run does not change.
        id: the new job's id; None in a dry run.
        name, data, opts: those of the new job.
        remarks: why the job may not run soon.
    """

    queue: str
    scheduler: str
    state: str
    id: str | None
    name: str
    data: Any
    opts: Mapping[str, Any]
    remarks: tuple[str, ...]
    dry_run: bool


def remove_schedule(
    client: Client, prefix: str, queue: str, scheduler_id: str, *, dry_run: bool = False
) -> Removal:
    """Remove a scheduler or a legacy repeatable. If its pending job is delayed, remove the job too.

    Raises:
        NotFoundError: no such queue or scheduler.
        RefusedError: it is a queue of Bull 3 or 4.
    """
    (snapshot,) = find_queues(client, prefix, [queue])
    require_bullmq([snapshot], hint="use Bull's own queue.removeRepeatableByKey()")
    keys = snapshot.keys
    entry, schedule = find_schedule(client, keys, scheduler_id)
    removed = False
    if not dry_run:
        call = scheduling.remove_call(keys, scheduler_id, entry.iteration_prefix)
        # The script answers 1 if the scheduler was there, else 0.
        removed = scripts.run_call(client, call) == 1
    state = schedule.pending_state
    if removed and state == "delayed":
        # A worker may have fetched the job just before the removal.
        state = locate(client, keys, schedule.pending_id).state
    return Removal(
        schedule=schedule,
        removed=removed,
        job_left=schedule.pending_id if state in ALIVE - {"delayed"} else None,
        dry_run=dry_run,
    )


def run_schedule(
    client: Client,
    prefix: str,
    queue: str,
    scheduler_id: str,
    *,
    db: int = 0,
    dry_run: bool = False,
) -> RunNow:
    """Add one job as the scheduler would make it, to run now.

    The new job does not count as an iteration, and the pending job is not changed. The new job
    takes its name and data from the scheduler's record, and its options from the pending job, as
    the next iteration does (wire format 6.4). A legacy repeatable has no such record: everything
    comes from its pending job.

    Raises:
        NotFoundError: no such queue or scheduler.
        RefusedError: it is a queue of Bull 3 or 4.
        FailedError: the pending job of a legacy repeatable is gone.
    """
    (snapshot,) = find_queues(client, prefix, [queue])
    require_bullmq([snapshot], hint="use Bull's own queue.add()")
    keys = snapshot.keys
    entry, schedule = find_schedule(client, keys, scheduler_id)
    fields = entry.pending.fields
    if entry.scheduler is None and not fields:
        raise FailedError(
            f"there is nothing to run: {scheduler_id!r} has no pending job any more",
            why="a repeatable of old versions of BullMQ keeps its data only in its pending job",
            hint=command(prefix, "schedules", "remove", queue, scheduler_id),
        )
    template = scheduling.template_of(entry.record, fields)
    job_id = None
    if not dry_run:
        call = scheduling.run_now_call(keys, template, time.time_ns() // 1_000_000)
        job_id = str(scripts.run_call(client, call)[0])
    return RunNow(
        queue=queue,
        scheduler=scheduler_id,
        state=schedule.state,
        id=job_id,
        name=template.name,
        data=read_json(template.data, {})[0],
        opts=template.opts,
        remarks=run_remarks(client, keys, snapshot, db),
        dry_run=dry_run,
    )
