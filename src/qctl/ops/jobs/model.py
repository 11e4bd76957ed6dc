"""A job as commands show it: its state, its times, and its worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What will happen to a job whose worker is gone if nobody intervenes.

    Args:
        outcome: ``recovered`` (a worker puts it back), ``fails``, ``none`` (it stays where it is),
            ``held`` (its lock has not run out) or ``unknown``.
        text: the same for people, with the reason.
    """

    outcome: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job. A time is None if it has not come yet or is unknown.

    Args:
        state: one of ``wire.states.STATES``.
        data: the payload; the raw text if it is not JSON.
        runtime_s: how long the job has run so far, or ran.
        missing: the id is in the list, but the job's record is gone from Redis.
        fate: None for a job that has a worker, and where nobody asked for it.
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
    """Jobs of one state; ``total`` counts all jobs in the state, shown or not."""

    queue: str
    state: str
    total: int
    jobs: tuple[Job, ...]


@dataclass(frozen=True, slots=True)
class JobParent:
    """The parent of a job in a flow; ``queue`` and ``id`` are None if it has another prefix."""

    key: str
    queue: str | None
    id: str | None


@dataclass(frozen=True, slots=True)
class Children:
    """How many children of a job there are; ``ignored`` ones failed without consequence."""

    pending: int
    processed: int
    ignored: int
    failed: int


@dataclass(frozen=True, slots=True)
class HeldBy:
    """The process of a qctl worker that has a job; ``process`` is its target, if any."""

    host: str
    pid: int
    process: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDetail(Job):
    """One job in full.

    Args:
        data_is_json: False if ``data`` is raw text that is not JSON.
        delay_ms: its delay now.
        lock_token: by which the worker that has it proves that.
        held_by: where that worker runs, if it is one of qctl's own.
        deferred_failure: the reason for which the next worker fails it without running it.
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
