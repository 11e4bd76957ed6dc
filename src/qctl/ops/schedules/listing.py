"""Job schedulers, and whether they still make jobs (wire format 6).

The worker that fetches a scheduler's pending job makes the next job. If the pending job is gone,
the scheduler makes no more jobs, whatever its record says.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from qctl.config.prefixes import Prefixes
from qctl.connection.address import Client
from qctl.errors import NotFoundError, UsageError
from qctl.ops.processes.suggest import command
from qctl.ops.queues.find import Queues, find_queues, queues_named_or_all
from qctl.ops.times import from_epoch_ms, to_epoch_ms, utc_datetime
from qctl.similar import similar_names
from qctl.wire.jobs import parse_job
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import to_int
from qctl.wire.schedulers import scheduling
from qctl.wire.schedulers.iterations import Registered, read_one, read_registered
from qctl.wire.schedulers.scheduling import due_times_ms, schedule_has_ended, skipped_count

MAX_SKIPPED = scheduling.MAX_SKIPPED
# How many due times `schedules show` lists, including the due time of the pending job.
_MAX_UPCOMING = 5
# An idle worker may take this long to fetch a job that is due (wire format 7.3).
PATIENCE_MS = 5000
_EPOCH = from_epoch_ms(0)
# The states of a pending job that has not ended.
ALIVE = frozenset({"delayed", "waiting", "prioritized", "active", "waiting-children"})
# An unknown id is compared with at most this many existing ids.
_MAX_COMPARED = 1000
# The error for an unknown id lists at most this many existing ids.
_MAX_NAMED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A scheduler, or a legacy repeatable job.

    Args:
        kind: ``scheduler``, or ``legacy`` for a repeatable made by BullMQ 5's ``add(…, {repeat})``.
        name: the name of its jobs.
        pattern, every_ms: at most one is set; both are None if the record has neither.
        tz: the pattern's time zone; None means the time zone of the worker that makes the next job.
        state: ``ok``: a job is pending and not late;
            ``running``: the pending job is active, and its worker makes the next job;
            ``overdue``: the pending job was due more than 5 s ago, and no worker has fetched it;
            ``ended``: no job is pending, because the limit or the end date is reached;
            ``dead``: no job is pending although neither the limit nor the end date is reached, so
            no more jobs are made;
            ``unknown``: the pending job was not found, but may exist.
        next_at: when the pending job is or was due; None if its score is not a time.
        pending_id, pending_state: the pending job's id and state; the state is None if the job is
            in no state.
        iterations: jobs made so far; None for a legacy repeatable.
        limit: the maximum number of jobs; None without a limit.
        last_run_at: when the scheduler's latest job started; None if no job has started since the
            scheduler was made or last changed.
        skipped: how many due times have passed since the pending job was due. No job runs for these
            times. At most 1,000 are counted; None if unknown.
        data, opts: the template of its jobs; for a legacy repeatable, the data and options of its
            pending job.
        package: the Python package whose worker makes this scheduler from code at each start; None
            if the scheduler does not come from the code of a worker of qctl.
    """

    queue: str
    prefix: str
    id: str
    kind: str
    name: str
    pattern: str | None
    every_ms: int | None
    tz: str | None
    offset_ms: int
    state: str
    next_at: datetime | None
    pending_id: str
    pending_state: str | None
    iterations: int | None
    limit: int | None
    last_run_at: datetime | None
    skipped: int | None
    start_at: datetime | None
    end_at: datetime | None
    data: Any
    opts: Mapping[str, Any]
    package: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleDetail(Schedule):
    """A scheduler in full.

    Args:
        upcoming_at: the next due times of its jobs, assuming that no worker is late.
    """

    upcoming_at: tuple[datetime, ...]


@dataclass(frozen=True, slots=True)
class ScheduleList:
    """The JSON of ``schedules list``."""

    schedules: tuple[Schedule, ...]


def list_schedules(
    client: Client, prefixes: Prefixes, names: Sequence[str] = ()
) -> tuple[ScheduleList, Queues]:
    """The schedulers of the named queues (or of all queues), ordered by due time.

    Also returns the queues.

    Raises:
        NotFoundError: a queue does not exist.
    """
    queues = queues_named_or_all(client, prefixes, names)
    now_ms = time.time_ns() // 1_000_000
    found = [
        describe(snapshot.keys, entry, now_ms)
        for snapshot in queues.readable
        if snapshot.schedulers
        for entry in read_registered(client, snapshot.keys)
    ]
    found.sort(key=lambda each: (each.next_at is None, each.next_at or _EPOCH, each.queue, each.id))
    return ScheduleList(tuple(found)), queues


def show_schedule(client: Client, prefix: str, queue: str, scheduler_id: str) -> ScheduleDetail:
    """One scheduler with its next due times.

    Raises:
        NotFoundError: no such queue or scheduler.
    """
    (snapshot,) = find_queues(client, prefix, [queue])
    _, schedule = find_schedule(client, snapshot.keys, scheduler_id)
    fields = {name: getattr(schedule, name) for name in Schedule.__slots__}
    upcoming = () if schedule.state in {"dead", "ended"} else tuple(_upcoming(schedule))
    return ScheduleDetail(**fields, upcoming_at=upcoming)


def find_schedule(
    client: Client, keys: QueueKeys, scheduler_id: str
) -> tuple[Registered, Schedule]:
    """One scheduler, as stored in Redis and as shown by qctl.

    Raises:
        NotFoundError: the queue has no scheduler with this id.
    """
    entry = read_one(client, keys, scheduler_id)
    if entry is None:
        raise _no_such_scheduler(client, keys, scheduler_id)
    return entry, describe(keys, entry, time.time_ns() // 1_000_000)


def _no_such_scheduler(client: Client, keys: QueueKeys, scheduler_id: str) -> NotFoundError:
    known = [str(name) for name in client.call("ZRANGE", keys("repeat"), 0, _MAX_COMPARED - 1)]
    near = similar_names(scheduler_id, known, max_names=3, cutoff=0.5) or known[:_MAX_NAMED]
    why = f"the queue has: {', '.join(map(repr, near))}" if near else "the queue has none"
    return NotFoundError(
        f"queue {keys.name!r} has no scheduler {scheduler_id!r}",
        why=why,
        hint=command(keys.prefix, "schedules", "list", keys.name),
    )


def describe(keys: QueueKeys, entry: Registered, now_ms: int) -> Schedule:
    """An entry of the sorted set ``repeat`` as operators see it."""
    record, pending, scheduler = entry.record, entry.pending, entry.scheduler
    job = parse_job(pending.id, pending.fields)
    repeat = job.opts.get("repeat")
    repeat = repeat if isinstance(repeat, dict) else {}
    legacy = _parts_of_key(entry.id) if scheduler is None and not record else {}

    def stored(field: str) -> Any:
        # Without a record, the fields are in the pending job or, in very old versions, in the key.
        return record.get(field) or repeat.get(field) or legacy.get(field) or None

    every_ms = to_int(stored("every"))
    # The pattern and the time zone may come from JSON, where they can be of any type.
    pattern, tz = (None if stored(f) is None else str(stored(f)) for f in ("pattern", "tz"))
    limit, end_ms = to_int(stored("limit")), to_int(stored("endDate"))
    count = to_int(repeat.get("count"))
    # A legacy repeatable has no iterations, only the count in its pending job.
    made = max(count or 0, scheduler.iterations if scheduler else 0)
    has_ended = schedule_has_ended(
        pattern,
        tz,
        every_ms,
        limit=limit,
        jobs_made=made,
        end_ms=end_ms,
        last_due_ms=entry.next_ms,
        now_ms=now_ms,
    )
    # Workers drop a job id without a hash, so such a job is not pending.
    pending_state = pending.state if pending.fields or pending.state == "unknown" else None
    is_late = entry.next_ms is not None and now_ms - entry.next_ms > PATIENCE_MS
    state = _state(pending_state, is_late, has_ended)
    skipped = 0 if state in {"ok", "running", "ended"} else None
    if state == "overdue" and entry.next_ms is not None:
        skipped = skipped_count(pattern, tz, every_ms, since_ms=entry.next_ms, now_ms=now_ms)
    return Schedule(
        queue=keys.name,
        prefix=keys.prefix,
        id=entry.id,
        kind="legacy" if scheduler is None else "scheduler",
        name=record.get("name") or job.name or legacy.get("name", entry.id),
        pattern=None if every_ms is not None else pattern,
        every_ms=every_ms,
        tz=tz,
        offset_ms=to_int(record.get("offset")) or 0,
        state=state,
        next_at=utc_datetime(entry.next_ms),
        pending_id=pending.id,
        pending_state=pending.state,
        iterations=None if scheduler is None else scheduler.iterations,
        limit=limit,
        last_run_at=_last_run_at(pending.state, job.processed_on_ms, job.timestamp_ms, count),
        skipped=skipped,
        start_at=utc_datetime(to_int(stored("startDate"))),
        end_at=utc_datetime(end_ms),
        data=job.data if scheduler is None else scheduler.data,
        opts=scheduling.lasting_options(job.opts) if scheduler is None else scheduler.opts,
        package=None if scheduler is None else scheduler.package,
    )


def _state(pending: str | None, is_late: bool, has_ended: bool) -> str:
    if pending == "unknown":
        return "unknown"
    if pending == "active":
        return "running"
    if pending in ALIVE:
        return "overdue" if is_late else "ok"
    return "ended" if has_ended else "dead"


def _last_run_at(
    state: str | None, processed_on_ms: int | None, made_ms: int | None, count: int | None
) -> datetime | None:
    if processed_on_ms is not None and state not in {"delayed", "waiting", "prioritized"}:
        return utc_datetime(processed_on_ms)
    # The pending job was made when the job before it was fetched.
    return utc_datetime(made_ms) if count is not None and count > 1 else None


def _upcoming(schedule: Schedule) -> Iterator[datetime]:
    if schedule.next_at is None:
        return
    yield schedule.next_at
    first_ms = to_epoch_ms(schedule.next_at)
    left = _MAX_UPCOMING - 1
    if schedule.limit is not None and schedule.iterations is not None:
        left = min(left, max(schedule.limit - schedule.iterations, 0))
    times = due_times_ms(schedule.pattern, schedule.tz, schedule.every_ms, first_ms)
    # qctl may not understand the pattern or its time zone.
    with suppress(UsageError):
        for due_ms in islice(times, left):
            due = utc_datetime(due_ms)
            if due is None or (schedule.end_at is not None and due > schedule.end_at):
                return
            yield due


def _parts_of_key(key: str) -> dict[str, str]:
    """The fields in a key of very old versions, ``name:id:endDate:tz:suffix``; {} for others."""
    if not scheduling.is_legacy_key(key):
        return {}
    name, _, end, tz, suffix = key.split(":", 4)
    when = "every" if suffix.isdecimal() else "pattern"
    return {"name": name, "endDate": end, "tz": tz, when: suffix}
