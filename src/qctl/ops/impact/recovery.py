"""When an interrupted job runs again if no operator puts it back sooner (wire format 5.13).

A worker makes a stalled check when it starts, and then once every interval. A check is effective
only if the key ``stalled-check`` has expired; the check then sets the key again, for one interval.
A check just before the key expires has no effect, so two effective checks are one to two intervals
apart. The first effective check after the last renewal of the job's lock marks the job. A later
effective check puts the job back, if the lock has run out by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.wire.read.active import ActiveJob
from qctl.wire.read.stalled_check import StalledClock

# BullMQ's default lockDuration.
LOCK_MS = 30_000
# Clocks and networks are inexact: an estimate this near to the default counts as the default.
_TOLERANCE_MS = 1_500
# If the event loop is idle, a lock is renewed at most this much too late.
_RENEWAL_DELAY_MS = 500
# How long an operator is assumed to take from this answer of qctl to the restart.
DELAY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """When the interrupted jobs of one queue run again.

    Args:
        by: ``restarted`` if only the new process can put the jobs back, ``others`` if workers that
            are not restarted can do so, too, or ``unknown``.
        min_s, max_s: time from the end of the old process until the jobs are waiting again.
        lock_ms: how long a lock lasts, estimated from the existing locks.
        interval_ms: time between two stalled checks.
        interval_assumed: whether ``interval_ms`` is assumed, because no key shows it.
        is_checked: whether a stalled check ran within the last interval. If not, perhaps no worker
            makes stalled checks, and the jobs stay in ``active``.
        next_check_ms: time from now until a check can be effective.
    """

    queue: str
    by: str
    min_s: float
    max_s: float
    lock_ms: int
    interval_ms: int
    interval_assumed: bool
    is_checked: bool
    next_check_ms: int


def recovery_of(
    jobs: Sequence[ActiveJob],
    clock: StalledClock,
    *,
    by: str,
    is_lone: bool,
    exits_within_s: float | None,
    boot_s: tuple[float, float],
    now_ms: int,
    prefix: str | None,
) -> Recovery:
    """When the interrupted jobs of one queue run again, after a restart now.

    Args:
        jobs: the jobs that the restart would interrupt; at least one.
        by: see ``Recovery``.
        is_lone: whether the worker of the new process is the only one that checks the queue.
        exits_within_s: the longest time from the stop signal to the end of the old process; None
            if unknown.
        boot_s: how long the new process takes to start a worker, minimum and maximum.
        now_ms: by this host's clock, epoch milliseconds.
        prefix: the prefix that is left out of the queue's name.
    """
    interval_ms, assumed = clock.interval_ms(now_ms)
    # The old process ends within this time. If the time is unknown, one interval is assumed.
    end_in_ms = interval_ms if exits_within_s is None else round((DELAY_S + exits_within_s) * 1000)
    lock_ms, least_lock_ms = _lock_ms(jobs, now_ms, end_in_ms)
    # The shortest and the longest time from the end of the old process until the key expires.
    key_ms = (clock.next_in_ms - end_in_ms, clock.next_in_ms)
    may_be_marked = any(job.id in clock.marked for job in jobs)
    if clock.next_in_ms <= end_in_ms:
        # Before the process ends, another check may set the key again and mark the jobs.
        key_ms, may_be_marked = (0, interval_ms), True
    least_boot_ms, most_boot_ms = (round(seconds * 1000) for seconds in boot_s)
    # When the first effective check runs, at the earliest and at the latest.
    first_min_ms = key_ms[0]
    if is_lone:
        is_start_too_soon = key_ms[0] > most_boot_ms
        first_min_ms = (
            least_boot_ms + interval_ms if is_start_too_soon else max(least_boot_ms, key_ms[0])
        )
    if by == "others":
        # One interval after the new worker starts, or after the key expires, whichever is first.
        first_max_ms = min(most_boot_ms, key_ms[1]) + interval_ms
    else:
        # While the key exists, the check at the start has no effect.
        first_max_ms = most_boot_ms + (interval_ms if key_ms[1] > least_boot_ms else 0)
    min_ms = first_min_ms if may_be_marked else first_min_ms + interval_ms
    # A check before the lock runs out leaves the job in ``active``.
    while is_lone and min_ms < least_lock_ms:
        min_ms += interval_ms
    max_ms = max(first_max_ms, lock_ms) + 2 * interval_ms
    return Recovery(
        queue=clock.keys.label(prefix),
        by=by,
        min_s=round(max(min_ms, least_lock_ms) / 1000, 1),
        max_s=round(max_ms / 1000, 1),
        lock_ms=lock_ms,
        interval_ms=interval_ms,
        interval_assumed=assumed,
        is_checked=clock.ran_recently,
        next_check_ms=clock.next_in_ms,
    )


def _lock_ms(jobs: Sequence[ActiveJob], now_ms: int, end_in_ms: int) -> tuple[int, int]:
    """A lock's duration, and the shortest time left on a lock when the process ends, in ms.

    A worker renews a lock when half of its duration has passed (wire format 7.4), so at least half
    is always left. (Less may be left if the worker's event loop is busy.) So the duration is at
    most twice the time left now. The worker took the lock when the job started, so the duration
    is also at most the job's runtime plus the time left now. If BullMQ's default is a possible
    duration, the default is assumed.
    """
    locks = [(job.lock_ttl_ms, job.started_at_ms) for job in jobs if job.lock_ttl_ms is not None]
    if not locks:
        return LOCK_MS, 0
    # The duration is at least the longest time left, and at most the largest estimate.
    min_ms = max(ttl for ttl, _ in locks)
    max_ms = max(
        min(2 * ttl, ttl + (max(now_ms - started, 0) if started else ttl)) for ttl, started in locks
    )
    lock_ms = LOCK_MS if min_ms <= LOCK_MS <= max_ms + _TOLERANCE_MS else max_ms
    half_ms = max(min_ms // 2 - _RENEWAL_DELAY_MS, 0)
    return lock_ms, min(half_ms, max(min(ttl for ttl, _ in locks) - end_in_ms, 0))
