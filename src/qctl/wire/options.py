"""What may be said about a job when it is added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypedDict

Duration = float | timedelta


class OnFailure(StrEnum):
    """What a child's final failure does to its parent; without one the parent goes on waiting."""

    FAIL_PARENT = "fail_parent"
    CONTINUE_PARENT = "continue_parent"
    IGNORE_DEPENDENCY = "ignore_dependency"
    REMOVE_DEPENDENCY = "remove_dependency"


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next attempt.

    Args:
        kind: ``fixed``, ``exponential`` or the name of a worker's own function.
        delay_s: seconds; of ``exponential`` those before the second attempt, doubled each time.
        jitter: 0 to 1, the share of the delay that is left to chance.
    """

    kind: str
    delay_s: float | None = None
    jitter: float | None = None


@dataclass(frozen=True, slots=True)
class Dedup:
    """Let another job stand for this one while it is there (wire format 5.5).

    Args:
        id: jobs with the same id are the same.
        ttl_s: seconds for which the id is taken; without it until its job ends.
        extend: every further add starts ``ttl_s`` anew.
        replace: a delayed job with this id makes way for the new one.
        keep_last_if_active: the last add while the job runs is made when it ends.
        reschedule: a further add gives the delayed job its own delay (BullMQ 6).
    """

    id: str
    ttl_s: float | None = None
    extend: bool = False
    replace: bool = False
    keep_last_if_active: bool = False
    reschedule: bool = False


@dataclass(frozen=True, slots=True)
class Keep:
    """Which finished jobs stay.

    Args:
        count: at most so many, the newest.
        age_s: those that ended within so many seconds.
        limit: remove at most so many in one go.
    """

    count: int | None = None
    age_s: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Parent:
    """A job, in a queue of the same prefix, that waits for the new one."""

    id: str
    queue: str


# Not frozen: that makes a job four times as expensive to build, and bulk adds build many.
@dataclass(slots=True, kw_only=True)
class JobOptions:
    """What may be said about a job besides its name and data.

    Args:
        delay: run it no sooner than after so many seconds (or a ``timedelta``).
        priority: 1 (most urgent) to 2,097,151; 0 is before them all.
        attempts: runs allowed through failures; 0 and 1 are the same.
        backoff: ``Backoff(…)`` or a text as ``"exponential:60s"``.
        job_id: instead of a number; adding an id that exists adds nothing.
        lifo: run it before those that wait.
        remove_on_complete: True at once, False never, a number: keep so many; or ``Keep(…)``.
        remove_on_fail: the same for its failure.
        dedup: see ``Dedup``.
        timestamp_ms: when it was made, epoch milliseconds; the delay counts from here.
        keep_logs: at most so many log rows.
        stack_trace_limit: at most so many stack traces.
        parent: a job that waits for this one.
        on_failure: what its failure does to the parent.
        extra: further options, stored as they are.
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
    """``JobOptions`` as keyword arguments; see there."""

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
