"""How long the last completed jobs of queues ran."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qctl.connection.address import Client
from qctl.errors import ReplyError
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import to_int, value_or

# Jobs read of each queue.
RECENT_SAMPLE = 200


def recent_durations(
    client: Client, queues: Sequence[QueueKeys], sample: int = RECENT_SAMPLE
) -> dict[QueueKeys, dict[str, list[float]] | ReplyError]:
    """Seconds that the last completed jobs ran, by queue and job name, in two round trips.

    An error for a queue that cannot be read.

    Args:
        sample: jobs read of each queue.
    """
    windows = [("ZREVRANGE", keys("completed"), 0, sample - 1) for keys in queues]
    lists = client.pipeline(windows)
    fields = ("name", "processedOn", "finishedOn")
    reads = [
        ("HMGET", keys(job_id), *fields)
        for keys, ids in zip(queues, lists, strict=True)
        if not isinstance(ids, ReplyError)
        for job_id in ids
    ]
    rows = iter(client.pipeline(reads))
    return {
        keys: ids if isinstance(ids, ReplyError) else _durations([next(rows) for _ in ids])
        for keys, ids in zip(queues, lists, strict=True)
    }


def _durations(rows: Sequence[Any]) -> dict[str, list[float]]:
    durations: dict[str, list[float]] = {}
    for row in rows:
        name, started, finished = value_or(row, (None, None, None))
        started_ms, finished_ms = to_int(started), to_int(finished)
        if name is not None and started_ms is not None and finished_ms is not None:
            durations.setdefault(name, []).append(max(finished_ms - started_ms, 0) / 1000)
    return durations
