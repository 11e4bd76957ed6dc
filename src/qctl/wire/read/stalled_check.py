"""The stalled check: when it runs, which jobs it has marked, and which jobs it never fails."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qctl.connection.address import Arg, Client
from qctl.grouping import grouped
from qctl.wire.keys import JobKey, QueueKeys
from qctl.wire.replies import checked, read_groups, to_int, value_or

if TYPE_CHECKING:
    # Not loaded for `qctl status`.
    from qctl.wire.read.active import ActiveJob

# BullMQ's default stalledInterval. The actual interval is an option of the worker, not in Redis.
DEFAULT_INTERVAL_MS = 30_000
# An interval this close to the default counts as the default, because clocks differ a little.
_TOLERANCE_MS = 1_500


@dataclass(frozen=True, slots=True)
class StalledClock:
    """When the stalled check of one queue runs (wire format 5.13).

    Args:
        checked_at_ms: when the last check ran, epoch milliseconds by the clock of the worker that
            ran it; None if no check has run within the interval.
        next_in_ms: time until the next check may run; 0 if one may run now.
        marked: those of the given jobs that the last check marked; renewing the lock unmarks a job.
    """

    keys: QueueKeys
    checked_at_ms: int | None
    next_in_ms: int
    marked: frozenset[str]

    @property
    def ran_recently(self) -> bool:
        """Whether a check ran within the last interval.

        If not, perhaps no check ever runs: workers with ``skipStalledCheck``, and code that fetches
        jobs by hand, run no checks.
        """
        return self.next_in_ms > 0

    def interval_ms(self, now_ms: int) -> tuple[int, bool]:
        """The interval between checks, and whether it is a guess.

        The last check set a key that expires after one interval. The interval is therefore the time
        since that check, plus the time until the key expires.

        Args:
            now_ms: by this host's clock, epoch milliseconds.
        """
        if self.checked_at_ms is None or not self.next_in_ms:
            return DEFAULT_INTERVAL_MS, True
        interval_ms = now_ms - self.checked_at_ms + self.next_in_ms
        if abs(interval_ms - DEFAULT_INTERVAL_MS) <= _TOLERANCE_MS:
            return DEFAULT_INTERVAL_MS, False
        if interval_ms < self.next_in_ms:
            # The last check seems to lie in the future, so the two clocks differ by a lot.
            return max(DEFAULT_INTERVAL_MS, self.next_in_ms), True
        return interval_ms, False


def read_clocks(
    client: Client, ids: Sequence[tuple[QueueKeys, Sequence[str]]]
) -> list[StalledClock]:
    """When the stalled check of each queue runs, and which of the given jobs are marked.

    Takes one round trip.
    """
    reads: list[list[tuple[Arg, ...]]] = [
        [
            ("GET", keys("stalled-check")),
            ("PTTL", keys("stalled-check")),
            *(("SISMEMBER", keys("stalled"), job_id) for job_id in job_ids),
        ]
        for keys, job_ids in ids
    ]
    clocks = []
    for (keys, job_ids), replies in zip(ids, read_groups(client, reads), strict=True):
        checked_at, ttl_ms, *marks = (value_or(reply, None) for reply in replies)
        marked = frozenset(i for i, mark in zip(job_ids, marks, strict=True) if mark)
        clocks.append(StalledClock(keys, to_int(checked_at), max(int(ttl_ms), 0), marked))
    return clocks


def existing_schedulers(client: Client, keys: QueueKeys, ids: Sequence[str]) -> frozenset[str]:
    """Which of these schedulers still exist, by the rule of the stalled check (5.13).

    Args:
        ids: ids of schedulers.
    """
    reads = [(("EXISTS", keys.scheduler(i)), ("ZSCORE", keys("repeat"), i)) for i in ids]
    return frozenset(
        scheduler
        for scheduler, (record, score) in zip(ids, read_groups(client, reads), strict=True)
        if checked(record) or checked(score) is not None
    )


def jobs_of_schedulers(client: Client, jobs: Iterable[ActiveJob]) -> frozenset[JobKey]:
    """The jobs whose scheduler still exists. A stalled check never fails such jobs."""
    live: set[JobKey] = set()
    for keys, own in grouped((job for job in jobs if job.scheduler), lambda job: job.keys).items():
        known = existing_schedulers(client, keys, sorted({str(job.scheduler) for job in own}))
        live.update(job.key for job in own if job.scheduler in known)
    return frozenset(live)
