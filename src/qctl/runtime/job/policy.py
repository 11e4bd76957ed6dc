"""What a job's options say about its end: attempts, backoff, keeping (wire format 3.2, 7.5)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from qctl.wire.jobs import attempts_allowed
from qctl.wire.options import Keep
from qctl.wire.replies import read_json, to_int

# (attempts made including this one, the error) → delay in seconds; below 0 fails the job.
CustomBackoff = Callable[[int, BaseException], float]
KEEP_ALL = "-1||"


class UnknownBackoffError(Exception):
    """The job names a backoff that the worker does not have."""


@dataclass(frozen=True, slots=True)
class JobPolicy:
    """The part of a job's ``opts`` that a worker acts on.

    Args:
        attempts: how many it has in all; 0 and 1 both mean one.
        backoff_kind: ``fixed``, ``exponential`` or the name of a custom one; "" for none.
        backoff_ms: the delay of ``fixed``, and the first one of ``exponential``.
        jitter: 0 to 1, the share of the delay that is random.
        keep_completed, keep_failed: keep rules, ``count|age in seconds|limit``; None leaves it to
            the worker.
        stack_traces: how many are kept; None for all.
        lifo: a retry runs before all other jobs.
        keep_logs: how many rows of its log are kept; None for all.
    """

    attempts: int
    backoff_kind: str
    backoff_ms: float
    jitter: float
    keep_completed: str | None
    keep_failed: str | None
    stack_traces: int | None
    lifo: bool
    keep_logs: int | None


@lru_cache(maxsize=4096)
def policy_of(opts_json: str) -> JobPolicy:
    """The policy in a job's ``opts``; what is malformed counts as not given.

    Cached, since most jobs of a queue have the same options.
    """
    opts, _ = read_json(opts_json, {})
    if not isinstance(opts, dict):
        opts = {}
    backoff = opts.get("backoff")
    if not isinstance(backoff, dict):
        # A bare number means fixed.
        backoff = {"type": "fixed", "delay": backoff} if backoff else {}
    return JobPolicy(
        attempts=attempts_allowed(opts.get("attempts")),
        backoff_kind=str(backoff.get("type") or ""),
        backoff_ms=_finite(backoff.get("delay")),
        jitter=min(max(_finite(backoff.get("jitter")), 0.0), 1.0),
        keep_completed=keep_rule(opts.get("removeOnComplete")),
        keep_failed=keep_rule(opts.get("removeOnFail")),
        stack_traces=to_int(opts.get("stackTraceLimit")),
        lifo=bool(opts.get("lifo")),
        keep_logs=max(to_int(opts.get("kl")) or 0, 0) or None,
    )


def keep_rule(option: Any) -> str | None:
    """``removeOnComplete``, ``removeOnFail`` or ``Keep`` as scripts read it; None if not given."""
    if option is None:
        return None
    if isinstance(option, bool | str):
        # To BullMQ any text means true.
        return "0||" if option else KEEP_ALL
    if isinstance(option, Keep):
        option = {"count": option.count, "age": option.age_s, "limit": option.limit}
    if isinstance(option, Mapping):
        count, limit = to_int(option.get("count")), to_int(option.get("limit"))
        age_text = _age_text(option.get("age"))
        limit_text = str(limit) if age_text and limit and limit > 0 else ""
        return f"{-1 if count is None else count}|{age_text}|{limit_text}"
    count = to_int(option)
    return None if count is None else f"{count}||"


def _age_text(age: Any) -> str:
    """Seconds without an exponent, since the scripts read digits; "" if it is not a number."""
    if isinstance(age, bool):
        return ""
    try:
        seconds = float(age)
    except (TypeError, ValueError, OverflowError):
        return ""
    # "" removes nothing: an age that is not a number must not delete jobs.
    return f"{max(seconds, 0.0):.3f}".rstrip("0").rstrip(".") if math.isfinite(seconds) else ""


def backoff_s(
    policy: JobPolicy,
    attempts_made: int,
    error: BaseException,
    custom: Mapping[str, CustomBackoff],
) -> float:
    """How long to wait before the next attempt, in seconds; below 0 to fail instead.

    ``exponential`` with 1,000 ms waits 1, 2, 4, 8 … seconds. Formulas: wire format 7.5.

    Args:
        attempts_made: this one included, from 1.
        custom: the worker's own backoffs, by name.

    Raises:
        UnknownBackoffError: neither BullMQ nor the worker has one of that name.
    """
    kind, jitter = policy.backoff_kind, policy.jitter
    if kind in custom:
        return custom[kind](attempts_made, error)
    if kind == "exponential":
        delay_ms = float(round(2.0 ** min(attempts_made - 1, 60) * policy.backoff_ms))
    elif kind in {"fixed", ""}:
        delay_ms = policy.backoff_ms
    else:
        known = ", ".join(["fixed", "exponential", *custom])
        raise UnknownBackoffError(f"unknown backoff {kind!r}; this worker has: {known}")
    if delay_ms == -1:
        # BullMQ reads it as: do not retry.
        return -1.0
    delay_ms = max(delay_ms, 0.0)
    if jitter:
        share = 1 - jitter + random.random() * jitter  # noqa: S311 - no secret
        delay_ms = math.floor(delay_ms * share)
    return delay_ms / 1000


def _finite(value: Any) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return found if math.isfinite(found) else 0.0
