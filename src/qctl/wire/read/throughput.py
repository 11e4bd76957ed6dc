"""How many jobs completed in each hour, as far back as Redis knows.

There are two sources. The sorted set ``completed`` is exact, but only has jobs that are still kept.
The per-minute counts of BullMQ's metrics (wire format 5.21) go further back if workers write them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qctl.connection.address import Arg, Client
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import checked, read_groups, to_dict, to_int, value_or

_MINUTE_MS = 60_000
_HOUR_MS = 3_600_000
# One week, with a count for each minute.
_MAX_POINTS = 7 * 24 * 60


@dataclass(frozen=True, slots=True)
class Throughput:
    """Completed jobs of one queue.

    Args:
        source: ``completed``, ``metrics``, or ``none`` if Redis has neither.
        since_ms: the time from which jobs are counted, in epoch milliseconds; None if the source is
            ``none``.
        jobs: start of an hour (epoch milliseconds) → how many jobs completed in that hour. Hours
            that start before ``since_ms`` are left out.
    """

    keys: QueueKeys
    source: str
    since_ms: int | None
    jobs: Mapping[int, int]


def read_throughput(
    client: Client, queues: Sequence[QueueKeys], hours: Sequence[int]
) -> list[Throughput]:
    """Completed jobs per hour, in two round trips.

    Args:
        hours: starts of the hours to count, epoch milliseconds.
    """
    reads: list[list[tuple[Arg, ...]]] = [
        [
            ("ZRANGE", keys("completed"), 0, 0, "WITHSCORES"),
            ("HGET", keys("metrics:completed"), "prevTS"),
            ("LLEN", keys("metrics:completed:data")),
        ]
        for keys in queues
    ]
    starts = [_start(*row) for row in read_groups(client, reads)]
    wanted = [
        _counts(keys, source, since_ms, hours)
        for keys, (source, since_ms, _) in zip(queues, starts, strict=True)
    ]
    answers = read_groups(client, wanted)
    found = []
    for keys, (source, since_ms, head_ms), replies in zip(queues, starts, answers, strict=True):
        rows = [value_or(reply, 0) for reply in replies]
        if source == "metrics" and since_ms is not None:
            jobs = _by_hour(rows[0] or [], head_ms, since_ms, hours)
        else:
            after = [hour for hour in hours if since_ms is not None and hour >= since_ms]
            jobs = dict(zip(after, map(int, rows), strict=True))
        found.append(Throughput(keys, source, since_ms, jobs))
    return found


def _start(oldest: Any, previous: Any, points: Any) -> tuple[str, int | None, int]:
    """The source, the start of its counts, and the newest minute of the metrics, in epoch ms."""
    kept = [*to_dict(checked(oldest)).values()]
    kept_ms = to_int(kept[0]) if kept else None
    previous_ms = to_int(value_or(previous, None))
    length = min(int(value_or(points, 0)), _MAX_POINTS)
    if previous_ms is not None and length:
        # Workers still count the minute of prevTS. The list's newest minute is the one before.
        head_ms = (previous_ms // _MINUTE_MS - 1) * _MINUTE_MS
        since_ms = head_ms - (length - 1) * _MINUTE_MS
        if kept_ms is None or since_ms < kept_ms:
            return "metrics", since_ms, head_ms
    return ("completed", kept_ms, 0) if kept_ms is not None else ("none", None, 0)


def _counts(
    keys: QueueKeys, source: str, since_ms: int | None, hours: Sequence[int]
) -> list[tuple[Arg, ...]]:
    if since_ms is None:
        return []
    if source == "metrics":
        return [("LRANGE", keys("metrics:completed:data"), 0, _MAX_POINTS - 1)]
    return [
        ("ZCOUNT", keys("completed"), hour, f"({hour + _HOUR_MS}")
        for hour in hours
        if hour >= since_ms
    ]


def _by_hour(
    points: Sequence[str], head_ms: int, since_ms: int, hours: Sequence[int]
) -> dict[int, int]:
    """The number of jobs per hour, from per-minute counts, which are sorted newest first.

    Minutes after ``head_ms`` have no count yet, so their jobs are missing from the result.
    """
    jobs = {hour: 0 for hour in hours if hour >= since_ms}
    # In some time zones, hours do not begin at full hours of UTC.
    offset = min(jobs, default=0) % _HOUR_MS
    for index, count in enumerate(points):
        minute = head_ms - index * _MINUTE_MS
        hour = (minute - offset) // _HOUR_MS * _HOUR_MS + offset
        if hour in jobs:
            jobs[hour] += to_int(count) or 0
    return jobs
