"""The options that apply when a job's run ends: retries and removal (wire format 3.2, 7.5)."""

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
# The keep rule (see ``keep_rule``) that removes no jobs.
KEEP_ALL = "-1||"


class UnknownBackoffError(Exception):
    """The job names a backoff that the worker does not have."""


@dataclass(frozen=True, slots=True)
class JobPolicy:
    """The part of a job's ``opts`` that a worker acts on.

    Args:
        attempts: how many attempts the job has in all; 0 and 1 both mean one.
        backoff_kind: ``fixed``, ``exponential`` or the name of a custom backoff; "" for none.
        backoff_ms: the delay of ``fixed``, and the first delay of ``exponential``.
        jitter: 0 to 1, the share of the delay that is random.
        keep_completed, keep_failed: see ``keep_rule``; None if the worker's rule applies.
        stack_traces: how many stack traces are kept; None for all.
        lifo: whether a retry goes to the head of the queue.
        keep_logs: how many rows of the job's log are kept; None for all.
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
    """Read the policy from a job's ``opts``; a malformed option counts as missing.

    The function is cached, since most jobs of a queue have the same options.
    """
    opts, _ = read_json(opts_json, {})
    if not isinstance(opts, dict):
        opts = {}
    backoff = opts.get("backoff")
    if not isinstance(backoff, dict):
        # A number alone means ``fixed``.
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
    """Encode ``removeOnComplete``, ``removeOnFail`` or a ``Keep`` for the Lua scripts.

    Returns:
        ``"COUNT|AGE|LIMIT"``: how many jobs to keep (-1 for all), the age in seconds at which
        jobs are removed, and how many are removed at a time. Without an age, AGE and LIMIT are "".
        None if the option is missing or malformed.
    """
    if option is None:
        return None
    if isinstance(option, bool | str):
        # BullMQ reads any text as true.
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
    """The age in seconds as digits without an exponent, for the scripts; "" if not a number."""
    if isinstance(age, bool):
        return ""
    try:
        seconds = float(age)
    except (TypeError, ValueError, OverflowError):
        return ""
    # An age that is not a number must not remove jobs, so it becomes "", which removes none.
    return f"{max(seconds, 0.0):.3f}".rstrip("0").rstrip(".") if math.isfinite(seconds) else ""


def backoff_s(
    policy: JobPolicy,
    attempts_made: int,
    error: BaseException,
    custom: Mapping[str, CustomBackoff],
) -> float:
    """Return the delay before the next attempt, in seconds; below 0 if the job fails instead.

    ``exponential`` with 1,000 ms waits 1, 2, 4, 8 … seconds. Formulas: wire format 7.5.

    Args:
        attempts_made: the number of attempts so far, this one included.
        custom: the worker's custom backoffs, by name.

    Raises:
        UnknownBackoffError: neither BullMQ nor the worker has a backoff of that name.
        Exception: an error of the custom backoff.
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
        # BullMQ reads -1 as "do not retry".
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
