"""The active jobs of queues, with their locks. A drain waits for these jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.connection.address import Arg, Client
from qctl.wire.jobs import lock_reads, parse_lock
from qctl.wire.keys import JobKey, QueueKeys
from qctl.wire.replies import checked, read_groups, to_int, value_or
from qctl.wire.states import is_marker


@dataclass(frozen=True, slots=True)
class ActiveJob:
    """A job in ``active``. See ``parse_lock`` for ``lock_token`` and ``lock_ttl_ms``.

    Args:
        name: None if the job's hash is gone.
        started_at_ms: when the job's present run began, epoch milliseconds; None if unknown.
        worker: name of the worker that took the job; None if that worker has no name.
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
    def key(self) -> JobKey:
        return self.keys, self.id

    @property
    def is_orphan(self) -> bool:
        """Whether the job has no lock: its worker died, or was too busy to renew the lock."""
        return self.lock_token is None

    def runtime_s(self, now_ms: float) -> float | None:
        """How long the present run has lasted, by this host's clock; None if unknown."""
        return max(now_ms - self.started_at_ms, 0) / 1000 if self.started_at_ms else None

    def was_renewed_since(self, earlier: ActiveJob) -> bool:
        """Whether the lock has more time left than in ``earlier``: a living worker renewed it."""
        return (self.lock_ttl_ms or 0) > (earlier.lock_ttl_ms or 0)


def read_active(client: Client, queues: Sequence[QueueKeys]) -> list[ActiveJob]:
    """All active jobs of some queues, in two round trips; each queue's oldest runs come first.

    The lists are read again after the locks. If a job has no lock and is no longer in its list, it
    has finished, and is not returned.
    """
    lists = client.pipeline(_read_lists(queues))
    ids = [
        (keys, job_id)
        for keys, reply in zip(queues, lists, strict=True)
        for job_id in reversed(checked(reply))
        if not is_marker(job_id)
    ]
    fields = ("name", "processedOn", "pb", "stc", "rjk")
    busy = sorted({keys for keys, _ in ids})
    reads = [
        [("HMGET", keys(job_id), *fields), ("HLEN", keys(job_id)), *lock_reads(keys, job_id)]
        for keys, job_id in ids
    ]
    *rows, lists = read_groups(client, [*reads, _read_lists(busy)])
    jobs = []
    for (keys, job_id), (values, length, *lock) in zip(ids, rows, strict=True):
        name, started, worker, stalls, scheduler = value_or(values, [None] * len(fields))
        token, ttl_ms = parse_lock(*lock)
        jobs.append(
            ActiveJob(
                keys=keys,
                id=job_id,
                name=(name or "") if value_or(length, 0) else None,
                started_at_ms=to_int(started),
                worker=worker,
                stalled_count=to_int(stalls) or 0,
                scheduler=scheduler,
                lock_token=token,
                lock_ttl_ms=ttl_ms,
            )
        )
    still_active = {
        (keys, job_id) for keys, reply in zip(busy, lists, strict=True) for job_id in checked(reply)
    }
    return [job for job in jobs if not job.is_orphan or job.key in still_active]


def _read_lists(queues: Sequence[QueueKeys]) -> list[tuple[Arg, ...]]:
    return [("LRANGE", keys("active"), 0, -1) for keys in queues]
