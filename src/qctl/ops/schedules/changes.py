"""Removing a scheduler, and running one now."""

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
    """What ``schedules remove`` did.

    Args:
        schedule: as it was.
        removed: False in a dry run, or if it was removed by somebody else.
        job_left: the job that it had made already and that still runs; None if there is none.
    """

    schedule: Schedule
    removed: bool
    job_left: str | None
    dry_run: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNow:
    """What ``schedules run`` did.

    Args:
        state: of the scheduler, which is not changed.
        id: of the job; None in a dry run.
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
    """Remove a scheduler, or a legacy repeatable, and its pending job if that is delayed.

    Raises:
        NotFoundError: no such queue or scheduler.
        RefusedError: the queue is Bull 3/4's.
    """
    (snapshot,) = find_queues(client, prefix, [queue])
    require_bullmq([snapshot], hint="use Bull's own queue.removeRepeatableByKey()")
    keys = snapshot.keys
    entry, schedule = find_schedule(client, keys, scheduler_id)
    removed = False
    if not dry_run:
        call = scheduling.remove_call(keys, scheduler_id, entry.iteration_prefix)
        removed = bool(scripts.run_call(client, call))
    state = schedule.pending_state
    if removed and state == "delayed":
        # A worker may have taken it before the removal.
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
    """Add one job as the scheduler would make it, at once.

    It does not count as an iteration, and the pending job stays as it is. Its name and data come
    from the scheduler's record, its options from the pending job, as for the next iteration (wire
    format 6.4).

    Raises:
        NotFoundError: no such queue or scheduler.
        RefusedError: the queue is Bull 3/4's.
        FailedError: a legacy repeatable has lost its pending job, and with it the template.
    """
    (snapshot,) = find_queues(client, prefix, [queue])
    require_bullmq([snapshot], hint="use Bull's own queue.add()")
    keys = snapshot.keys
    entry, schedule = find_schedule(client, keys, scheduler_id)
    fields = entry.pending.fields
    if entry.scheduler is None and not fields:
        raise FailedError(
            f"there is nothing to run: {scheduler_id!r} has no pending job any more",
            why="a repeatable of old versions of BullMQ keeps its data only in that job",
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
