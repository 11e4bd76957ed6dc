"""How long a running job probably still takes, from recent runs of jobs of its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from statistics import median

from qctl.connect import Client
from qctl.errors import ReplyError
from qctl.wire.active import RECENT_SAMPLE, ActiveJob, recent_durations
from qctl.wire.keys import QueueKeys

Durations = Mapping[QueueKeys, Mapping[str, Sequence[float]]]


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


def remaining_s(job: ActiveJob, elapsed_s: float | None, durations: Durations) -> float | None:
    """The median of what jobs that ran at least as long still took, in seconds.

    None without history, or when it already runs longer than every recent one.
    """
    if job.name is None or elapsed_s is None:
        return None
    runs = durations.get(job.keys, {}).get(job.name, ())
    longer = [run - elapsed_s for run in runs if run >= elapsed_s]
    return round(median(longer), 1) if longer else None
