"""The job hash (wire format 3) as a record, whatever version of BullMQ wrote it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qctl.connection.address import Arg, Client
from qctl.wire.keys import JobKey, QueueKeys
from qctl.wire.replies import (
    MAX_INTEGER,
    checked,
    read_groups,
    read_json,
    read_object,
    read_values,
    to_dict,
    to_int,
    value_or,
)

# The failure reason that BullMQ gives a job that has stalled too often (wire format 5.13).
STALLED_TOO_OFTEN = "job stalled more than allowable limit"


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job by its hash. Times are epoch milliseconds; None if missing or malformed.

    Args:
        data: the parsed payload, or the raw text if it is not JSON (``data_is_json`` is False).
        delay_ms: the present delay (0 after promotion), not the one in ``opts``.
        attempts_made: how many attempts have ended.
        attempts_started: how many attempts have begun.
        attempts_max: how many attempts the job may make, at least 1.
        stalled_count: how often the job has stalled.
        worker: the name of the worker that took the job last; None if that worker has no name.
        deferred_failure: why the next worker must fail the job without running it, or None.
        scheduler: the id of the scheduler that made the job.
    """

    id: str
    name: str
    data: Any
    data_is_json: bool
    opts: Mapping[str, Any]
    timestamp_ms: int | None
    delay_ms: int
    priority: int
    processed_on_ms: int | None
    finished_on_ms: int | None
    attempts_made: int
    attempts_started: int
    attempts_max: int
    stalled_count: int
    worker: str | None
    progress: Any
    returnvalue: Any
    failed_reason: str | None
    stacktrace: Sequence[str]
    deferred_failure: str | None
    scheduler: str | None
    parent_key: str | None


def parse_job(job_id: str, fields: Mapping[str, str]) -> JobRecord:
    """The record in a job hash; missing and malformed fields get default values."""
    data, data_is_json = read_json(fields.get("data"), {})
    opts = read_object(fields.get("opts"))
    stacktrace, _ = read_json(fields.get("stacktrace"), [])
    traces = stacktrace if isinstance(stacktrace, list) else []
    # Bull 3/4 and early BullMQ 5 wrote attemptsMade. If a job has both fields, BullMQ uses
    # attemptsMade and ignores atm (wire format 2.5).
    made = to_int(fields.get("attemptsMade")) or to_int(fields.get("atm")) or 0
    return JobRecord(
        id=job_id,
        name=fields.get("name", ""),
        data=data,
        data_is_json=data_is_json,
        opts=opts,
        timestamp_ms=to_int(fields.get("timestamp")),
        delay_ms=to_int(fields.get("delay")) or 0,
        priority=to_int(fields.get("priority")) or 0,
        processed_on_ms=to_int(fields.get("processedOn")),
        finished_on_ms=to_int(fields.get("finishedOn")),
        attempts_made=made,
        attempts_started=to_int(fields.get("ats")) or 0,
        attempts_max=max(attempts_allowed(opts.get("attempts")), 1),
        stalled_count=to_int(fields.get("stc")) or to_int(fields.get("stalledCounter")) or 0,
        worker=fields.get("pb"),
        progress=read_json(fields.get("progress"), None)[0],
        returnvalue=read_json(fields.get("returnvalue"), None)[0],
        failed_reason=fields.get("failedReason"),
        stacktrace=[item if isinstance(item, str) else json.dumps(item) for item in traces],
        deferred_failure=fields.get("defa"),
        scheduler=fields.get("rjk"),
        parent_key=fields.get("parentKey"),
    )


def lock_reads(keys: QueueKeys, job_id: str) -> list[tuple[Arg, ...]]:
    """The two commands that read a job's lock; see ``parse_lock``."""
    lock = keys.lock(job_id)
    return [("GET", lock), ("PTTL", lock)]


def parse_lock(token: Any, ttl: Any) -> tuple[str | None, int | None]:
    """The token and the TTL (ms) in the replies to ``lock_reads``; both None if there is no lock.

    The TTL is also None for a lock that never expires, or that expired between the two commands.
    A lock key of a wrong type counts as a lock with an empty token, not as a missing lock.
    """
    found, ttl_ms = value_or(token, ""), checked(ttl)
    return found, ttl_ms if found is not None and ttl_ms >= 0 else None


@dataclass(frozen=True, slots=True)
class ReadJob:
    """A job and its lock (see ``parse_lock``); the lock fields are None if no lock was read."""

    record: JobRecord
    lock_token: str | None
    lock_ttl_ms: int | None


def read_jobs(
    client: Client, keys: QueueKeys, ids: Sequence[str], *, locks: bool = True
) -> list[ReadJob | None]:
    """Read jobs in one round trip; None for an id whose hash does not exist.

    Args:
        locks: whether to read the jobs' locks; this makes the read take about twice as long.
    """
    reads = [
        [("HGETALL", keys(job_id)), *(lock_reads(keys, job_id) if locks else ())] for job_id in ids
    ]
    jobs: list[ReadJob | None] = []
    for job_id, (reply, *lock_replies) in zip(ids, read_groups(client, reads), strict=True):
        flat = value_or(reply, [])
        lock = parse_lock(*lock_replies) if locks else (None, None)
        jobs.append(ReadJob(parse_job(job_id, to_dict(flat)), *lock) if flat else None)
    return jobs


def read_fields(client: Client, jobs: Sequence[JobKey], *fields: str) -> list[Sequence[str | None]]:
    """The values of ``fields`` in each job, in one round trip; None for a field that is missing."""
    commands = [("HMGET", keys(job_id), *fields) for keys, job_id in jobs]
    return read_values(client, commands, (None,) * len(fields))


# Fields of the hash that may be large.
LARGE_FIELDS = frozenset({"data", "opts", "progress", "returnvalue", "stacktrace"})
_SMALL_FIELDS = (
    *("name", "timestamp", "delay", "priority", "processedOn", "finishedOn", "attemptsMade"),
    *("atm", "ats", "stc", "stalledCounter", "pb", "failedReason", "defa", "rjk", "parentKey"),
)


def read_records(
    client: Client, keys: QueueKeys, ids: Sequence[str], large: Sequence[str] = ()
) -> list[JobRecord | None]:
    """Read jobs without locks, in one round trip; None for an id whose hash does not exist.

    Args:
        large: which of ``LARGE_FIELDS`` to read; those that are not read get default values.
    """
    fields = (*_SMALL_FIELDS, *large)
    records: list[JobRecord | None] = []
    rows = read_fields(client, [(keys, job_id) for job_id in ids], *fields)
    for job_id, row in zip(ids, rows, strict=True):
        values = zip(fields, row, strict=True)
        found = {field: value for field, value in values if value is not None}
        records.append(parse_job(job_id, found) if found else None)
    return records


def attempts_allowed(value: Any) -> int:
    """How many attempts BullMQ allows for this ``opts.attempts``, for example 3 for 2.5.

    0 if the value is missing or not a number; never more than ``2**53``.
    """
    try:
        return math.ceil(min(max(float(value), 0), MAX_INTEGER))
    except OverflowError:
        # An integer of more than 308 digits, which JavaScript reads as Infinity.
        return MAX_INTEGER if value > 0 else 0
    except (TypeError, ValueError):
        return 0
