"""How long a running job probably still takes, from recent runs of jobs of its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from qctl.connect import Client
from qctl.errors import ReplyError
from qctl.wire.active import ActiveJob, recent_durations
from qctl.wire.keys import QueueKeys

Durations = Mapping[QueueKeys, Mapping[str, Sequence[float]]]


def read_durations(client: Client, queues: Sequence[QueueKeys]) -> Durations:
    """Durations of recent completed jobs, in seconds, by queue and job name."""
    durations = {}
    for keys in queues:
        try:
            durations[keys] = recent_durations(client, keys)
        except ReplyError:
            # An estimate is a convenience; a broken record must not stop a drain.
            durations[keys] = {}
    return durations


def remaining_s(job: ActiveJob, elapsed_s: float | None, durations: Durations) -> float | None:
    """The median of what jobs that ran at least as long still took, in seconds.

    None without history, or when it already runs longer than every recent one.
    """
    if job.name is None or elapsed_s is None:
        return None
    runs = durations.get(job.keys, {}).get(job.name, ())
    longer = [run - elapsed_s for run in runs if run >= elapsed_s]
    return round(median(longer), 1) if longer else None
