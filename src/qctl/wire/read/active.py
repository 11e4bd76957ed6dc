"""The active jobs of queues and their locks: what a drain waits for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qctl.connection.address import Arg, Client
from qctl.errors import ReplyError
from qctl.wire.keys import JobRef, QueueKeys
from qctl.wire.replies import checked, to_int, value_or
from qctl.wire.states import is_marker

# Jobs whose durations are looked at to estimate how long a running one still takes.
RECENT_SAMPLE = 200


@dataclass(frozen=True, slots=True)
class ActiveJob:
    """A job in ``active``. ``lock_token`` and ``lock_ttl_ms`` are None when it has no lock.

    Args:
        name: None when the job's hash is gone.
        started_at_ms: when its present run began, epoch milliseconds.
        worker: name of the worker that took it, if that worker has one.
    """

    keys: QueueKeys
    id: str
    name: str | None
    started_at_ms: int | None
    worker: str | None
    stalled_count: int
    scheduler: str | None
    lock_token: str | None
    lock_ttl_ms: int | None

    @property
    def key(self) -> JobRef:
        return self.keys, self.id

    @property
    def is_orphan(self) -> bool:
        """Whether nobody holds it: its worker died, or was too busy to renew the lock."""
        return self.lock_token is None

    def was_renewed_since(self, earlier: ActiveJob) -> bool:
        """Whether its lock was renewed since an earlier look: then a living worker has it."""
        return (self.lock_ttl_ms or 0) > (earlier.lock_ttl_ms or 0)


def read_active(client: Client, queues: Sequence[QueueKeys]) -> list[ActiveJob]:
    """All active jobs of some queues, in two round trips, oldest first within a queue.

    The list is read once more behind the locks: a job that finished between the two has no lock
    either, but has left the list, and is left out.
    """
    lists = client.pipeline(_lists_of(queues))
    ids = [
        (keys, job_id)
        for keys, reply in zip(queues, lists, strict=True)
        for job_id in reversed(checked(reply))
        if not is_marker(job_id)
    ]
    commands: list[tuple[Arg, ...]] = []
    fields = ("name", "processedOn", "pb", "stc", "rjk")
    for keys, job_id in ids:
        lock = keys.lock(job_id)
        commands += [
            ("HMGET", keys(job_id), *fields),
            ("HLEN", keys(job_id)),
            ("GET", lock),
            ("PTTL", lock),
        ]
    busy = sorted({keys for keys, _ in ids})
    commands += _lists_of(busy)
    replies = iter(client.pipeline(commands) if commands else ())
    jobs = []
    for keys, job_id in ids:
        name, started, worker, stalls, scheduler = value_or(next(replies), [None] * len(fields))
        exists = value_or(next(replies), 0)
        # Whatever stands at the lock's key, it keeps the job from being taken for an orphan.
        token, ttl = value_or(next(replies), ""), checked(next(replies))
        jobs.append(
            ActiveJob(
                keys=keys,
                id=job_id,
                name=(name or "") if exists else None,
                started_at_ms=to_int(started),
                worker=worker,
                stalled_count=to_int(stalls) or 0,
                scheduler=scheduler,
                lock_token=token,
                lock_ttl_ms=ttl if token is not None and ttl >= 0 else None,
            )
        )
    still_there = {
        (keys, job_id)
        for keys, reply in zip(busy, replies, strict=True)
        for job_id in checked(reply)
    }
    return [job for job in jobs if not job.is_orphan or job.key in still_there]


def _lists_of(queues: Sequence[QueueKeys]) -> list[tuple[Arg, ...]]:
    return [("LRANGE", keys("active"), 0, -1) for keys in queues]


def recent_durations(
    client: Client, queues: Sequence[QueueKeys], sample: int = RECENT_SAMPLE
) -> dict[QueueKeys, dict[str, list[float]] | ReplyError]:
    """How long the last completed jobs ran, in seconds, by queue and job name.

    In two round trips; an error for a queue that cannot be read.

    Args:
        sample: jobs looked at in each queue.
    """
    windows = [("ZREVRANGE", keys("completed"), 0, sample - 1) for keys in queues]
    lists = client.pipeline(windows) if windows else []
    fields = ("name", "processedOn", "finishedOn")
    reads = [
        ("HMGET", keys(job_id), *fields)
        for keys, ids in zip(queues, lists, strict=True)
        if not isinstance(ids, ReplyError)
        for job_id in ids
    ]
    rows = iter(client.pipeline(reads) if reads else ())
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
