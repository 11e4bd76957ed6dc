"""Reads the jobs of a queue: lists by state, and one job in full. Writes nothing.

Without a filter, only the jobs shown are read, whatever the size of the queue. With a filter by
ids, only the jobs with these ids are read. With any other filter, jobs are read in chunks until
enough of them match. In two cases, all active jobs are read: to find stalled jobs, and to find
given ids in ``active``. There are only few active jobs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from qctl.connection.address import Client
from qctl.errors import ReplyError
from qctl.ops.jobs.flows import read_children, read_parent
from qctl.ops.jobs.missing import not_found
from qctl.ops.jobs.model import Children, HeldBy, Job, JobDetail, JobList
from qctl.ops.jobs.where import Filter
from qctl.ops.times import utc_datetime
from qctl.wire.jobs import JobRecord, ReadJob, parse_job, read_records
from qctl.wire.keys import JobKey, QueueKeys
from qctl.wire.read import heartbeats
from qctl.wire.read.in_state import CHUNK, check_state, chunks_of, in_chunks, read_chunk
from qctl.wire.read.lists import Entry
from qctl.wire.read.locate import find_in_state, locate
from qctl.wire.read.snapshot import QueueSnapshot
from qctl.wire.states import FINISHED, due_ms
from qctl.wire.write.pace import Pace

DEFAULT_LIMIT = 50
# At most this many children of a job are named.
MAX_CHILDREN = 20
# How many ids of shown jobs are remembered. A remembered job that moves is not shown twice.
_MAX_REMEMBERED = 20_000


def list_jobs(
    client: Client,
    snapshot: QueueSnapshot,
    state: str,
    only: Filter | None = None,
    *,
    limit: int = DEFAULT_LIMIT,
) -> JobList:
    """Jobs of one state, found by ``stream_jobs``; the total may come from the snapshot."""
    jobs = tuple(stream_jobs(client, snapshot.keys, state, only, limit=limit))
    total = getattr(snapshot.counts, state.replace("-", "_"))
    if len(jobs) < limit and not (only and only.is_set):
        # All jobs were read. The snapshot's count may be older, and may include BullMQ's marker.
        total = len(jobs)
    return JobList(snapshot.keys.name, state, max(total, len(jobs)), jobs)


def stream_jobs(
    client: Client,
    keys: QueueKeys,
    state: str,
    only: Filter | None = None,
    *,
    limit: int = DEFAULT_LIMIT,
) -> Iterator[Job]:
    """Jobs of one state.

    Finished jobs come newest first. Waiting, delayed and prioritized jobs come in the order in
    which they will run, and other jobs oldest first. If ``only`` contains ids, waiting jobs are
    sorted by id instead.

    Args:
        state: one of ``STATES``.
        limit: how many jobs at most; memory does not grow with the limit.

    Raises:
        UsageError: there is no such state.
        ReplyError: Redis refused a command.
    """
    check_state(state)
    wanted = only if only and only.is_set else None
    size = CHUNK if wanted else max(1, min(limit, CHUNK))
    if wanted and wanted.ids and state not in {"active", "stalled"}:
        # Not for the jobs in ``active``: ``find_in_state`` does not find them.
        chunks = in_chunks(find_in_state(client, keys, state, wanted.ids), size)
    else:
        chunks = chunks_of(client, keys, state, size)
    if wanted and wanted.since_ms is not None and state in FINISHED:
        chunks = _since(wanted.since_ms, chunks)
    found = 0
    # A job that moves while the list is read may appear in two chunks.
    recent: dict[str, None] = {}
    for job in (job for entries in chunks for job in _read(client, keys, state, entries)):
        if job.id in recent or (wanted and not wanted.matches(job)):
            continue
        yield job
        found += 1
        if found >= limit:
            return
        recent[job.id] = None
        if len(recent) > _MAX_REMEMBERED:
            recent = dict.fromkeys([*recent][_MAX_REMEMBERED // 2 :])


def _since(since_ms: float, chunks: Iterable[list[Entry]]) -> Iterator[list[Entry]]:
    """The finished jobs from ``since_ms`` on; the chunks must be sorted newest first."""
    for entries in chunks:
        yield [entry for entry in entries if entry.score is None or entry.score >= since_ms]
        if entries and entries[-1].score is not None and entries[-1].score < since_ms:
            return


def _read(client: Client, keys: QueueKeys, state: str, entries: Sequence[Entry]) -> list[Job]:
    now_ms = time.time() * 1000
    pairs = read_chunk(client, keys, state, entries)
    return [listed_job(entry, job, state, now_ms) for entry, job in pairs]


def read_entries(
    client: Client,
    keys: QueueKeys,
    state: str,
    entries: Sequence[Entry],
    large: Sequence[str],
    pace: Pace,
) -> list[Job]:
    """The jobs of some entries in one round trip, without their locks.

    Args:
        large: which of ``LARGE_FIELDS`` to read.
        pace: learns how long the read took.
    """
    now_ms, began = time.time() * 1000, time.monotonic()
    records = read_records(client, keys, [entry.id for entry in entries], large)
    pace.learn(len(entries), time.monotonic() - began)
    return [
        listed_job(entry, ReadJob(record, None, None) if record else None, state, now_ms)
        for entry, record in zip(entries, records, strict=True)
    ]


def listed_job(entry: Entry, found: ReadJob | None, state: str, now_ms: float) -> Job:
    """A job as lists show it, made from its entry in the state, its hash and its lock."""
    if state == "active" and (found is None or found.lock_token is None):
        state = "stalled"
    due = due_ms(entry.score) if state == "delayed" and entry.score is not None else None
    if found is None:
        # The score of a finished job is the time when it finished.
        finished = utc_datetime(entry.score) if state in FINISHED else None
        return Job(
            id=entry.id,
            name=None,
            state=state,
            due_at=utc_datetime(due),
            finished_at=finished,
            missing=True,
        )
    return Job(
        lock_ttl_ms=found.lock_ttl_ms,
        due_at=utc_datetime(due),
        **_common(found.record, state, now_ms),
    )


def _common(record: JobRecord, state: str, now_ms: float) -> dict[str, Any]:
    """The fields that a job has both in a list and when it is shown in full."""
    return {
        "id": record.id,
        "name": record.name,
        "state": state,
        "data": record.data,
        "opts": record.opts,
        "attempts_made": record.attempts_made,
        "attempts_started": record.attempts_started,
        "attempts_max": record.attempts_max,
        "stalled_count": record.stalled_count,
        "worker": record.worker,
        "added_at": utc_datetime(record.timestamp_ms),
        "started_at": utc_datetime(record.processed_on_ms),
        "finished_at": utc_datetime(record.finished_on_ms),
        "runtime_s": _runtime_s(record, state, now_ms),
        "failed_reason": record.failed_reason,
        "progress": record.progress,
        "priority": record.priority,
        "scheduler": record.scheduler,
    }


def _runtime_s(record: JobRecord, state: str, now_ms: float) -> float | None:
    started, end = record.processed_on_ms, None
    if state in {"active", "stalled"}:
        end = now_ms
    elif state in FINISHED:
        end = record.finished_on_ms
    if started is None or end is None:
        return None
    # Workers and qctl may run on hosts whose clocks differ.
    return round(max(end - started, 0) / 1000, 3)


def show_job(client: Client, keys: QueueKeys, job_id: str) -> JobDetail:
    """One job in full.

    Raises:
        NotFoundError: there is no such job, or only its id is left in a list.
    """
    found = locate(client, keys, job_id)
    if not found.fields:
        raise not_found(keys, job_id, found.state)
    state = found.listed_state or "unknown"
    record = parse_job(job_id, found.fields)
    return JobDetail(
        **_common(record, state, time.time() * 1000),
        queue=keys.name,
        lock_ttl_ms=found.lock_ttl_ms,
        due_at=utc_datetime(found.due_ms),
        data_is_json=record.data_is_json,
        delay_ms=record.delay_ms,
        returnvalue=record.returnvalue,
        stacktrace=tuple(record.stacktrace),
        parent=read_parent(client, keys, record.parent_key, found.fields.get("parent")),
        children=_children(client, (keys, job_id), found.children),
        deduplication_id=found.fields.get("deid"),
        deferred_failure=record.deferred_failure,
        lock_token=found.lock_token,
        held_by=_held_by(client, found.lock_token),
        log_rows=found.log_rows,
    )


def _held_by(client: Client, lock_token: str | None) -> HeldBy | None:
    owner = heartbeats.owner_of(lock_token)
    try:
        found = heartbeats.read(client, [owner]).get(owner)
    except ReplyError:
        # This Redis user may be allowed to read the queue, but not qctl's own keys.
        return None
    return HeldBy(found.host, found.pid, found.target or None) if found else None


def _children(client: Client, job: JobKey, counts: tuple[int, int, int, int]) -> Children | None:
    if not any(counts):
        return None
    jobs = read_children(client, job, MAX_CHILDREN)
    return Children(*counts, jobs=jobs, more=max(sum(counts) - len(jobs), 0))
