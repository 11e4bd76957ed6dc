"""``schedules set``: make a job scheduler, or change some of its settings."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from qctl.connection.address import Client
from qctl.errors import RefusedError, UsageError
from qctl.ops.jobs.add import run_remarks
from qctl.ops.processes.suggest import command
from qctl.ops.queues.find import find_queues, require_bullmq
from qctl.ops.schedules.listing import Schedule, describe
from qctl.ops.times import to_epoch_ms, utc_datetime
from qctl.wire import scripts
from qctl.wire.encoding import duration_ms
from qctl.wire.options import JobOptions
from qctl.wire.replies import read_json
from qctl.wire.schedulers import scheduling
from qctl.wire.schedulers.cron import next_time_ms
from qctl.wire.schedulers.iterations import Registered, read_one
from qctl.wire.schedulers.scheduling import Schedule as Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSettings:
    """The settings to set. A setting that is None does not change.

    Args:
        data: the payload of the jobs.
        options: the options of the jobs. An option that is not set here does not change.
    """

    cron: str | None = None
    every_s: float | None = None
    tz: str | None = None
    name: str | None = None
    data: Any = None
    options: JobOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleChange:
    """What ``schedules set`` did, or would do.

    Args:
        outcome: ``made`` or ``changed``.
        name, pattern, every_ms, tz, next_at: after the change.
        before: the scheduler before the change; None if the scheduler is new.
        remarks: what the operator must pay attention to.
    """

    queue: str
    prefix: str
    id: str
    outcome: str
    name: str
    pattern: str | None
    every_ms: int | None
    tz: str | None
    next_at: datetime | None
    before: Schedule | None
    remarks: tuple[str, ...]
    dry_run: bool


def set_schedule(
    client: Client,
    prefix: str,
    queue: str,
    scheduler_id: str,
    new: NewSettings,
    *,
    db: int = 0,
    dry_run: bool = False,
) -> ScheduleChange:
    """Make a scheduler, or change the given settings of an existing scheduler.

    The pending job of an existing scheduler gets the new settings, too.

    Raises:
        UsageError: a setting is wrong, no setting is given, or a new scheduler has no times.
        NotFoundError: no such queue.
        RefusedError: the queue belongs to Bull 3 or 4, the id belongs to a legacy repeatable, the
            stored data is not JSON, or as for ``upserted_id``.
        FailedError: as for ``upserted_id``.
    """
    if new == NewSettings(options=JobOptions()):
        raise UsageError("nothing to set", hint="for example --cron '0 7 * * *' --tz Europe/Berlin")
    (snapshot,) = find_queues(client, prefix, [queue])
    require_bullmq([snapshot], hint="use Bull's own queue.add(…, {repeat})")
    keys = snapshot.keys
    now_ms = time.time_ns() // 1_000_000
    entry = read_one(client, keys, scheduler_id)
    before = None if entry is None else describe(keys, entry, now_ms)
    if before is not None and before.kind == "legacy":
        raise RefusedError(
            f"{scheduler_id!r} is a legacy repeatable and no scheduler",
            hint=command(prefix, "schedules", "migrate", queue),
        )
    rule = _rule(scheduler_id, new, before)
    name = new.name or (scheduler_id if before is None else before.name)
    data = new.data
    kept: Mapping[str, Any] = {}
    if entry is not None and before is not None:
        kept = before.opts
        data = _stored_data(entry) if data is None else data
    call = scheduling.upsert_call(
        keys, scheduler_id, rule, name, data, new.options, now_ms, kept=kept, keeps_due=True
    )
    if dry_run:
        next_ms = _foresee_ms(rule, before, now_ms)
    else:
        job_id = scheduling.upserted_id(scheduler_id, scripts.run_call(client, call))
        next_ms = int(job_id.rpartition(":")[2])
    remarks = run_remarks(client, keys, snapshot, db)
    if before is not None and before.package is not None:
        remarks += (
            f"the code of the package {before.package} makes this scheduler: the next start of its "
            "worker sets it back, unless you change the code as well",
        )
    return ScheduleChange(
        queue=queue,
        prefix=keys.prefix,
        id=scheduler_id,
        outcome="made" if before is None else "changed",
        name=name,
        pattern=rule.cron,
        every_ms=_every_ms(rule),
        tz=rule.tz,
        next_at=utc_datetime(next_ms),
        before=before,
        remarks=remarks,
        dry_run=dry_run,
    )


def _rule(scheduler_id: str, new: NewSettings, before: Schedule | None) -> Rule:
    is_new_time = new.cron is not None or new.every_s is not None
    if before is None:
        if not is_new_time:
            raise UsageError(
                f"there is no scheduler {scheduler_id!r}, and a new one needs its times",
                hint="--cron '0 7 * * *' or --every 5m",
            )
        return Rule(cron=new.cron, every=new.every_s, tz=new.tz)
    cron, every_s = new.cron, new.every_s
    if not is_new_time:
        cron = before.pattern
        every_s = None if before.every_ms is None else before.every_ms / 1000
    tz = before.tz if new.tz is None and cron is not None else new.tz
    start_ms, end_ms = (
        None if at is None else to_epoch_ms(at) for at in (before.start_at, before.end_at)
    )
    return Rule(cron=cron, every=every_s, tz=tz, limit=before.limit, start=start_ms, end=end_ms)


def _stored_data(entry: Registered) -> Any:
    data, is_json = read_json(entry.record.get("data"), None)
    if not is_json:
        raise RefusedError(
            f"the data of scheduler {entry.id!r} is not JSON, so it cannot be kept",
            hint="give the data: --data '{}'",
        )
    return data


def _every_ms(rule: Rule) -> int | None:
    return None if rule.every is None else duration_ms(rule.every, "every")


def _foresee_ms(rule: Rule, before: Schedule | None, now_ms: int) -> int | None:
    """When the next job would be due."""
    is_same = before is not None and (before.pattern, before.tz, before.every_ms) == (
        rule.cron,
        rule.tz,
        _every_ms(rule),
    )
    if before is not None and is_same and before.next_at and before.state in {"ok", "overdue"}:
        return to_epoch_ms(before.next_at)
    return now_ms if rule.cron is None else next_time_ms(rule.cron, rule.tz, now_ms)
