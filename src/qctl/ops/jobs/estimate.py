"""Estimates when running jobs will end, from recent runs of jobs with the same names."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

from qctl.wire.read.active import ActiveJob
from qctl.wire.read.finished import RecentRuns


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtimes:
    """How long jobs of one name usually run.

    Args:
        active: how many jobs of this name run now.
        sample: how many recent completed jobs of this name were read.
        p50_s, p95_s: median and 95th percentile of their runtimes; None if ``sample`` is 0.
    """

    queue: str
    name: str
    active: int
    sample: int
    p50_s: float | None
    p95_s: float | None


def quantile(ascending: Sequence[float], share: float) -> float | None:
    """A quantile by nearest rank: ``share`` 0.5 gives the median. None if there are no values."""
    if not ascending:
        return None
    return ascending[max(ceil(share * len(ascending)), 1) - 1]


def remaining_runs_s(
    job: ActiveJob, elapsed_s: float | None, durations: RecentRuns
) -> Sequence[float]:
    """How many seconds past ``elapsed_s`` each recent job of the same name ran, ascending.

    Jobs that ran less than ``elapsed_s`` are left out; if all did, the result is empty.
    """
    if job.name is None or elapsed_s is None:
        return ()
    runs = durations.get(job.keys, {}).get(job.name, ())
    return sorted(run - elapsed_s for run in runs if run >= elapsed_s)


def remaining_s(job: ActiveJob, elapsed_s: float | None, durations: RecentRuns) -> float | None:
    """The median of ``remaining_runs_s``; None if that is empty."""
    from statistics import median  # noqa: PLC0415 - 5 ms for every drain

    runs = remaining_runs_s(job, elapsed_s, durations)
    return round(median(runs), 1) if runs else None


def all_ended_s(remaining: Sequence[Sequence[float]], share: float) -> float | None:
    """The seconds after which, with the probability ``share``, all of these jobs have ended.

    The jobs are assumed to end independently of each other: the probability that all have ended is
    the product of the probabilities for each job. The time is rounded up to 0.1 s.

    Args:
        remaining: the ``remaining_runs_s`` of each job.

    Returns:
        0 if there are no jobs; None if a job has no ``remaining_runs_s``.
    """
    if not all(remaining):
        return None
    longest_s = max((values[-1] for values in remaining), default=0.0)

    def likelihood(tenths: int) -> float:
        return prod(bisect_right(values, tenths / 10) / len(values) for values in remaining)

    return bisect_left(range(ceil(longest_s * 10)), share, key=likelihood) / 10


def usual_runtimes(
    jobs: Sequence[ActiveJob], durations: RecentRuns, prefix: str | None
) -> tuple[Runtimes, ...]:
    """For each name among the active jobs, its usual runtimes; most frequent names first.

    Args:
        prefix: the prefix that is left out of the queues' names.
    """
    named = Counter((job.keys, job.name) for job in jobs if job.name is not None)
    found = []
    for (keys, name), active in named.most_common():
        runs = sorted(durations.get(keys, {}).get(name or "", ()))
        found.append(
            Runtimes(
                queue=keys.label(prefix),
                name=name or "",
                active=active,
                sample=len(runs),
                p50_s=quantile(runs, 0.5),
                p95_s=quantile(runs, 0.95),
            )
        )
    return tuple(found)
