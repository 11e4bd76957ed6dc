"""What a worker says to Redis: its transitions with their keys and arguments in place.

Nothing is sent here. The worker's step, which is the hot path, is only half prepared: ``Step``
holds what does not change from call to call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qctl.connection.address import Arg
from qctl.wire.encoding import valid_text
from qctl.wire.jobs import STALLED_TOO_OFTEN
from qctl.wire.keys import QueueKeys
from qctl.wire.scripts import ScriptCall, sha

# Jobs settled, fetched or given back by one call; keeps every call below 5 ms.
MAX_BATCH = 250
# What a worker writes to k(limiter) to stop the whole queue for a time (wire format 5.22).
NO_MORE_JOBS = "9007199254740991"

# Codes of wire format 5, as the scripts answer them.
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
    """Why a script did not do a thing with a job, from its answer: a code, or an error's text."""
    return CODE_TEXTS.get(code, str(code)) if isinstance(code, int) else code


@dataclass(frozen=True, slots=True)
class Step:
    """The unchanging part of a worker's step (``work.lua``).

    Args:
        lock_ms: TTL of the locks, in ms.
        worker_name: written to the jobs' ``pb``.
        limiter: jobs per window and the window in ms; None for no limit of the worker's own.
        metrics_minutes: minutes of metrics kept; None for no metrics.
    """

    keys: QueueKeys
    lock_ms: int
    worker_name: str
    limiter: tuple[int, int] | None
    metrics_minutes: int | None

    def head(self) -> tuple[Arg, ...]:
        """The command up to the arguments that change."""
        return ("EVALSHA", sha("work"), 2, *self.keys.whole)

    def options(self) -> tuple[Arg, ...]:
        """``ARGV[6]`` to ``ARGV[9]``."""
        most, window_ms = self.limiter or ("", "")
        metrics = "" if self.metrics_minutes is None else self.metrics_minutes
        return (self.worker_name, most, window_ms, metrics)


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
    """The job has failed for good.

    Args:
        stacktrace: JSON array.
        attempts: how many it may make; ``attempts_made``: with this one.
        keep: a keep rule.
        dedup_id: its deduplication id, or "".
    """
    metrics = "" if metrics_minutes is None else metrics_minutes
    made = (attempts_made, dedup_id)
    text = valid_text(reason)
    args = (now_ms, job_id, token, text, stacktrace, attempts, keep, metrics, *made)
    return ScriptCall("fail", keys.whole, args)


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
    """The job runs again after ``delay_ms``; with ``stacktrace`` it failed this time."""
    flags = ("1" if counted else "", "1" if lifo else "")
    args = (now_ms, job_id, token, delay_ms, *flags, valid_text(reason), stacktrace)
    return ScriptCall("retry", keys.whole, args)


def give_back(keys: QueueKeys, jobs: Sequence[tuple[str, str]]) -> ScriptCall:
    """Jobs (id, token) go back to run next, the first one first; no attempt is counted."""
    return ScriptCall("give_back", keys.whole, tuple(_flat(reversed(jobs))))


def wait_children(keys: QueueKeys, job_id: str, token: str, now_ms: int) -> ScriptCall:
    """The job waits until its children have finished."""
    return ScriptCall("wait_children", keys.whole, (now_ms, job_id, token))


def renew(keys: QueueKeys, lock_ms: int, job_id: str, token: str) -> ScriptCall:
    """Renew the lock of a job; with those renewed, ``forget_marks``.

    The lock is the script's only key, so that it is renewed while a cluster moves the queue, too.
    """
    return ScriptCall("renew", (keys.lock(job_id),), (lock_ms, token))


def forget_marks(keys: QueueKeys, ids: Iterable[str]) -> tuple[Arg, ...]:
    """The command after which a stalled check has not yet seen these jobs."""
    return ("SREM", keys("stalled"), *ids)


def stalled_check(
    keys: QueueKeys, now_ms: int, interval_ms: int, max_stalled_count: int
) -> ScriptCall:
    """Bring back jobs of workers that are gone."""
    args = (now_ms, interval_ms, max_stalled_count, STALLED_TOO_OFTEN)
    return ScriptCall("stalled_check", keys.whole, args)


def update_job(
    keys: QueueKeys, job_id: str, what: str, value: str, keep: int | None = None
) -> ScriptCall:
    """Set a job's ``progress`` or ``data`` (JSON), or add a row to its ``log``."""
    rows = "" if keep is None else keep
    return ScriptCall("update_job", keys.whole, (job_id, what, valid_text(value), rows))


def registration(keys: QueueKeys, scheduler_id: str) -> tuple[Arg, ...]:
    """The command that tells the time of a scheduler's pending job, epoch ms; None for none."""
    return ("ZSCORE", keys("repeat"), scheduler_id)


def stop_queue(keys: QueueKeys, for_ms: int) -> tuple[Arg, ...]:
    """The command that lets no worker with a rate limit start jobs for a time."""
    return ("SET", keys("limiter"), NO_MORE_JOBS, "PX", max(for_ms, 1))


def await_marker(keys: QueueKeys, timeout_s: float) -> tuple[Arg, ...]:
    """The command that blocks until there may be a job (wire format 7.2)."""
    return ("BZPOPMIN", keys("marker"), f"{timeout_s:.3f}")


def unblock(client_id: int) -> tuple[Arg, ...]:
    """The command that ends another connection's wait for a marker."""
    return ("CLIENT", "UNBLOCK", client_id)


def put_marker(keys: QueueKeys, member: str, score: str) -> tuple[Arg, ...]:
    """The command that leaves a marker to another worker."""
    return ("ZADD", keys("marker"), score, member)


def _flat(pairs: Iterable[tuple[str, str]]) -> Iterable[str]:
    for job_id, token in pairs:
        yield job_id
        yield token
