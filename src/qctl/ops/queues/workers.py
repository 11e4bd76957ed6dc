"""Workers and the processes they run in: what ``workers`` shows.

CLIENT LIST shows who is connected. qctl's own workers also leave heartbeats with more details.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.errors import FailedError, ReplyError
from qctl.manage.protocol import ManagedProcess
from qctl.ops.processes.managed import managed_processes
from qctl.ops.queues.find import find_queues
from qctl.ops.queues.names import QueueNameCache
from qctl.ops.times import utc_datetime
from qctl.wire.keys import QueueKeys
from qctl.wire.read import heartbeats
from qctl.wire.read.clients import WorkerClient, list_workers, why_unknown
from qctl.wire.read.heartbeats import Heartbeat


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker.

    Args:
        name: the worker's own name, or None.
        address: ``ip:port`` of its end of the connection; None for a worker of qctl's own that is
            not in CLIENT LIST: it is leaving and finishes its jobs, or has died within seconds.
        pid: of the managed process that it runs in, else its own from the heartbeat.
        process: target of the managed process that it runs in, e.g. ``pm2:worker``;
            ``cpu_percent`` is of that process, and so is ``rss_bytes`` without a heartbeat.
        jobs: ids of its active jobs; None if unknown.
        age_s: seconds since it connected.
        host, started_at, quiet, jobs_done: only of qctl's own workers: where and since when it
            runs, whether it takes no more jobs, how many jobs it has ended.
    """

    queue: str
    name: str | None
    address: str | None
    pid: int | None
    process: str | None
    cpu_percent: float | None
    rss_bytes: int | None
    jobs: tuple[str, ...] | None
    age_s: int
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
    connected: Sequence[WorkerClient] | None = None,
) -> tuple[WorkersReport, tuple[str, ...]]:
    """Workers of the named queues, or of all under the prefix; and remarks on what failed.

    Args:
        exist: the named queues are known to exist.
        with_jobs: include the jobs of each worker, for which every active job is read.
        connected: the connected workers, perhaps of other queues too, if they were just read.

    Raises:
        NotFoundError: a named queue does not exist.
        FailedError: Redis does not list its clients.
    """
    prefix = settings.prefix
    if names and not exist:
        find_queues(client, prefix, names)
    wanted = set(names)
    # The queues' names are needed to decode the names of connections.
    cache = QueueNameCache(settings.state_home, address, prefix)
    known = sorted(wanted) or cache.get(client).names
    beats = [b for b in _heartbeats(client, prefix) if not wanted or b.queue in wanted]
    remarks: tuple[str, ...] = ()
    workers = list_workers(client, prefix, known, address.db) if connected is None else [*connected]
    if workers is None and beats:
        workers, remarks = [], (f"only qctl's own workers: {why_unknown(prefix, client)[0]}",)
    if workers is None:
        what, hint = why_unknown(prefix, client)
        raise FailedError(what, why="workers are found by CLIENT LIST", hint=hint)
    if wanted:
        workers = [worker for worker in workers if worker.queue in wanted]
    workers.sort(key=lambda worker: (worker.queue, worker.worker_name or "", worker.client_id))
    managed, more_remarks = managed_processes(settings)
    holders, yet_more = _holders(client, prefix, workers, managed)
    beat_of, unconnected = _matched(workers, beats)
    by_name, by_owner = _active_jobs(client, prefix, workers, beats) if with_jobs else ({}, {})
    rows = []
    for worker in workers:
        beat = beat_of.get(worker.client_id)
        jobs = by_owner.get(beat.owner) if beat else by_name.get((worker.queue, worker.worker_name))
        rows.append(_worker_status(worker, holders.get(worker.client_id), beat, jobs))
    rows += [_unconnected(beat, by_owner.get(beat.owner)) for beat in unconnected]
    rows.sort(key=lambda row: (row.queue, row.name or ""))
    return WorkersReport(tuple(rows)), remarks + more_remarks + yet_more


def _heartbeats(client: Client, prefix: str) -> list[Heartbeat]:
    try:
        return heartbeats.read_all(client, prefix)
    except ReplyError:
        # A user who may read the queues may still not be allowed to read qctl's keys.
        return []


def _matched(
    workers: Sequence[WorkerClient], beats: Sequence[Heartbeat]
) -> tuple[dict[int, Heartbeat], list[Heartbeat]]:
    """Heartbeats by the client id of their worker, and those of workers not in CLIENT LIST.

    They are matched by name; a name that several workers have matches none.
    """
    by_name: dict[tuple[str, str | None], list[Heartbeat]] = {}
    for beat in beats:
        by_name.setdefault((beat.queue, beat.name), []).append(beat)
    counts = Counter((worker.queue, worker.worker_name) for worker in workers)
    beat_of = {
        worker.client_id: found[0]
        for worker in workers
        if counts[worker.queue, worker.worker_name] == 1
        and len(found := by_name.get((worker.queue, worker.worker_name), [])) == 1
    }
    return beat_of, [beat for beat in beats if not counts[beat.queue, beat.name]]


def _holders(
    client: Client,
    prefix: str,
    workers: Sequence[WorkerClient],
    managed: Sequence[ManagedProcess],
) -> tuple[dict[int, ManagedProcess], tuple[str, ...]]:
    """For the client id of each worker: the managed process that it runs in; and remarks."""
    if not workers or not managed:
        return {}, ()
    from qctl.ops.processes.attribution import holders  # noqa: PLC0415 - loads psutil, 30 ms

    try:
        return holders(client, prefix, workers, managed), ()
    except Exception as error:
        # The system may deny this, which must not hide the workers.
        return {}, (f"which process holds which worker is unknown: {error}",)


def _worker_status(
    worker: WorkerClient,
    process: ManagedProcess | None,
    beat: Heartbeat | None,
    jobs: tuple[str, ...] | None,
) -> WorkerStatus:
    row = WorkerStatus(
        queue=worker.queue,
        name=worker.worker_name,
        address=worker.address,
        pid=process.pid if process else None,
        process=process.target if process else None,
        cpu_percent=process.cpu_percent if process else None,
        rss_bytes=process.rss_bytes if process else None,
        jobs=jobs,
        age_s=worker.age_s,
    )
    return replace(row, **_from_heartbeat(beat, row)) if beat else row


def _unconnected(beat: Heartbeat, jobs: tuple[str, ...] | None) -> WorkerStatus:
    age_s = max(int(time.time() - beat.started_ms / 1000), 0)
    row = WorkerStatus(beat.queue, beat.name, None, None, None, None, None, jobs, age_s)
    return replace(row, **_from_heartbeat(beat, row))


def _from_heartbeat(beat: Heartbeat, row: WorkerStatus) -> dict[str, Any]:
    """The fields that come from the heartbeat, unless the managed process has them."""
    return {
        "pid": row.pid or beat.pid,
        "process": row.process or beat.process or None,
        "rss_bytes": beat.rss_bytes or row.rss_bytes,
        "host": beat.host,
        "started_at": utc_datetime(beat.started_ms),
        "quiet": beat.quiet,
        "jobs_done": beat.completed + beat.failed,
    }


def _active_jobs(
    client: Client, prefix: str, workers: Sequence[WorkerClient], beats: Sequence[Heartbeat]
) -> tuple[dict[tuple[str, str | None], tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Active job ids by queue and worker name, for names that are unique in the queue; and by the
    owner of the lock, for workers with a heartbeat.
    """
    from qctl.wire.read.active import read_active  # noqa: PLC0415

    counts = Counter((worker.queue, worker.worker_name) for worker in workers)
    unique = [key for key, number in counts.items() if key[1] and number == 1]
    jobs: dict[tuple[str, str | None], list[str]] = {key: [] for key in unique}
    owned: dict[str, list[str]] = {beat.owner: [] for beat in beats}
    queues = {queue for queue, _ in unique} | {beat.queue for beat in beats}
    try:
        active = read_active(client, [QueueKeys(prefix, queue) for queue in sorted(queues)])
    except ReplyError:
        # A broken queue must not hide the workers.
        return {}, {}
    for job in active:
        if (job.keys.name, job.worker) in jobs:
            jobs[job.keys.name, job.worker].append(job.id)
        owner = heartbeats.owner_of(job.lock_token)
        if owner in owned:
            owned[owner].append(job.id)
    return (
        {key: tuple(ids) for key, ids in jobs.items()},
        {owner: tuple(ids) for owner, ids in owned.items()},
    )
