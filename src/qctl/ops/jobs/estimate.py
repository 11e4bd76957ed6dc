"""How long a running job probably still takes, from recent runs of jobs of its name."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from statistics import median

from qctl.connection.address import Client
from qctl.errors import ReplyError
from qctl.wire.keys import QueueKeys
from qctl.wire.read.active import RECENT_SAMPLE, ActiveJob, recent_durations

Durations = Mapping[QueueKeys, Mapping[str, Sequence[float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtimes:
    """How long jobs of one name usually run, by recent completed ones; None without any."""

    queue: str
    name: str
    active: int
    sample: int
    p50_s: float | None
    p95_s: float | None


def read_durations(
    client: Client, queues: Sequence[QueueKeys], sample: int = RECENT_SAMPLE
) -> Durations:
    """Durations of recent completed jobs, in seconds, by queue and job name; in two round trips.

    Args:
        sample: jobs looked at in each queue.
    """
    found = recent_durations(client, queues, sample)
    # An estimate is a convenience; a broken record must not stop a drain.
    return {keys: {} if isinstance(own, ReplyError) else own for keys, own in found.items()}


def quantile(ascending: Sequence[float], share: float) -> float | None:
    """The value that this share of them does not exceed (nearest rank); None without any."""
    if not ascending:
        return None
    return ascending[max(ceil(share * len(ascending)), 1) - 1]


def remaining_runs_s(
    job: ActiveJob, elapsed_s: float | None, durations: Durations
) -> Sequence[float]:
    """What jobs of its name that ran at least as long still took, in seconds, ascending.

    Empty without history, or when it already runs longer than every recent one.
    """
    if job.name is None or elapsed_s is None:
        return ()
    runs = durations.get(job.keys, {}).get(job.name, ())
    return sorted(run - elapsed_s for run in runs if run >= elapsed_s)


def remaining_s(job: ActiveJob, elapsed_s: float | None, durations: Durations) -> float | None:
    """The median of what jobs that ran at least as long still took, in seconds.

    None without history, or when it already runs longer than every recent one.
    """
    longer = remaining_runs_s(job, elapsed_s, durations)
    return round(median(longer), 1) if longer else None


def all_ended_s(remaining: Sequence[Sequence[float]], share: float) -> float | None:
    """When, with this probability, all of some jobs will have ended, in seconds from now.

    The jobs are taken to end independently of each other: the probability that all have ended by
    then is the product of each one's.

    Args:
        remaining: of each job, what comparable ones still took, ascending.

    Returns:
        0 without jobs; None when nothing is known of one of them.
    """
    if not all(remaining):
        return None
    longest_s = max((values[-1] for values in remaining), default=0.0)

    def likelihood(tenth: int) -> float:
        return prod(bisect_right(values, tenth / 10) / len(values) for values in remaining)

    return bisect_left(range(ceil(longest_s * 10)), share, key=likelihood) / 10


def usual_runtimes(jobs: Sequence[ActiveJob], durations: Durations) -> tuple[Runtimes, ...]:
    """Of the names of some active jobs, the most frequent first."""
    named = Counter((job.keys, job.name) for job in jobs if job.name is not None)
    found = []
    for (keys, name), active in named.most_common():
        runs = sorted(durations.get(keys, {}).get(name or "", ()))
        found.append(
            Runtimes(
                queue=keys.name,
                name=name or "",
                active=active,
                sample=len(runs),
                p50_s=quantile(runs, 0.5),
                p95_s=quantile(runs, 0.95),
            )
        )
    return tuple(found)
