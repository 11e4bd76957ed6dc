"""The waiting jobs, which a restart does not touch, and the workers that could run them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from qctl.connection.address import Client
from qctl.grouping import grouped
from qctl.ops.impact.scope import Scope
from qctl.ops.times import utc_datetime
from qctl.wire.keys import QueueKeys
from qctl.wire.read.active import ActiveJob
from qctl.wire.read.clients import worker_counts
from qctl.wire.read.snapshot import QueueSnapshot, read_snapshots
from qctl.wire.schedulers.iterations import Agenda, read_agendas


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueImpact:
    """The jobs and workers of one queue.

    Args:
        waiting_is_least: whether ``waiting`` is only a minimum: groups of BullMQ Pro may hold more.
        stalled: active jobs without a lock.
        workers, other_workers: how many belong to the target, and how many do not; None if unknown.
        next_due_at: when the next delayed or scheduled job is due; None if there is no such job, or
            if this is unknown.
    """

    name: str
    prefix: str
    paused: bool
    waiting: int
    waiting_is_least: bool
    prioritized: int
    delayed: int
    waiting_children: int
    active: int
    stalled: int
    workers: int | None
    other_workers: int | None
    next_due_at: datetime | None

    @property
    def keys(self) -> QueueKeys:
        return QueueKeys(self.prefix, self.name)


def queue_impacts(
    scope: Scope, active: Sequence[ActiveJob], agendas: Sequence[Agenda]
) -> tuple[QueueImpact, ...]:
    """The jobs and workers of each queue of a scope, in the scope's order."""
    due = {agenda.keys: agenda.next_delayed_ms for agenda in agendas}
    running = grouped(active, lambda job: job.keys)
    own_of, all_of = _workers(scope, running)
    found = []
    for snapshot in scope.queues.bullmq:
        keys, counts = snapshot.keys, snapshot.counts
        jobs = running.get(keys, [])
        own = own_of[keys]
        found.append(
            QueueImpact(
                name=keys.name,
                prefix=keys.prefix,
                paused=snapshot.paused,
                waiting=counts.waiting,
                waiting_is_least=snapshot.has_groups,
                prioritized=counts.prioritized,
                delayed=counts.delayed,
                waiting_children=counts.waiting_children,
                active=len(jobs),
                stalled=sum(job.is_orphan for job in jobs),
                workers=own,
                # A proxy can hide which workers the target has. If none is known, every worker of
                # the queue may belong to the target.
                other_workers=all_of[keys] - own if own else None,
                next_due_at=utc_datetime(due.get(keys)),
            )
        )
    return tuple(found)


def moved_queues(
    client: Client,
    snapshots: Sequence[QueueSnapshot],
    active: Sequence[ActiveJob],
    agendas: Sequence[Agenda] | None,
) -> tuple[QueueKeys, ...]:
    """The queues that looked idle at first, but in which a job has moved since then.

    A short job may start after the first reading and end before the second, so neither reading
    shows the job as active. Its queue is still found if, at the second reading, a job waits in the
    queue, or the queue's next delayed job is due at another time than at the first reading.

    Args:
        snapshots, active, agendas: the first reading; ``agendas`` is None if Redis refuses it.
    """
    running = {job.key for job in active}
    idle = [s for s in snapshots if s.paused or not _may_start(s)]
    keys = [snapshot.keys for snapshot in idle]
    due, due_now = (
        {agenda.keys: agenda.next_delayed_ms for agenda in found}
        for found in (agendas or (), read_agendas(client, keys) if agendas is not None else ())
    )

    def is_quiet(before: QueueSnapshot, after: object) -> bool:
        if not isinstance(after, QueueSnapshot):
            return False
        if before.paused:
            return after.paused  # Nothing starts in a paused queue.
        ids = (*before.active_ids, *after.active_ids)
        return (
            not _may_start(after)
            and running.issuperset((before.keys, job_id) for job_id in ids)
            and due.get(before.keys) == due_now.get(before.keys)
        )

    pairs = zip(idle, read_snapshots(client, keys), strict=True)
    return tuple(before.keys for before, after in pairs if not is_quiet(before, after))


def _may_start(snapshot: QueueSnapshot) -> bool:
    return bool(snapshot.backlog or snapshot.has_groups or snapshot.counts.waiting_children)


def _workers(
    scope: Scope, running: Mapping[QueueKeys, Sequence[ActiveJob]]
) -> tuple[dict[QueueKeys, int | None], Counter[QueueKeys]]:
    """By queue: how many workers the target has (None if unknown), and how many there are.

    Without a target, all workers count as workers of the target.

    Args:
        running: the active jobs of each queue.
    """
    connections, target = scope.connections, scope.target
    queues = [snapshot.keys for snapshot in scope.queues.bullmq]
    if connections is None:
        return dict.fromkeys(queues), Counter()
    total = worker_counts(connections.workers)
    own = total
    if target is not None:
        owned = (connections.owned.get(process.identity, ()) for process in target.processes)
        own = worker_counts(worker for workers in owned for worker in workers)
    held = {keys: sum(not job.is_orphan for job in running.get(keys, ())) for keys in queues}
    are_known = {
        keys: connections.workers.of(keys, running=held[keys]) is not None for keys in queues
    }
    return {keys: own[keys] if are_known[keys] else None for keys in queues}, total
