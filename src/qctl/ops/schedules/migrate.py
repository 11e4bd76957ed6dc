"""``schedules migrate``: legacy repeatables become job schedulers.

A legacy repeatable is what ``queue.add(…, {repeat})`` of BullMQ 5 and older made. BullMQ 6 runs its
jobs without their data, or not at all.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from qctl.config.prefixes import Prefixes
from qctl.connection.address import Client
from qctl.errors import PartialError, QctlError, RefusedError, UsageError
from qctl.ops.processes.suggest import command
from qctl.ops.queues.find import queues_named_or_all, require_bullmq
from qctl.ops.schedules.listing import Schedule, describe
from qctl.ops.times import to_epoch_ms, utc_datetime
from qctl.wire.keys import QueueKeys
from qctl.wire.read.snapshot import QueueSnapshot
from qctl.wire.schedulers import migration
from qctl.wire.schedulers.cron import check_pattern, next_time_ms
from qctl.wire.schedulers.iterations import Registered, read_one, read_registered
from qctl.wire.schedulers.migration import NewScheduler

# Workers before this version do not know schedulers: they turn a scheduler's job into a repeatable.
_SINCE = (5, 16)
# If a worker has just taken a repeatable's job, wait until the worker has made the next job.
_TRIES, _PAUSE_S = 20, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class MigratedRepeatable:
    """What becomes of one repeatable.

    Args:
        key: the repeatable's key.
        id: the id of the scheduler that replaces it; None if it is skipped.
        next_at: when the scheduler's first job is due; None if it is skipped.
        outcome: ``migrated``, ``planned`` (nothing is written yet) or ``skipped`` (the repeatable
            is left as it is).
        why: why it is skipped.
        command: what to type if the repeatable is skipped; may be empty.
    """

    queue: str
    prefix: str
    key: str
    name: str
    pattern: str | None
    every_ms: int | None
    tz: str | None
    id: str | None
    next_at: datetime | None
    outcome: str
    why: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Migration:
    """The JSON of ``schedules migrate``."""

    repeatables: tuple[MigratedRepeatable, ...]
    dry_run: bool

    def count(self, outcome: str) -> int:
        return sum(each.outcome == outcome for each in self.repeatables)


class _SkippedError(Exception):
    """A repeatable cannot become a scheduler. Arguments: the reason, and a command to type."""


def plan_migration(
    client: Client, prefixes: Prefixes, names: Sequence[str], *, dry_run: bool
) -> Migration:
    """What ``migrate`` would do to the repeatables of these queues. Writes nothing.

    Raises:
        NotFoundError: a queue does not exist.
        RefusedError: a queue belongs to Bull 3 or 4, or to a BullMQ that does not know schedulers.
    """
    queues = queues_named_or_all(client, prefixes, names).readable
    require_bullmq(queues, hint="use Bull's own queue.removeRepeatableByKey()")
    for snapshot in queues:
        _require_schedulers(snapshot)
    now_ms = time.time_ns() // 1_000_000
    return Migration(
        tuple(
            planned
            for snapshot in queues
            if snapshot.schedulers
            for planned in _plan_queue(client, snapshot.keys, now_ms)
        ),
        dry_run=dry_run,
    )


def migrate(client: Client, plan: Migration) -> Migration:
    """Carry out a plan. Each repeatable is replaced in one step of Redis.

    Raises:
        PartialError: an error ended the migration after some repeatables were replaced.
    """
    done: list[MigratedRepeatable] = []
    for planned in plan.repeatables:
        try:
            done.append(_migrate_one(client, planned))
        except QctlError as error:
            if not Migration(tuple(done), dry_run=False).count("migrated"):
                raise
            raise PartialError(
                f"after {len(done):,} of {len(plan.repeatables):,} repeatables: {error.what}",
                why=error.why,
                hint="run the same command again for the others",
            ) from error
    return Migration(tuple(done), dry_run=False)


def _require_schedulers(snapshot: QueueSnapshot) -> None:
    parts = (snapshot.client_version or "").split(".")[:2]
    version = tuple(int(part) for part in parts if part.isdecimal())
    if version and version < _SINCE:
        raise RefusedError(
            f"queue {snapshot.keys.name} was last opened by BullMQ {snapshot.client_version}",
            why="workers before 5.16 do not know job schedulers: they would make repeatables again",
            hint="update BullMQ first",
        )


def _plan_queue(client: Client, keys: QueueKeys, now_ms: int) -> list[MigratedRepeatable]:
    entries = list(read_registered(client, keys))
    described = [describe(keys, entry, now_ms) for entry in entries]
    schedulers = [each for each in described if each.kind == "scheduler"]
    legacy = [
        migration.with_pending_job(client, keys, entry)
        for entry, each in zip(entries, described, strict=True)
        if each.kind == "legacy"
    ]
    rows = [(entry, describe(keys, entry, now_ms)) for entry in legacy]
    names = Counter(each.name for each in (*schedulers, *(row for _, row in rows)))
    taken = {each.id for each in described}
    planned = []
    for entry, row in rows:
        try:
            _check_no_twin(keys, row, schedulers)
            new = _new_scheduler(keys, entry, row, "", now_ms)
        except _SkippedError as error:
            planned.append(_skipped(row, *error.args))
            continue
        new_id = _new_id(row, is_alone=names[row.name] == 1, taken=taken)
        taken.add(new_id)
        planned.append(_outcome(row, "planned", new_id=new_id, next_at=utc_datetime(new.next_ms)))
    return planned


def _new_id(row: Schedule, *, is_alone: bool, taken: set[str]) -> str:
    """The id of the new scheduler: the job's name.

    If another schedule has this name or id, the beginning of a hash is added. The hash is made from
    the repeatable's key, so a repeated call chooses the same id.
    """
    name = row.name.replace(":", "-") or "repeatable"
    if is_alone and name not in taken:
        return name
    digest = hashlib.md5(row.id.encode("utf-8", "surrogateescape"), usedforsecurity=False)
    return f"{name}-{digest.hexdigest()[:8]}"


def _migrate_one(client: Client, planned: MigratedRepeatable) -> MigratedRepeatable:
    if planned.id is None:
        return planned
    keys = QueueKeys(planned.prefix, planned.queue)
    try:
        for _ in range(_TRIES):
            next_at = _try_once(client, keys, planned.key, planned.id)
            if next_at is not None:
                return replace(planned, outcome="migrated", next_at=next_at)
            time.sleep(_PAUSE_S)
    except _SkippedError as error:
        return _skip(planned, *error.args)
    again = command(keys.prefix, "schedules", "migrate", keys.name)
    return _skip(planned, "its job runs: repeat the command when that job has ended", again)


def _try_once(client: Client, keys: QueueKeys, key: str, new_id: str) -> datetime | None:
    """Replace a repeatable, and return when the new job is due.

    Return None if nothing was done, because the repeatable's job is active or the repeatable has
    changed since it was read.

    Raises:
        _SkippedError: the repeatable cannot become a scheduler.
    """
    now_ms = time.time_ns() // 1_000_000
    found = read_one(client, keys, key)
    if found is None:
        raise _SkippedError("it is gone")
    if found.scheduler is not None:
        raise _SkippedError(
            "a worker has already made it a scheduler; the scheduler's id is this key"
        )
    entry = migration.with_pending_job(client, keys, found)
    new = _new_scheduler(keys, entry, describe(keys, entry, now_ms), new_id, now_ms)
    answer = migration.migrate(client, keys, entry, new, now_ms)
    if answer == "taken":
        raise _SkippedError(f"there is a scheduler {new_id!r} already, or a job of it")
    return None if answer in {"changed", "running"} else utc_datetime(new.next_ms)


def _new_scheduler(
    keys: QueueKeys, entry: Registered, row: Schedule, new_id: str, now_ms: int
) -> NewScheduler:
    """The scheduler to make.

    Raises:
        _SkippedError: the repeatable cannot become a scheduler.
    """
    remove = command(keys.prefix, "schedules", "remove", keys.name, row.id)
    if row.state == "ended":
        raise _SkippedError("its limit or end date is reached, so it makes no more jobs", remove)
    if row.pattern is None and not row.every_ms:
        raise _SkippedError("neither its record nor its job says when it is due", remove)
    if not entry.pending.fields or entry.next_ms is None:
        raise _SkippedError(
            "its pending job, which holds the data and options, was not found; make the scheduler "
            "yourself (`schedules set`), then remove the repeatable",
            remove,
        )
    next_ms = entry.next_ms
    try:
        if row.pattern is not None:
            check_pattern(row.pattern)
            following = next_time_ms(row.pattern, row.tz, now_ms)
        else:
            every_ms = row.every_ms or 1
            following = next_ms + max(-(-(now_ms - next_ms) // every_ms), 0) * every_ms
    except UsageError as error:
        raise _SkippedError(f"{error.what}: {error.why}".removesuffix(": "), "") from None
    if entry.pending.state not in {*migration.PENDING, "active"}:
        # The last job has ended, and there is no next job. The last job still has the data.
        if following is None:
            raise _SkippedError("its pattern is never due again", remove)
        next_ms = following
    return NewScheduler(
        id=new_id,
        name=row.name,
        pattern=row.pattern,
        every_ms=row.every_ms,
        tz=row.tz,
        limit=row.limit,
        start_ms=None if row.start_at is None else to_epoch_ms(row.start_at),
        end_ms=None if row.end_at is None else to_epoch_ms(row.end_at),
        next_ms=next_ms,
    )


def _check_no_twin(keys: QueueKeys, row: Schedule, schedulers: Sequence[Schedule]) -> None:
    for each in schedulers:
        same = (each.name, each.pattern, each.every_ms, each.tz, each.data)
        if same == (row.name, row.pattern, row.every_ms, row.tz, row.data):
            raise _SkippedError(
                f"the scheduler {each.id!r} makes the same job at the same times already",
                command(keys.prefix, "schedules", "remove", keys.name, row.id),
            )


def _outcome(
    row: Schedule, outcome: str, *, new_id: str | None = None, next_at: datetime | None = None
) -> MigratedRepeatable:
    return MigratedRepeatable(
        queue=row.queue,
        prefix=row.prefix,
        key=row.id,
        name=row.name,
        pattern=row.pattern,
        every_ms=row.every_ms,
        tz=row.tz,
        id=new_id,
        next_at=next_at,
        outcome=outcome,
    )


def _skipped(row: Schedule, why: str, command: str = "") -> MigratedRepeatable:
    return _skip(_outcome(row, "skipped"), why, command)


def _skip(planned: MigratedRepeatable, why: str, command: str = "") -> MigratedRepeatable:
    return replace(planned, outcome="skipped", id=None, next_at=None, why=why, command=command)
