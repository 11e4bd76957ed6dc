"""When an interrupted job runs again, if nobody puts it back by hand.

A stalled check does it, and it takes two that have an effect: the first one behind the last renewal
of the job's lock marks the job, a later one puts it back, once the lock has run out (wire format
5.13). A check has an effect when ``stalled-check`` has expired, so at most one an interval; a
worker tries when it starts, and then every interval. A try that comes a moment before the key
expires is lost, so that two checks with an effect lie one to two intervals apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.wire.read.active import ActiveJob
from qctl.wire.read.stalled_check import StalledClock

# BullMQ's default lockDuration.
LOCK_MS = 30_000
# Two clocks, a moment of network: an interval this near to the default is the default.
_TOLERANCE_MS = 1_500
# The answer is to hold for an operator who acts on it at once.
SLACK_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Of the interrupted jobs of one queue.

    Args:
        by: who notices: ``restarted`` for the new process alone, ``others`` for workers that stay,
            ``unknown``.
        min_s, max_s: from the end of the old process until the jobs are back, to run next.
        lock_ms: how long a lock lasts, judged by the locks there are.
        interval_ms: between two stalled checks; ``interval_assumed`` when no key told.
        is_checked: whether a stalled check ran within its interval; if not, perhaps none ever
            runs, and the jobs stay where they are.
        next_check_ms: from now until the next check may have an effect.
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
    leaves_in_s: float | None,
    boot_s: tuple[float, float],
    now_ms: int,
) -> Recovery:
    """When jobs of one queue are back that are interrupted within some seconds from now.

    Args:
        jobs: that would be interrupted; at least one.
        by: see ``Recovery``.
        is_lone: nobody but one new process checks, so its start sets the beat.
        leaves_in_s: the old process ends at most so long after it is told to; None if unknown.
        boot_s: the new process takes so long to start a worker, least and most.
        now_ms: by this host's clock, epoch milliseconds.
    """
    interval_ms, assumed = clock.interval_ms(now_ms)
    slack_ms = interval_ms if leaves_in_s is None else round((SLACK_S + leaves_in_s) * 1000)
    lock_ms, least_lock_ms = _lock_ms(jobs, now_ms, slack_ms)
    key_ms = (clock.next_in_ms - slack_ms, clock.next_in_ms)
    may_be_marked = any(job.id in clock.marked for job in jobs)
    if clock.next_in_ms <= slack_ms:
        # Shortly before the end another check may start the clock anew, and mark the jobs.
        key_ms, may_be_marked = (0, interval_ms), True
    least_boot_ms, most_boot_ms = (round(seconds * 1000) for seconds in boot_s)
    # The first check that has an effect.
    first = key_ms[0]
    if is_lone:
        is_lost = key_ms[0] > most_boot_ms
        first = least_boot_ms + interval_ms if is_lost else max(least_boot_ms, key_ms[0])
    if by == "others":
        last_first = min(most_boot_ms, key_ms[1]) + interval_ms
    else:
        last_first = most_boot_ms + (interval_ms if key_ms[1] > least_boot_ms else 0)
    earliest = first if may_be_marked else first + interval_ms
    while is_lone and earliest < least_lock_ms:
        earliest += interval_ms
    latest = max(last_first, lock_ms) + 2 * interval_ms
    return Recovery(
        queue=clock.keys.name,
        by=by,
        min_s=round(max(earliest, least_lock_ms) / 1000, 1),
        max_s=round(latest / 1000, 1),
        lock_ms=lock_ms,
        interval_ms=interval_ms,
        interval_assumed=assumed,
        is_checked=clock.ran_recently,
        next_check_ms=clock.next_in_ms,
    )


def _lock_ms(jobs: Sequence[ActiveJob], now_ms: int, slack_ms: int) -> tuple[int, int]:
    """How long a lock lasts, and the least that is left of one when the process ends.

    It is renewed when half of it is over (wire format 7.4), so what is left is between a half and
    all of it; of a job that started just now, all but the time since. BullMQ's default, where that
    is possible. A worker whose event loop is busy renews late or not at all: then a lock goes on
    running out until the end.
    """
    locks = [(job.lock_ttl_ms, job.started_at_ms) for job in jobs if job.lock_ttl_ms is not None]
    if not locks:
        return LOCK_MS, 0
    least = max(ttl for ttl, _ in locks)
    most = max(
        min(2 * ttl, ttl + (max(now_ms - started, 0) if started else ttl)) for ttl, started in locks
    )
    lock_ms = LOCK_MS if least <= LOCK_MS <= most + _TOLERANCE_MS else max(most, least)
    half = max(least // 2 - _TOLERANCE_MS // 3, 0)
    return lock_ms, min(half, max(min(ttl for ttl, _ in locks) - slack_ms, 0))
