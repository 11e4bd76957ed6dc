"""The options of a job that is added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypedDict

Duration = float | timedelta


class OnFailure(StrEnum):
    """How a child's final failure affects the parent. By default the parent keeps waiting."""

    FAIL_PARENT = "fail_parent"
    CONTINUE_PARENT = "continue_parent"
    IGNORE_DEPENDENCY = "ignore_dependency"
    REMOVE_DEPENDENCY = "remove_dependency"


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next attempt.

    Args:
        kind: ``fixed``, ``exponential`` or the name of a backoff function in the worker.
        delay_s: seconds; ``exponential`` doubles the delay after each further attempt.
        jitter: 0 to 1, the share of the delay that is random.
    """

    kind: str
    delay_s: float | None = None
    jitter: float | None = None


@dataclass(frozen=True, slots=True)
class Dedup:
    """Deduplication: by default, no job is added while another has the same ``Dedup.id``.

    See wire format 5.5.

    Args:
        id: the deduplication id.
        ttl_s: for how many seconds the id is taken; by default, it is taken until the job ends.
        extend: each attempt to add another job with this id restarts ``ttl_s``.
        replace: the new job replaces a delayed job with this id.
        keep_last_if_active: if jobs are added while a job with this id runs, keep the last of
            them, and add it when the running job ends.
        reschedule: while a job with this id is delayed, each attempt to add another job with this
            id gives the delayed job the other job's delay (BullMQ 6).
    """

    id: str
    ttl_s: float | None = None
    extend: bool = False
    replace: bool = False
    keep_last_if_active: bool = False
    reschedule: bool = False


@dataclass(frozen=True, slots=True)
class Keep:
    """Which finished jobs to keep.

    Args:
        count: keep only the newest jobs, at most this many.
        age_s: keep only jobs that ended within this many seconds.
        limit: each time a job ends, remove at most this many jobs because of their age.
    """

    count: int | None = None
    age_s: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Parent:
    """A job that waits until the new job ends. Both jobs' queues must have the same prefix."""

    id: str
    queue: str


# Not frozen: a frozen dataclass takes four times as long to build, and bulk adds build many.
@dataclass(slots=True, kw_only=True)
class JobOptions:
    """The options of a job.

    Args:
        delay: seconds (or a ``timedelta``) before the job may run.
        priority: 1 (most urgent) to 2,097,151; jobs with 0 run before all others.
        attempts: how many attempts the job may make, at least 1; default: 1.
        backoff: ``Backoff(…)`` or a string such as ``"exponential:60s"``.
        job_id: the job's id, instead of the next number; nothing is added if the id exists.
        lifo: run the job before the waiting jobs.
        remove_on_complete: True to remove the job when it completes, False to keep it, a number to
            keep that many jobs, or ``Keep(…)``.
        remove_on_fail: what to do when the job fails; given like ``remove_on_complete``.
        dedup: see ``Dedup``.
        timestamp_ms: when the job was created, epoch milliseconds; ``delay`` begins at this time.
        keep_logs: how many log rows to keep at most.
        stack_trace_limit: how many stack traces to keep at most.
        parent: a job that waits for this job.
        on_failure: what the job's final failure does to the parent.
        extra: further options of BullMQ, stored as they are.
    """

    delay: Duration | None = None
    priority: int | None = None
    attempts: int | None = None
    backoff: Backoff | str | None = None
    job_id: str | None = None
    lifo: bool = False
    remove_on_complete: bool | int | Keep | None = None
    remove_on_fail: bool | int | Keep | None = None
    dedup: Dedup | None = None
    timestamp_ms: int | None = None
    keep_logs: int | None = None
    stack_trace_limit: int | None = None
    parent: Parent | None = None
    on_failure: OnFailure | str | None = None
    extra: Mapping[str, Any] | None = None


class JobKeywords(TypedDict, total=False):
    """The fields of ``JobOptions`` as keyword arguments."""

    delay: Duration | None
    priority: int | None
    attempts: int | None
    backoff: Backoff | str | None
    job_id: str | None
    lifo: bool
    remove_on_complete: bool | int | Keep | None
    remove_on_fail: bool | int | Keep | None
    dedup: Dedup | None
    timestamp_ms: int | None
    keep_logs: int | None
    stack_trace_limit: int | None
    parent: Parent | None
    on_failure: OnFailure | str | None
    extra: Mapping[str, Any] | None
