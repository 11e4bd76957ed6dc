"""Finished jobs: how many, how long they ran, and why they failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from qctl.connection.address import Client
from qctl.errors import ReplyError
from qctl.wire.jobs import read_fields
from qctl.wire.keys import QueueKeys
from qctl.wire.read.lists import windows
from qctl.wire.replies import checked, read_values, to_dict, to_int
from qctl.wire.states import FINISHED

# How many seconds completed jobs ran, by queue and job name.
RecentRuns = Mapping[QueueKeys, Mapping[str, Sequence[float]]]
# How many completed jobs of each queue are read for their durations.
RECENT_SAMPLE = 200
_WINDOW = 500


@dataclass(frozen=True, slots=True)
class FinishedCounts:
    """How many jobs of a queue finished since its metrics began; None if it has no metrics."""

    completed: int | None
    failed: int | None


def read_finished_counts(client: Client, queues: Sequence[QueueKeys]) -> list[FinishedCounts]:
    """The counts in BullMQ's metrics (wire format 5.21) of some queues, in one round trip."""
    commands = [
        ("HGET", keys(f"metrics:{result}"), "count") for keys in queues for result in FINISHED
    ]
    counts = map(to_int, read_values(client, commands))
    return [FinishedCounts(next(counts), next(counts)) for _ in queues]


def read_recent_runs(
    client: Client, queues: Sequence[QueueKeys], sample: int = RECENT_SAMPLE
) -> RecentRuns:
    """How long the last completed jobs of each queue ran, in two round trips.

    If a queue's ``completed`` cannot be read, the queue gets no runs. This is not an error, because
    the result is only for estimates.

    Args:
        sample: how many jobs of each queue to read.
    """
    lists = client.pipeline([("ZREVRANGE", keys("completed"), 0, sample - 1) for keys in queues])
    jobs = [
        (keys, job_id)
        for keys, ids in zip(queues, lists, strict=True)
        for job_id in (() if isinstance(ids, ReplyError) else ids)
    ]
    found: dict[QueueKeys, dict[str, list[float]]] = {keys: {} for keys in queues}
    rows = read_fields(client, jobs, "name", "processedOn", "finishedOn")
    for (keys, _), (name, started, finished) in zip(jobs, rows, strict=True):
        started_ms, finished_ms = to_int(started), to_int(finished)
        if name is not None and started_ms is not None and finished_ms is not None:
            ran_s = max(finished_ms - started_ms, 0) / 1000
            found[keys].setdefault(name, []).append(ran_s)
    return found


@dataclass(frozen=True, slots=True)
class FailedJob:
    """A job in ``failed``; ``at_ms`` is when it failed, epoch ms by its worker's clock."""

    keys: QueueKeys
    id: str
    at_ms: int
    reason: str


def failed_with(client: Client, keys: QueueKeys, reason: str) -> Iterator[str]:
    """Ids of failed jobs whose ``failedReason`` is ``reason``, newest first.

    Reads the whole ``failed`` set in windows of 500. If other clients add or remove failed jobs at
    the same time, some jobs may be missed.
    """
    seen: set[str] = set()
    for window in windows(client, keys, "failed", _WINDOW):
        reads = [("HGET", keys(entry.id), "failedReason") for entry in window]
        for entry, reply in zip(window, client.pipeline(reads), strict=True):
            if checked(reply) == reason and entry.id not in seen:
                seen.add(entry.id)
                yield entry.id


def failed_since(
    client: Client, since_ms: Mapping[QueueKeys, int], max_jobs: int
) -> list[FailedJob]:
    """The newest failed jobs of some queues, in the order of failure, in two round trips.

    Args:
        since_ms: for each queue, the time after which the jobs failed, epoch milliseconds.
        max_jobs: how many jobs of each queue to read at most.
    """
    limits = ("WITHSCORES", "LIMIT", 0, max_jobs)
    ranges = [
        ("ZREVRANGEBYSCORE", keys("failed"), "+inf", f"({since}", *limits)
        for keys, since in since_ms.items()
    ]
    failed_at = {
        (keys, job_id): to_int(score) or 0
        for keys, flat in zip(since_ms, read_values(client, ranges, ()), strict=True)
        for job_id, score in to_dict(flat).items()
    }
    rows = read_fields(client, list(failed_at), "failedReason")
    jobs = [
        FailedJob(keys, job_id, at_ms, reason or "")
        for ((keys, job_id), at_ms), (reason,) in zip(failed_at.items(), rows, strict=True)
    ]
    return sorted(jobs, key=lambda job: job.at_ms)
