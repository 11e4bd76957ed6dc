"""A job as commands show it: its state, its times, and its worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What will happen, if nobody intervenes, to a job whose worker is gone.

    Args:
        outcome: ``recovered`` (a worker will put the job back), ``fails``, ``none`` (the job stays
            where it is), ``held`` (the lock exists, so the worker may still finish the job) or
            ``unknown``.
        text: the outcome in words, with the reason.
    """

    outcome: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job. A time such as ``started_at`` is None if it is unknown or not reached yet.

    Args:
        state: one of ``wire.states.STATES``, or ``unknown`` for a job that is in no state.
        data: the payload; the raw text if it is not JSON.
        lock_ttl_ms: None if there is no lock, or if the lock never expires.
        runtime_s: how long the job has run so far, or how long it ran.
        missing: whether the job's hash is gone from Redis; only the job's id is left.
        fate: set by ``add_fates`` if the job is stalled, or if its worker is not connected.
    """

    id: str
    name: str | None
    state: str
    data: Any = None
    opts: Mapping[str, Any] | None = None
    attempts_made: int = 0
    attempts_started: int = 0
    attempts_max: int = 1
    stalled_count: int = 0
    worker: str | None = None
    lock_ttl_ms: int | None = None
    added_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    due_at: datetime | None = None
    runtime_s: float | None = None
    failed_reason: str | None = None
    progress: Any = None
    priority: int = 0
    scheduler: str | None = None
    missing: bool = False
    fate: Fate | None = None


@dataclass(frozen=True, slots=True)
class JobList:
    """Some or all jobs of one state; ``total`` counts all jobs in the state."""

    queue: str
    state: str
    total: int
    jobs: tuple[Job, ...]


@dataclass(frozen=True, slots=True)
class JobParent:
    """A job's parent in a flow.

    Args:
        key: the parent's full key.
        queue, prefix, id: the parts of ``key``; None if several splits of ``key`` are possible.
        state: as ``FlowNode.state``.
        missing: whether the parent is gone from Redis.
    """

    key: str
    queue: str | None
    id: str | None
    prefix: str | None
    state: str | None
    missing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowNode:
    """A job of a flow.

    Args:
        queue, prefix, id: the parts of ``key``; None if several splits of ``key`` are possible.
        name: None if the job is gone.
        state: one of ``wire.states.STATES``; None if unknown, or if the job is in no state. For a
            job that is gone: the outcome that its parent has stored (``completed`` or ``failed``),
            or None.
        missing: whether the job is gone from Redis, or has become the child of another job.
        failed_reason: why the job has failed; None in any other state.
        children: some of its children, or none if they were not read.
        more: how many children it has besides these.
    """

    key: str
    queue: str | None
    prefix: str | None
    id: str | None
    name: str | None
    state: str | None
    missing: bool
    failed_reason: str | None
    children: tuple[FlowNode, ...] = ()
    more: int = 0


@dataclass(frozen=True, slots=True)
class Children:
    """How many children a job has; ``ignored`` children have failed, and the job ignores that.

    Args:
        jobs: some of the children. The children that have not completed come first.
        more: how many there are besides these.
    """

    pending: int
    processed: int
    ignored: int
    failed: int
    jobs: tuple[FlowNode, ...]
    more: int


@dataclass(frozen=True, slots=True)
class HeldBy:
    """Where a qctl worker runs a job; ``process`` is a target such as ``qctl:mail``, or None.

    ``pid`` is None if unknown.
    """

    host: str
    pid: int | None
    process: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDetail(Job):
    """One job in full.

    Args:
        data_is_json: False if ``data`` is raw text that is not JSON.
        delay_ms: the job's current delay.
        lock_token: the value of the lock, by which a worker proves that it has the job.
        held_by: where the worker that has the job runs; None if it is not a qctl worker.
        deferred_failure: the reason with which the next worker fails the job without running it.
        log_rows: how many rows ``jobs logs`` shows.
    """

    queue: str
    data_is_json: bool = True
    delay_ms: int = 0
    returnvalue: Any = None
    stacktrace: Sequence[str] = ()
    parent: JobParent | None = None
    children: Children | None = None
    deduplication_id: str | None = None
    deferred_failure: str | None = None
    lock_token: str | None = None
    held_by: HeldBy | None = None
    log_rows: int = 0


@dataclass(frozen=True, slots=True)
class Skipped:
    """A job that was left alone, and why."""

    id: str
    reason: str


Predicate = Callable[[Job], bool]
