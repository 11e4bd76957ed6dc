"""A job as commands show it: its state, its times, and what is known of its worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of a job whose worker is gone if nobody intervenes.

    Args:
        outcome: ``recovered``, ``fails``, ``none`` (it stays), ``unknown``, ``held`` by its lock.
        text: the same for people, with the reason.
    """

    outcome: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job. Times are aware; None means that it has not happened, or is not known.

    Args:
        state: one of ``wire.states.STATES``.
        data: the payload; the raw text when it is not JSON.
        runtime_s: how long it has run so far or did run, in seconds.
        missing: the id stands in the list, but the job's record is gone from Redis.
        fate: of a job that has stalled or whose worker is gone, when it was asked for.
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
    """Jobs of one state; ``total`` counts all that are in it, shown or not."""

    queue: str
    state: str
    total: int
    jobs: tuple[Job, ...]


@dataclass(frozen=True, slots=True)
class Parent:
    """The flow parent of a job; ``queue`` and ``id`` are None when it has another prefix."""

    key: str
    queue: str | None
    id: str | None


@dataclass(frozen=True, slots=True)
class Children:
    """How many flow children are in which condition; ``ignored`` failed without consequence."""

    pending: int
    processed: int
    ignored: int
    failed: int


@dataclass(frozen=True, slots=True)
class HeldBy:
    """The process of qctl's own worker that has a job; ``process`` is its target, if any."""

    host: str
    pid: int
    process: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDetail(Job):
    """One job in full.

    Args:
        data_is_json: False when ``data`` is raw text that is not JSON.
        delay_ms: the present delay.
        lock_token: what the worker that has it identifies itself by.
        held_by: where that worker runs, if it is one of qctl's own.
        deferred_failure: a reason for which the next worker will fail it without running it.
        log_rows: rows that ``jobs logs`` shows.
    """

    queue: str
    data_is_json: bool = True
    delay_ms: int = 0
    returnvalue: Any = None
    stacktrace: Sequence[str] = ()
    parent: Parent | None = None
    children: Children | None = None
    deduplication_id: str | None = None
    deferred_failure: str | None = None
    lock_token: str | None = None
    held_by: HeldBy | None = None
    log_rows: int = 0


Predicate = Callable[[Job], bool]
