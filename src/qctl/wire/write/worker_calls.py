"""The calls that a worker makes: scripts and commands with their keys and arguments.

This module sends nothing. A worker's step, which ends jobs and fetches new ones, is the hot path.
So ``step_head`` and ``step_options`` prepare the parts of the step's call that never change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from qctl.connection.address import Arg
from qctl.wire.encoding import valid_text
from qctl.wire.jobs import STALLED_TOO_OFTEN
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import to_dict
from qctl.wire.scripts import ScriptCall, sha

# One call settles, fetches or gives back at most this many jobs, so it takes less than 5 ms.
MAX_BATCH = 250
# The key ``limiter`` counts started jobs. This count exceeds every rate limit (wire format 5.22).
NO_MORE_JOBS = "9007199254740991"

# The fields that every job gets when it is added. A step answers their values in this order.
_USUAL_FIELDS = ("name", "data", "opts", "timestamp", "delay", "priority")

# Codes that scripts answer if they left a job as it is (wire format 5).
MISSING, NO_LOCK, NOT_ACTIVE, PENDING_CHILDREN, OTHER_LOCK, FAILED_CHILDREN = -1, -2, -3, -4, -6, -9
CODE_TEXTS = {
    MISSING: "the job no longer exists",
    NO_LOCK: "its lock is gone",
    NOT_ACTIVE: "it is no longer active",
    PENDING_CHILDREN: "it has pending children",
    OTHER_LOCK: "another worker has it now",
    FAILED_CHILDREN: "it has failed children",
}


def why_not(code: int | str) -> str:
    """Why a script left a job alone.

    Args:
        code: the script's answer for the job: a code, or the text of an error.
    """
    return CODE_TEXTS.get(code, str(code)) if isinstance(code, int) else code


def step_head(keys: QueueKeys) -> tuple[Arg, ...]:
    """The beginning of a worker's step (``settle_and_fetch.lua``): all parts before ``ARGV``."""
    return ("EVALSHA", sha("settle_and_fetch"), 2, *keys.whole)


def step_options(
    worker_name: str, limiter: tuple[int, int] | None, metrics_minutes: int | None
) -> tuple[Arg, ...]:
    """``ARGV[6]`` to ``ARGV[9]`` of a worker's step.

    Args:
        worker_name: written to the jobs' field ``pb``.
        limiter: the worker's rate limit: jobs per window, and the window in ms; None for no limit.
        metrics_minutes: how many minutes of metrics are kept; None for no metrics.
    """
    max_jobs, window_ms = limiter or ("", "")
    metrics = "" if metrics_minutes is None else metrics_minutes
    return (worker_name, max_jobs, window_ms, metrics)


def job_fields(row: Sequence[Any]) -> dict[str, str]:
    """The hash of a fetched job, from a step's answer (see ``fetch`` in ``lib/fetch.lua``)."""
    return to_dict(row[0]) if len(row) == 1 else dict(zip(_USUAL_FIELDS, row, strict=True))


def fail(
    keys: QueueKeys,
    job_id: str,
    token: str,
    now_ms: int,
    *,
    reason: str,
    stacktrace: str,
    attempts: int,
    attempts_made: int,
    keep: str,
    metrics_minutes: int | None,
    dedup_id: str = "",
) -> ScriptCall:
    """The call that ends a job as failed, with no further attempt.

    Args:
        stacktrace: a JSON array of stack traces.
        attempts: how many attempts the job may make.
        attempts_made: how many attempts the job has made, including this one.
        keep: a keep rule, see ``lib/settle.lua``.
        dedup_id: the job's deduplication id, or "".
    """
    metrics = "" if metrics_minutes is None else metrics_minutes
    failure = (valid_text(reason), stacktrace, attempts, keep, metrics, attempts_made, dedup_id)
    return ScriptCall("fail", keys.whole, (now_ms, job_id, token, *failure))


def retry(
    keys: QueueKeys,
    job_id: str,
    token: str,
    now_ms: int,
    *,
    delay_ms: int,
    counted: bool,
    lifo: bool = False,
    reason: str = "",
    stacktrace: str = "",
) -> ScriptCall:
    """The call that lets a job run again after ``delay_ms``.

    Args:
        counted: whether the present attempt counts.
        stacktrace: a JSON array of stack traces if the present attempt has failed; else "".
    """
    flags = ("1" if counted else "", "1" if lifo else "")
    args = (now_ms, job_id, token, delay_ms, *flags, valid_text(reason), stacktrace)
    return ScriptCall("retry", keys.whole, args)


def give_back(keys: QueueKeys, jobs: Sequence[tuple[str, str]]) -> ScriptCall:
    """The call that puts active jobs back into the queue. It counts no attempt.

    Args:
        jobs: id and lock token of each job. These jobs run next, in the order of ``jobs``.
    """
    return ScriptCall("give_back", keys.whole, tuple(chain.from_iterable(reversed(jobs))))


def wait_children(keys: QueueKeys, job_id: str, token: str, now_ms: int) -> ScriptCall:
    """The call that lets a job wait until its children have finished."""
    return ScriptCall("wait_children", keys.whole, (now_ms, job_id, token))


def renew(keys: QueueKeys, lock_ms: int, job_id: str, token: str) -> ScriptCall:
    """The call that renews a job's lock. Send ``forget_marks`` for the renewed jobs afterwards.

    The lock is the script's only key, so that the script succeeds even while a cluster moves the
    queue.
    """
    return ScriptCall("renew", (keys.lock(job_id),), (lock_ms, token))


def forget_marks(keys: QueueKeys, ids: Iterable[str]) -> tuple[Arg, ...]:
    """The command that removes the marks that a stalled check has put on these jobs."""
    return ("SREM", keys("stalled"), *ids)


def stalled_check(
    keys: QueueKeys, now_ms: int, interval_ms: int, max_stalled_count: int
) -> ScriptCall:
    """The call that puts back marked jobs without a lock, and then marks all active jobs."""
    args = (now_ms, interval_ms, max_stalled_count, STALLED_TOO_OFTEN)
    return ScriptCall("stalled_check", keys.whole, args)


def update_job(
    keys: QueueKeys, job_id: str, what: str, value: str, keep: int | None = None
) -> ScriptCall:
    """The call that sets a job's ``progress`` or ``data`` (JSON), or adds a row to its ``log``.

    ``keep``: how many of the newest log rows are kept; None for all.
    """
    rows = "" if keep is None else keep
    return ScriptCall("update_job", keys.whole, (job_id, what, valid_text(value), rows))


def scheduler_due(keys: QueueKeys, scheduler_id: str) -> tuple[Arg, ...]:
    """The command that reads when a scheduler's pending job is due (epoch ms, or None)."""
    return ("ZSCORE", keys("repeat"), scheduler_id)


def stop_queue(keys: QueueKeys, for_ms: int) -> tuple[Arg, ...]:
    """The command after which workers that have a rate limit start no jobs for ``for_ms``."""
    return ("SET", keys("limiter"), NO_MORE_JOBS, "PX", max(for_ms, 1))


def await_marker(keys: QueueKeys, timeout_s: float) -> tuple[Arg, ...]:
    """The command that waits for a marker, which says that there may be a job (wire format 7.2)."""
    return ("BZPOPMIN", keys("marker"), f"{timeout_s:.3f}")


def unblock(client_id: int) -> tuple[Arg, ...]:
    """The command that ends another connection's ``await_marker``."""
    return ("CLIENT", "UNBLOCK", client_id)


def put_marker(keys: QueueKeys, member: str, score: str) -> tuple[Arg, ...]:
    """The command that puts a marker back for another worker."""
    return ("ZADD", keys("marker"), score, member)
