"""Which jobs a plain restart interrupts, and which of them then fail for good.

There are two answers, because qctl cannot see whether an app finishes its jobs on the stop signal.
(Node itself always handles SIGINT and SIGTERM, so the signal mask does not show what the app does
on them.) In the worst case, the app exits at once, and all its jobs are interrupted. In
the best case, the app finishes jobs until the manager kills it, and only the jobs that still run at
the kill are interrupted.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property

from qctl.connection.address import Client
from qctl.errors import ReplyError
from qctl.manage.protocol import ManagedProcess
from qctl.ops.jobs.estimate import quantile, remaining_runs_s
from qctl.ops.processes.targets import Connections
from qctl.wire.keys import QueueKeys
from qctl.wire.read import heartbeats
from qctl.wire.read.active import ActiveJob
from qctl.wire.read.finished import RecentRuns
from qctl.wire.read.heartbeats import Heartbeat
from qctl.wire.read.stalled_check import jobs_of_schedulers

# In seconds. A worker starts at most _MAX_START_S after its process. If a clock was adjusted, the
# worker may seem to have started before its process, by at most _CLOCK_S.
_MAX_START_S, _CLOCK_S = 60.0, 2.0


@dataclass(frozen=True, slots=True)
class JobRef:
    """A job by queue and id; ``Impact`` says in which form queues are named."""

    queue: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobAtRisk:
    """An active job, and what a plain restart does to it.

    Args:
        runtime_s: how long it has run.
        remaining_p50_s, remaining_p95_s: how long it probably still takes, by those recent jobs
            of its name that ran for at least ``runtime_s``; None if there are none.
        held_by: who runs the job: ``target`` (a process to be restarted), ``other`` (another
            worker), ``unknown``, or ``nobody`` (the job is stalled).
        stalled_count: how often the job has stalled so far.
        is_exempt: whether a scheduler made the job: such jobs never fail for stalling too often
            (wire format 5.13).
        interrupted: whether a restart now interrupts the job if the app exits at once; False if
            all processes of the target are qctl's own, which finish their jobs.
        interrupted_if_handled: whether a restart now interrupts the job even if the app finishes
            its jobs until it is killed; None if the time until the kill is unknown.
        fails_for_good: whether the job's next stall, for whatever reason, fails it for good.
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


class Holders:
    """Finds out who runs the active jobs.

    Args:
        processes: the processes to be restarted; None for all workers, wherever they run.
        connections: the connected workers; None if unknown.
        beats: heartbeats of qctl's own workers, by lock owner.
    """

    def __init__(
        self,
        processes: Sequence[ManagedProcess] | None,
        connections: Connections | None,
        beats: Mapping[str, Heartbeat],
    ) -> None:
        self._processes = processes
        self._knows_workers = connections is not None
        self._owned = connections.owned if connections is not None else {}
        self._beats = beats
        # By queue: names of the target's workers, and of all others; None for a nameless worker.
        self._target_names: dict[QueueKeys, set[str | None]] = {}
        self._other_names: dict[QueueKeys, set[str | None]] = {}
        target_ids = {w.id for p in processes or () for w in self._owned.get(p.identity, ())}
        for worker in connections.workers if connections is not None else ():
            names = self._target_names if worker.id in target_ids else self._other_names
            names.setdefault(worker.keys, set()).add(worker.worker_name)

    def holder_of(self, job: ActiveJob) -> str:
        """The value for ``JobAtRisk.held_by``.

        ``other`` needs proof, because a job is safe only if another worker certainly runs it. A
        heartbeat is proof if its process runs on this host, outside the target. The worker's name,
        from the heartbeat or else from the job, is proof only if CLIENT LIST shows three things:

        - A worker of the queue outside the target has this name.
        - No worker of the queue in the target has this name.
        - Every process of the target has a worker of the queue. Without this, a process of the
          target that is closing or behind a proxy may run the job: CLIENT LIST does not show it.

        If a worker of the target has no name, the name in the job proves nothing: it may be left
        from the worker that ran the job before.
        """
        if job.is_orphan:
            return "nobody"
        if self._processes is None:
            return "target"
        if not self._knows_workers:
            return "unknown"
        beat = self._beats.get(heartbeats.owner_of(job.lock_token))
        if beat is not None and beat.host == socket.gethostname() and beat.pid in self._pids:
            return "target"
        keys, name = job.keys, beat.name if beat is not None else job.worker
        in_target = name in self._target_names.get(keys, ())
        elsewhere = name in self._other_names.get(keys, ())
        if in_target and not elsewhere:
            return "target"
        is_current = beat is not None or None not in self._target_names.get(keys, ())
        is_proof = elsewhere and not in_target and is_current and self._is_seen(keys)
        return "other" if is_proof or (beat is not None and _lives_here(beat)) else "unknown"

    def _is_seen(self, keys: QueueKeys) -> bool:
        """Whether each process of the target has a connected worker of the queue."""
        return all(
            any(worker.keys == keys for worker in self._owned.get(process.identity, ()))
            for process in self._processes or ()
        )

    def handles_signal(self, process: ManagedProcess) -> bool | None:
        """True if the workers of a process finish their jobs on the stop signal; None if unknown.

        qctl's own workers do; their heartbeats identify them. For any other app, even the last
        restart (``past_restarts``) proves nothing: jobs may have ended in time by chance, or they
        may have been interrupted because they took longer than the kill timeout.
        """
        if process.target.startswith("qctl:"):
            return True
        if process.signal_trouble:
            return None
        named = {(beat.prefix, beat.queue, beat.name) for beat in self._beats.values()}
        workers = self._owned.get(process.identity, ())
        are_ours = [(*astuple(worker.keys), worker.worker_name) in named for worker in workers]
        return True if are_ours and all(are_ours) else None

    @cached_property
    def _pids(self) -> frozenset[int]:
        """Pids of the target's processes and their descendants: npm may have started the app."""
        from qctl.manage.host import process_tree  # noqa: PLC0415 - psutil costs 30 ms

        roots = [process.pid for process in self._processes or () if process.pid]
        return frozenset(pid for root in roots for pid in process_tree(root))


def _lives_here(beat: Heartbeat) -> bool:
    """Whether the process of this heartbeat runs on this host.

    A container may have the host's name but its own pids, so the pid alone proves nothing. The
    process that has this pid on this host must also have started just before the worker.
    """
    if beat.host != socket.gethostname() or beat.pid is None or beat.started_ms is None:
        return False
    import psutil  # noqa: PLC0415 - only where qctl's workers run

    try:
        started_s = psutil.Process(beat.pid).create_time()
    except (psutil.Error, ValueError):
        return False
    return 0 <= beat.started_ms / 1000 - started_s + _CLOCK_S < _MAX_START_S


def read_heartbeats(
    client: Client, jobs: Iterable[ActiveJob], prefixes: Iterable[str]
) -> dict[str, Heartbeat]:
    """Heartbeats of qctl's workers, by lock owner; empty if this user may not read them."""
    try:
        found = {beat.owner: beat for beat in heartbeats.read_all(client, *prefixes)}
        return found | heartbeats.read(client, (heartbeats.owner_of(j.lock_token) for j in jobs))
    except ReplyError:
        return {}


def jobs_at_risk(
    client: Client,
    jobs: Sequence[ActiveJob],
    holders: Holders,
    durations: RecentRuns,
    *,
    kill_after_s: float | None,
    max_stalled_count: int,
    now_ms: int,
    prefix: str | None,
) -> tuple[JobAtRisk, ...]:
    """What a plain restart does to each active job.

    Args:
        prefix: the prefix that is left out of the queues' names.
        kill_after_s: the time from the stop signal until the process is killed; None if unknown,
            infinite for qctl's own workers, because a restart does not interrupt their jobs.
        now_ms: by this host's clock, epoch milliseconds.
    """
    exempt = jobs_of_schedulers(client, jobs)
    has_limit = kill_after_s != math.inf
    found = []
    for job in jobs:
        runtime_s = job.runtime_s(now_ms)
        remaining = remaining_runs_s(job, runtime_s, durations)
        p50_s, p95_s = quantile(remaining, 0.5), quantile(remaining, 0.95)
        held_by = holders.holder_of(job)
        endangered = has_limit and held_by in {"target", "unknown"}
        # Whether the job probably still runs at the kill: True if past runs allow no estimate, None
        # if the time until the kill is unknown.
        outlasts = None if kill_after_s is None else p50_s is None or p50_s >= kill_after_s
        is_exempt = job.key in exempt
        found.append(
            JobAtRisk(
                queue=job.keys.label(prefix),
                id=job.id,
                name=job.name,
                runtime_s=_rounded(runtime_s),
                remaining_p50_s=_rounded(p50_s),
                remaining_p95_s=_rounded(p95_s),
                lock_ttl_ms=job.lock_ttl_ms,
                worker=job.worker,
                held_by=held_by,
                stalled_count=job.stalled_count,
                is_exempt=is_exempt,
                interrupted=endangered,
                interrupted_if_handled=endangered and outlasts,
                # A job without a name has lost its hash, so it cannot fail.
                fails_for_good=job.name is not None
                and not is_exempt
                and job.stalled_count + 1 > max_stalled_count,
            )
        )
    return tuple(found)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
