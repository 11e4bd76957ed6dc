"""Connected workers and the processes they run in: what ``workers`` shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from qctl.config import Settings
from qctl.connect import Address, Client
from qctl.errors import FailedError, ReplyError
from qctl.manage.protocol import ManagedProcess
from qctl.ops.inspect import connected_workers, managed_processes
from qctl.ops.lookup import find_queues
from qctl.wire.clients import WorkerClient
from qctl.wire.discovery import discover
from qctl.wire.keys import QueueKeys


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One connected worker.

    Args:
        name: the worker's own name, or None.
        address: ``ip:port`` of its end of the connection.
        process: target of the managed process that it runs in, e.g. ``pm2:worker``; ``pid``,
            ``cpu_percent`` and ``rss_bytes`` are that process's.
        jobs: ids of the active jobs it has; None when its name does not tell it from the others.
        age_s: seconds since it connected.
    """

    queue: str
    name: str | None
    address: str
    pid: int | None
    process: str | None
    cpu_percent: float | None
    rss_bytes: int | None
    jobs: tuple[str, ...] | None
    age_s: int


@dataclass(frozen=True, slots=True)
class WorkersReport:
    """The JSON of ``qctl workers``."""

    workers: tuple[WorkerStatus, ...]


def inspect_workers(
    client: Client, address: Address, settings: Settings, names: Sequence[str] = ()
) -> tuple[WorkersReport, tuple[str, ...]]:
    """Workers of the named queues, or of all under the prefix; and remarks on what failed.

    Raises:
        NotFoundError: a named queue does not exist.
        FailedError: Redis does not grant CLIENT LIST.
    """
    prefix = settings.prefix
    wanted = {queue.keys.name for queue in find_queues(client, prefix, names)} if names else set()
    known = sorted(wanted) or discover(client, prefix)
    workers = connected_workers(client, prefix, known, address.db)
    if workers is None:
        raise FailedError(
            "this Redis user may not see who is connected",
            why="workers are found by CLIENT LIST",
            hint="grant it: ACL SETUSER NAME +client|list",
        )
    if wanted:
        workers = [worker for worker in workers if worker.queue in wanted]
    workers.sort(key=lambda worker: (worker.queue, worker.worker_name or "", worker.client_id))
    managed, remarks = managed_processes(settings)
    holders, more_remarks = _holders(workers, managed)
    in_hand = _jobs_in_hand(client, prefix, workers)
    rows = [
        _worker_status(w, holders.get(w.client_id), in_hand.get((w.queue, w.worker_name)))
        for w in workers
    ]
    return WorkersReport(tuple(rows)), remarks + more_remarks


def _holders(
    workers: Sequence[WorkerClient], managed: Sequence[ManagedProcess]
) -> tuple[dict[int, ManagedProcess | None], tuple[str, ...]]:
    """The managed process by the client id of the worker that it holds, and remarks."""
    if not workers or not managed:
        return {}, ()
    from qctl.ops.attribution import owners  # noqa: PLC0415 - loads psutil, 30 ms

    try:
        return {worker.client_id: process for worker, process in owners(workers, managed)}, ()
    except Exception as error:
        # Which process holds what is an extra; what the system denies must not hide the workers.
        return {}, (f"cannot tell which process holds which worker: {error}",)


def _worker_status(
    worker: WorkerClient, process: ManagedProcess | None, jobs: tuple[str, ...] | None
) -> WorkerStatus:
    return WorkerStatus(
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


def _jobs_in_hand(
    client: Client, prefix: str, workers: Sequence[WorkerClient]
) -> dict[tuple[str, str | None], tuple[str, ...]]:
    """Active job ids by queue and worker name, for names that one worker of the queue alone has."""
    from qctl.wire.active import read_active  # noqa: PLC0415

    counts = Counter((worker.queue, worker.worker_name) for worker in workers)
    unique = [key for key, number in counts.items() if key[1] and number == 1]
    jobs: dict[tuple[str, str | None], list[str]] = {key: [] for key in unique}
    try:
        active = read_active(client, [QueueKeys(prefix, q) for q in sorted({q for q, _ in unique})])
    except ReplyError:
        # What they have in hand is an extra; a broken queue must not hide the workers.
        return {}
    for job in active:
        if (job.keys.name, job.worker) in jobs:
            jobs[job.keys.name, job.worker].append(job.id)
    return {key: tuple(ids) for key, ids in jobs.items()}
