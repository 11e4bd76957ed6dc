"""Which jobs a plain restart interrupts, and which of them then fail for good.

Two answers, since whether an app finishes its jobs when it is told to leave cannot be seen from
outside: Node catches SIGINT and SIGTERM for itself, whatever the app does. The worst case is an
app that ends at once: every job of its processes is interrupted. The best case is one that goes on
until the manager kills it: interrupted is what then still runs.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from qctl.connection.address import Client
from qctl.errors import ReplyError
from qctl.manage.protocol import ManagedProcess
from qctl.ops.jobs.estimate import Durations, quantile, remaining_runs_s
from qctl.ops.processes.targets import Connections
from qctl.wire.keys import QueueKeys
from qctl.wire.read import heartbeats
from qctl.wire.read.active import ActiveJob
from qctl.wire.read.heartbeats import Heartbeat
from qctl.wire.read.stalled_check import existing_schedulers

# From the start of a process until its worker starts; a system's clock is set by seconds at times.
_LONGEST_START_S, _CLOCK_S = 60.0, 2.0


@dataclass(frozen=True, slots=True)
class JobRef:
    """A job by queue and id."""

    queue: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobAtRisk:
    """An active job, and what a plain restart does to it.

    Args:
        runtime_s: how long it has run.
        remaining_p50_s, remaining_p95_s: how long it probably still takes, by recent jobs of its
            name that ran at least as long; None when there is none.
        held_by: ``target`` when a process to be restarted has it, ``other`` when another worker
            has, ``unknown`` when that cannot be told, ``nobody`` when it has stalled.
        stalled_count: how often it has stalled so far.
        is_exempt: it is a job of a scheduler; those never stall too often (wire format 5.13).
        interrupted: by a restart now, if the app does not finish its jobs first.
        interrupted_if_handled: if it does; None when the time that it gets is not known.
        fails_for_good: at its next stall, whatever causes it, by the limit that is assumed.
    """

    queue: str
    id: str
    name: str | None
    runtime_s: float | None
    remaining_p50_s: float | None
    remaining_p95_s: float | None
    lock_ttl_ms: int | None
    worker: str | None
    held_by: str
    stalled_count: int
    is_exempt: bool
    interrupted: bool
    interrupted_if_handled: bool | None
    fails_for_good: bool

    @property
    def ref(self) -> JobRef:
        return JobRef(self.queue, self.id)


class Holders:
    """Who has the jobs of some queues.

    Args:
        processes: those to be restarted; None for all workers, wherever they run.
        connections: who is connected; None when Redis does not tell.
        beats: of qctl's own workers, by the owner of their locks.
    """

    def __init__(
        self,
        processes: Sequence[ManagedProcess] | None,
        connections: Connections | None,
        beats: Mapping[str, Heartbeat],
    ) -> None:
        self._processes = processes
        self._connections = connections
        self._beats = beats
        # By queue, the names of the workers of the target and of all others; None for one without.
        self._own: dict[str, set[str | None]] = {}
        self._others: dict[str, set[str | None]] = {}
        if connections is not None:
            mine = {w.client_id for p in processes or () for w in connections.owned.get(p.key, ())}
            for worker in connections.workers:
                names = self._own if worker.client_id in mine else self._others
                names.setdefault(worker.queue, set()).add(worker.worker_name)

    def of(self, job: ActiveJob) -> str:
        """See ``JobAtRisk.held_by``.

        ``other`` needs proof: a job is in danger unless somebody else is known to have it. A name
        proves it only where every process of the target shows a worker of the queue, under another
        name: one behind a proxy shows none, and one that is closing shows none any more, though its
        job still runs. One without a name proves nothing: it leaves the name in a job that another
        one had before.
        """
        if job.is_orphan:
            return "nobody"
        if self._processes is None:
            return "target"
        if self._connections is None:
            return "unknown"
        beat = self._beats.get(heartbeats.owner_of(job.lock_token))
        if beat is not None and self._runs_in_target(beat):
            return "target"
        queue, name = job.keys.name, beat.name if beat is not None else job.worker
        own = name in self._own.get(queue, ())
        others = name in self._others.get(queue, ())
        if own and not others:
            return "target"
        is_renamed = beat is not None or None not in self._own.get(queue, ())
        is_named = others and not own and is_renamed and self._is_seen(queue)
        return "other" if is_named or (beat is not None and _lives_here(beat)) else "unknown"

    def _is_seen(self, queue: str) -> bool:
        """Whether each process of the target shows a worker of the queue."""
        owned = self._connections.owned if self._connections is not None else {}
        return all(
            any(worker.queue == queue for worker in owned.get(process.key, ()))
            for process in self._processes or ()
        )

    def handled(self, process: ManagedProcess) -> bool | None:
        """Whether its workers finish their jobs when told to leave; None when that is not known.

        qctl's own do, and are known by their heartbeats. What the last restart of an app did to its
        jobs (``past_restarts``) proves neither: jobs may have ended in time by chance, or taken
        longer than the app was given.
        """
        if process.target.startswith("qctl:"):
            return True
        connections = self._connections
        workers = connections.owned.get(process.key, ()) if connections else ()
        named = {(beat.queue, beat.name) for beat in self._beats.values()}
        ours = [(worker.queue, worker.worker_name) in named for worker in workers]
        return True if ours and all(ours) else None

    def _runs_in_target(self, beat: Heartbeat) -> bool:
        return beat.host == socket.gethostname() and beat.pid in self._pids

    @cached_property
    def _pids(self) -> frozenset[int]:
        """Of the target's processes and all below them: a shell or npm may stand in between."""
        from qctl.manage.sockets import process_tree  # noqa: PLC0415 - psutil costs 30 ms

        roots = [process.pid for process in self._processes or () if process.pid]
        return frozenset(pid for root in roots for pid in process_tree(root))


def _lives_here(beat: Heartbeat) -> bool:
    """Whether the very process that beats runs on this host.

    A container may share the host's name and have pids of its own: a process of this host that has
    such a pid has been started at another time than the worker.
    """
    if beat.host != socket.gethostname():
        return False
    import psutil  # noqa: PLC0415 - only where qctl's workers run

    try:
        started_s = psutil.Process(beat.pid).create_time()
    except (psutil.Error, ValueError):
        return False
    return 0 <= beat.started_ms / 1000 - started_s + _CLOCK_S < _LONGEST_START_S


def read_beats(client: Client, jobs: Iterable[ActiveJob], prefix: str) -> dict[str, Heartbeat]:
    """qctl's own workers by the owner of their locks; none where this user may not see them."""
    try:
        found = {beat.owner: beat for beat in heartbeats.read_all(client, prefix)}
        return found | heartbeats.read(client, (heartbeats.owner_of(j.lock_token) for j in jobs))
    except ReplyError:
        return {}


def jobs_at_risk(
    client: Client,
    jobs: Sequence[ActiveJob],
    holders: Holders,
    durations: Durations,
    *,
    kill_after_s: float | None,
    max_stalled_count: int,
    now_ms: int,
) -> tuple[JobAtRisk, ...]:
    """What a plain restart does to each active job.

    Args:
        kill_after_s: what jobs get to end in once the process is told to leave; infinite for as
            long as they take; None if unknown.
        max_stalled_count: the workers' ``maxStalledCount``.
        now_ms: by this host's clock, epoch milliseconds.
    """
    exempt = _jobs_of_schedulers(client, jobs)
    # Where jobs may take as long as they do, there is no worst case.
    is_timed = kill_after_s != math.inf
    found = []
    for job in jobs:
        elapsed_s = max(now_ms - job.started_at_ms, 0) / 1000 if job.started_at_ms else None
        remaining = remaining_runs_s(job, elapsed_s, durations)
        p50_s, p95_s = quantile(remaining, 0.5), quantile(remaining, 0.95)
        held_by = holders.of(job)
        endangered = is_timed and held_by in {"target", "unknown"}
        is_exempt = job.key in exempt
        found.append(
            JobAtRisk(
                queue=job.keys.name,
                id=job.id,
                name=job.name,
                runtime_s=_rounded(elapsed_s),
                remaining_p50_s=_rounded(p50_s),
                remaining_p95_s=_rounded(p95_s),
                lock_ttl_ms=job.lock_ttl_ms,
                worker=job.worker,
                held_by=held_by,
                stalled_count=job.stalled_count,
                is_exempt=is_exempt,
                interrupted=endangered,
                interrupted_if_handled=_outlasts(p50_s, kill_after_s) if endangered else False,
                fails_for_good=job.name is not None
                and not is_exempt
                and job.stalled_count + 1 > max_stalled_count,
            )
        )
    return tuple(found)


def _outlasts(remaining_s: float | None, kill_after_s: float | None) -> bool | None:
    """Whether a job runs longer than it is given; what is not known to end in time does."""
    if kill_after_s is None:
        return None
    return remaining_s is None or remaining_s >= kill_after_s


def _jobs_of_schedulers(
    client: Client, jobs: Sequence[ActiveJob]
) -> frozenset[tuple[QueueKeys, str]]:
    """Those whose scheduler still exists."""
    live: set[tuple[QueueKeys, str]] = set()
    for keys in sorted({job.keys for job in jobs if job.scheduler}):
        own = [job for job in jobs if job.keys == keys and job.scheduler]
        known = existing_schedulers(client, keys, sorted({str(job.scheduler) for job in own}))
        live.update(job.key for job in own if job.scheduler in known)
    return frozenset(live)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
