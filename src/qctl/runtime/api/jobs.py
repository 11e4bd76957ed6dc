"""Reads and changes single jobs, for ``Queue``, ``AsyncQueue`` and their handles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from qctl.connection.address import Client
from qctl.errors import NotFoundError, RefusedError, ReplyError, TimedOutError, UsageError
from qctl.wire.jobs import JobRecord, parse_job
from qctl.wire.keys import QueueKeys
from qctl.wire.read.in_state import CHUNK, check_state, chunks_of, read_chunk
from qctl.wire.read.locate import locate
from qctl.wire.read.snapshot import Counts, read_snapshots
from qctl.wire.states import due_ms
from qctl.wire.write.cancelling import CANCELLED, REASONS, cancel_jobs
from qctl.wire.write.transitions import promote, remove_jobs

DEFAULT_LIMIT = 100
# The script answers with a word for each job. For each word, the reason why the job is not deleted.
_KEPT = {
    "locked": "a worker runs it",
    "scheduled": "it is the next job of a scheduler; remove_scheduler() removes both",
    "parent": "it waits for its children",
    "inactive": "it has just moved to another state; try again",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """A job as it was when it was read. Times are epoch milliseconds; None if not set.

    Args:
        state: ``waiting``, ``active``, ``stalled`` (active, but its worker is gone), ``delayed``,
            ``prioritized``, ``waiting-children``, ``completed`` or ``failed``; ``unknown`` if the
            job is in no state.
        data: the payload; the raw text if it is not JSON.
        opts: the options that the job was added with, in BullMQ's short form.
        attempts_made: how many attempts have ended.
        attempts_started: how many attempts have begun.
        worker: the name of the worker that took the job last.
        scheduler: the id of the scheduler that made the job.
        parent_key: the key of the job's parent in a flow.
        due_at_ms: when a delayed job is due.
        progress: None if nothing was reported.
        returnvalue: of a completed job.
        failed_reason: of the last attempt that failed.
    """

    id: str
    name: str
    state: str
    data: Any
    opts: Mapping[str, Any]
    priority: int
    attempts_made: int
    attempts_started: int
    attempts_max: int
    stalled_count: int
    worker: str | None
    scheduler: str | None
    parent_key: str | None
    added_at_ms: int | None
    due_at_ms: int | None
    started_at_ms: int | None
    finished_at_ms: int | None
    progress: Any
    returnvalue: Any
    failed_reason: str | None
    stacktrace: Sequence[str]


def read_job(client: Client, keys: QueueKeys, job_id: str) -> JobInfo | None:
    """One job in full; None if it does not exist."""
    found = locate(client, keys, job_id)
    if not found.fields:
        return None
    return _info(parse_job(job_id, found.fields), found.listed_state or "unknown", found.due_ms)


def list_jobs(client: Client, keys: QueueKeys, state: str, limit: int) -> list[JobInfo]:
    """At most ``limit`` jobs of one state, in the order of ``lists.windows``.

    Raises:
        UsageError: there is no such state, or the limit is below 1.
    """
    check_state(state)
    if limit < 1:
        raise UsageError(f"limit is {limit}", hint="at least 1")
    # A job that moves while the list is read may appear twice.
    found: dict[str, JobInfo] = {}
    for entries in chunks_of(client, keys, state, min(limit, CHUNK)):
        for entry, job in read_chunk(client, keys, state, entries):
            if job is None:
                continue
            at_ms = due_ms(entry.score) if state == "delayed" and entry.score is not None else None
            is_stalled = state == "active" and job.lock_token is None
            info = _info(job.record, "stalled" if is_stalled else state, at_ms)
            found.setdefault(entry.id, info)
        if len(found) >= limit:
            break
    return list(islice(found.values(), limit))


def read_counts(client: Client, keys: QueueKeys) -> Counts:
    """How many jobs are in each state.

    Raises:
        NotFoundError: the queue does not exist.
        ReplyError: it cannot be read.
    """
    (snapshot,) = read_snapshots(client, [keys])
    if isinstance(snapshot, ReplyError):
        raise snapshot
    if snapshot is None:
        raise NotFoundError(
            f"there is no queue {keys.name!r}",
            why=f"no key begins with {keys('')}: no job was ever added, or the queue is under "
            "another prefix or in another Redis",
            hint="check redis_url= and prefix=",
        )
    return snapshot.counts


def remove_job(client: Client, keys: QueueKeys, job_id: str) -> bool:
    """Delete a job; return False if it does not exist.

    Raises:
        RefusedError: the job may not be deleted now.
    """
    word = remove_jobs(client, keys, [job_id])[job_id]
    if word in _KEPT:
        raise RefusedError(f"job {job_id} of queue {keys.name} was not removed", why=_KEPT[word])
    return word == "removed"


def promote_job(client: Client, keys: QueueKeys, job_id: str) -> bool:
    """Run a delayed job now; return False if it is not delayed, or does not exist."""
    return promote(client, keys, [job_id])[job_id] == "promoted"


def cancel_job(client: Client, keys: QueueKeys, job_id: str, reason: str) -> bool:
    """Cancel a job; return False if it has ended already, or does not exist.

    Raises:
        RefusedError: the job cannot be cancelled; ``why`` says why.
        TimedOutError: the handler was cancelled, and has not ended yet.
    """
    word = cancel_jobs(client, keys, [job_id], reason=reason)[job_id]
    if word in {"missing", "ended"}:
        return False
    if word != CANCELLED:
        kind = TimedOutError if word == "unfinished" else RefusedError
        raise kind(f"job {job_id} of queue {keys.name} was not cancelled", why=REASONS[word])
    return True


def _info(job: JobRecord, state: str, due_at_ms: int | None) -> JobInfo:
    return JobInfo(
        id=job.id,
        name=job.name,
        state=state,
        data=job.data,
        opts=job.opts,
        priority=job.priority,
        attempts_made=job.attempts_made,
        attempts_started=job.attempts_started,
        attempts_max=job.attempts_max,
        stalled_count=job.stalled_count,
        worker=job.worker,
        scheduler=job.scheduler,
        parent_key=job.parent_key,
        added_at_ms=job.timestamp_ms,
        due_at_ms=due_at_ms,
        started_at_ms=job.processed_on_ms,
        finished_at_ms=job.finished_on_ms,
        progress=job.progress,
        returnvalue=job.returnvalue,
        failed_reason=job.failed_reason,
        stacktrace=job.stacktrace,
    )
