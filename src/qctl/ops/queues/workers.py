"""Workers and the processes in which they run: what ``qctl workers`` shows.

CLIENT LIST shows connected workers. qctl's own workers also write heartbeats with more details.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.errors import FailedError, ReplyError
from qctl.grouping import grouped
from qctl.ops.processes.attribution import known_holders
from qctl.ops.processes.managers import managed_processes
from qctl.ops.queues.find import queues_named_or_all
from qctl.ops.queues.names import QueueNameCache
from qctl.ops.times import utc_datetime
from qctl.wire.keys import QueueKeys
from qctl.wire.read import heartbeats
from qctl.wire.read.active import read_active
from qctl.wire.read.clients import (
    ConnectionId,
    WorkerClient,
    Workers,
    is_listed,
    list_workers_under,
    unnamed,
    why_unknown,
)
from qctl.wire.read.heartbeats import Heartbeat

# The queue and the name of a worker.
_Name = tuple[QueueKeys, str | None]


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker.

    Args:
        name: the worker's own name, or None.
        address: ``ip:port`` of the worker's end of the connection. None if only a heartbeat shows
            the worker: a worker of qctl that is closing, or that died a few seconds ago.
        pid: of the managed process in which the worker runs; if unknown, from the heartbeat.
        process: the target of that managed process, e.g. ``pm2:worker``.
        cpu_percent: of that managed process.
        rss_bytes: from the heartbeat; without a heartbeat, of that managed process.
        jobs: ids of the worker's active jobs; None if unknown.
        age_s: seconds since the worker connected; without a connection, since the worker started;
            None if unknown.
        host, started_at, quiet, jobs_done: only for qctl's own workers: where the worker runs, when
            it started, whether it has stopped taking jobs, and how many jobs it has ended.
    """

    queue: str
    prefix: str
    name: str | None
    address: str | None = None
    pid: int | None = None
    process: str | None = None
    cpu_percent: float | None = None
    rss_bytes: int | None = None
    jobs: tuple[str, ...] | None = None
    age_s: int | None = None
    host: str | None = None
    started_at: datetime | None = None
    quiet: bool | None = None
    jobs_done: int | None = None


@dataclass(frozen=True, slots=True)
class WorkersReport:
    """The JSON of ``qctl workers``."""

    workers: tuple[WorkerStatus, ...]


def inspect_workers(
    client: Client,
    address: Address,
    settings: Settings,
    names: Sequence[str] = (),
    *,
    exist: bool = False,
    with_jobs: bool = True,
    connected: Workers | None = None,
) -> tuple[WorkersReport, tuple[str, ...]]:
    """The workers of the named queues, or of every queue, and remarks on what failed.

    Args:
        exist: whether the named queues are known to exist, under the one prefix of the settings.
        with_jobs: include the jobs of each worker; to find them, every active job is read.
        connected: the connected workers, if just read; workers of other queues are ignored.

    Raises:
        NotFoundError: a named queue does not exist.
        FailedError: Redis does not list its clients, and there are no heartbeats.
    """
    prefixes = settings.prefixes
    cache = QueueNameCache(settings.state_home, address, prefixes)
    if exist:
        known = [QueueKeys(settings.prefix, name) for name in names]
    elif names:
        known = queues_named_or_all(client, prefixes, names).keys
    else:
        # The queues' names are needed to decode the names of connections.
        known = [*cache.get(client).queues]
    wanted = set(known) if names else None
    used = dict.fromkeys([keys.prefix for keys in known] or filter(None, [prefixes.single]))
    try:
        beats = [
            beat
            for beat in heartbeats.read_all(client, *used)
            if wanted is None or QueueKeys(beat.prefix, beat.queue) in wanted
        ]
    except ReplyError:
        # This Redis user may be allowed to read the queues, but not qctl's own keys.
        beats = []
    remarks: tuple[str, ...] = ()
    unlisted = [prefix for prefix in used if not is_listed(prefix)]
    found = connected
    if connected is None and len(unlisted) < len(used):
        found = list_workers_under(client, prefixes, known, address.db)
        remarks = tuple(f"only qctl's own workers: {why_unknown(p)[0]}" for p in unlisted)
    if found is None:
        what, hint = why_unknown(next(iter(unlisted or used)), client)
        if not beats:
            raise FailedError(what, why="workers are found by CLIENT LIST", hint=hint)
        found, remarks = Workers(), (f"only qctl's own workers: {what}",)
    elif found.any_queue:
        remarks += (unnamed(found.any_queue),)
    workers = sorted(
        (worker for worker in found if wanted is None or worker.keys in wanted),
        key=lambda w: (w.queue, w.keys.prefix, w.worker_name or "", w.id),
    )
    managed, remarks_on_managers = managed_processes(settings, lambda: [w.address for w in workers])
    holders, remarks_on_holders = known_holders(client, workers, managed)
    beat_of, unconnected = _matched(workers, beats)
    jobs = _active_jobs(client, workers, beats) if with_jobs else {}
    rows = []
    for worker in workers:
        keys, name = worker.keys, worker.worker_name
        beat = beat_of.get(worker.id)
        row = WorkerStatus(
            queue=keys.name,
            prefix=keys.prefix,
            name=name,
            address=worker.address,
            age_s=worker.age_s,
            jobs=jobs.get(beat.owner if beat else (keys, name)),
        )
        if (process := holders.get(worker.id)) is not None:
            row = replace(
                row,
                pid=process.pid,
                process=process.target,
                cpu_percent=process.cpu_percent,
                rss_bytes=process.rss_bytes,
            )
        rows.append(_add_heartbeat(row, beat) if beat else row)
    for beat in unconnected:
        age_s = None
        if beat.started_ms is not None:
            age_s = max(int(time.time() - beat.started_ms / 1000), 0)
        row = WorkerStatus(
            queue=beat.queue,
            prefix=beat.prefix,
            name=beat.name,
            age_s=age_s,
            jobs=jobs.get(beat.owner),
        )
        rows.append(_add_heartbeat(row, beat))
    rows.sort(key=lambda row: (row.queue, row.prefix, row.name or ""))
    return WorkersReport(tuple(rows)), remarks + remarks_on_managers + remarks_on_holders


def _matched(
    workers: Sequence[WorkerClient], beats: Sequence[Heartbeat]
) -> tuple[dict[ConnectionId, Heartbeat], list[Heartbeat]]:
    """Connection → heartbeat, for connected workers; and the heartbeats of all other workers.

    A connection and a heartbeat match by queue and name. If the name of a connected worker is not
    unique in its queue, the heartbeats with this name are in neither result.
    """
    by_name: dict[_Name, list[Heartbeat]] = grouped(beats, _name_of)
    counts = Counter((worker.keys, worker.worker_name) for worker in workers)
    beat_of = {
        worker.id: found[0]
        for worker in workers
        if counts[worker.keys, worker.worker_name] == 1
        and len(found := by_name.get((worker.keys, worker.worker_name), [])) == 1
    }
    return beat_of, [beat for beat in beats if not counts[_name_of(beat)]]


def _name_of(beat: Heartbeat) -> _Name:
    return QueueKeys(beat.prefix, beat.queue), beat.name


def _add_heartbeat(row: WorkerStatus, beat: Heartbeat) -> WorkerStatus:
    return replace(
        row,
        pid=row.pid or beat.pid,
        process=row.process or beat.target or None,
        rss_bytes=beat.rss_bytes or row.rss_bytes,
        host=beat.host,
        started_at=utc_datetime(beat.started_ms),
        quiet=beat.quiet,
        jobs_done=beat.jobs_done,
    )


def _active_jobs(
    client: Client, workers: Sequence[WorkerClient], beats: Sequence[Heartbeat]
) -> dict[str | _Name, tuple[str, ...]]:
    """Key → ids of active jobs; the key is the owner of a lock, or a worker's queue and name.

    Only owners with a heartbeat, and workers with a unique name in their queue, are included.
    """
    counts = Counter((worker.keys, worker.worker_name) for worker in workers)
    unique = [name for name, number in counts.items() if name[1] and number == 1]
    jobs: dict[str | _Name, list[str]] = {name: [] for name in unique}
    jobs |= {beat.owner: [] for beat in beats}
    queues = {keys for keys, _ in (*unique, *map(_name_of, beats))}
    try:
        active = read_active(client, sorted(queues))
    except ReplyError:
        # If a queue cannot be read, the workers are shown without jobs.
        return {}
    for job in active:
        for key in ((job.keys, job.worker), heartbeats.owner_of(job.lock_token)):
            if key in jobs:
                jobs[key].append(job.id)
    return {key: tuple(ids) for key, ids in jobs.items()}
