"""Measures what grows in a queue: the event stream and the finished jobs that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qctl.connection.address import Arg, Client
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import read_groups, read_object, to_int, value_or

# BullMQ's default, used until the queue's ``meta`` key has a limit (wire format P1).
DEFAULT_MAX_EVENTS = 10_000
# At most this many jobs of each state are read, beginning with the newest.
_JOBS = 20
_DAY_MS = 86_400_000
_OPTIONS = {"completed": "removeOnComplete", "failed": "removeOnFail"}


@dataclass(frozen=True, slots=True)
class KeptJobs:
    """The finished jobs of one state, judged by the newest 20.

    Args:
        bounded: whether the options of any of these jobs limit the number or age of kept jobs.
        examined: how many jobs were read, at most 20.
        oldest_ms: when the oldest of all kept jobs ended.
        last_day: how many of the kept jobs ended in the last 24 hours. None if Redis refused the
            count, or if all kept jobs ended in that time: then the count may not cover a whole day.
    """

    keys: QueueKeys
    state: str
    bounded: bool
    examined: int
    oldest_ms: int | None
    last_day: int | None


def stream_lengths(client: Client, queues: Sequence[QueueKeys]) -> list[tuple[int, int]]:
    """For each queue, the length and the limit of its event stream, in one round trip."""
    reads = [(("XLEN", k("events")), ("HGET", k("meta"), "opts.maxLenEvents")) for k in queues]
    found = []
    for length, limit in read_groups(client, reads):
        maximum = to_int(value_or(limit, None))
        maximum = DEFAULT_MAX_EVENTS if maximum is None else maximum
        found.append((value_or(length, 0), maximum))
    return found


def kept_jobs(
    client: Client, places: Sequence[tuple[QueueKeys, str]], now_ms: int
) -> list[KeptJobs]:
    """The finished jobs of each queue and state (``completed`` or ``failed``), in two round trips.

    Args:
        now_ms: epoch milliseconds.
    """
    windows: list[list[tuple[Arg, ...]]] = [
        [
            ("ZREVRANGE", keys(state), 0, _JOBS - 1),
            ("ZRANGE", keys(state), 0, 0, "WITHSCORES"),
            ("ZCOUNT", keys(state), f"({now_ms - _DAY_MS}", "+inf"),
        ]
        for keys, state in places
    ]
    rows = read_groups(client, windows)
    reads = [
        [("HGET", keys(job_id), "opts") for job_id in value_or(newest, [])]
        for (keys, _), (newest, *_) in zip(places, rows, strict=True)
    ]
    found = []
    all_opts = read_groups(client, reads)
    for (keys, state), (_, oldest, count), opts in zip(places, rows, all_opts, strict=True):
        first = value_or(oldest, [])
        oldest_ms = to_int(first[1]) if first else None
        is_covered = oldest_ms is not None and oldest_ms <= now_ms - _DAY_MS
        found.append(
            KeptJobs(
                keys=keys,
                state=state,
                bounded=any(_is_bounded(value_or(text, None), _OPTIONS[state]) for text in opts),
                examined=len(opts),
                oldest_ms=oldest_ms,
                last_day=value_or(count, None) if is_covered else None,
            )
        )
    return found


def _is_bounded(opts: str | None, option: str) -> bool:
    """Whether the job's options limit how many finished jobs are kept (wire format 5.8)."""
    keep = read_object(opts).get(option)
    if isinstance(keep, bool):
        return keep
    if isinstance(keep, dict):
        return any(_at_least_0(keep.get(part)) for part in ("count", "age"))
    return _at_least_0(keep)


def _at_least_0(value: Any) -> bool:
    number = to_int(value)
    return number is not None and number >= 0
