"""Failed jobs: by the text they failed with, and the newest of many queues."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from qctl.wire.read.lists import windows
from qctl.wire.replies import checked, to_dict, to_int, value_or

_WINDOW = 500


@dataclass(frozen=True, slots=True)
class FailedJob:
    """A job that failed for good; ``at_ms`` by its worker's clock, epoch milliseconds."""

    keys: QueueKeys
    id: str
    at_ms: int
    reason: str


def failed_with(client: Client, keys: QueueKeys, reason: str) -> Iterator[str]:
    """Ids of failed jobs whose ``failedReason`` is ``reason``, newest first.

    Reads the whole ``failed`` set in windows of 500. Where others add or remove failed jobs at the
    same time, some may be missed.
    """
    seen: set[str] = set()
    for window in windows(client, keys, "failed", _WINDOW):
        reads = [("HGET", keys(entry.id), "failedReason") for entry in window]
        reasons = client.pipeline(reads)
        for entry, its_reason in zip(window, reasons, strict=True):
            if checked(its_reason) == reason and entry.id not in seen:
                seen.add(entry.id)
                yield entry.id


def failed_since(
    client: Client, since_ms: Mapping[QueueKeys, int], max_jobs: int
) -> list[FailedJob]:
    """The newest failed jobs of some queues, oldest failures first, in two round trips.

    Args:
        since_ms: by queue; only jobs that failed after this, epoch milliseconds.
        max_jobs: the most jobs of each queue.
    """
    ranges = [
        (
            "ZREVRANGEBYSCORE",
            keys("failed"),
            "+inf",
            f"({since}",
            "WITHSCORES",
            "LIMIT",
            0,
            max_jobs,
        )
        for keys, since in since_ms.items()
    ]
    replies = client.pipeline(ranges)
    found = [
        (keys, str(job_id), to_int(score) or 0)
        for keys, reply in zip(since_ms, replies, strict=True)
        for job_id, score in to_dict(value_or(reply, [])).items()
    ]
    reads = [("HGET", keys(job_id), "failedReason") for keys, job_id, _ in found]
    reasons = client.pipeline(reads)
    jobs = [
        FailedJob(keys, job_id, at_ms, value_or(reason, None) or "")
        for (keys, job_id, at_ms), reason in zip(found, reasons, strict=True)
    ]
    return sorted(jobs, key=lambda job: job.at_ms)
