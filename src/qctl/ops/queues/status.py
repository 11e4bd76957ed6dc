"""The state of queues and processes: what ``qctl status`` shows.

Nothing is written to Redis. When the names are known, two round trips read all queues. Values that
the Redis user may not read are None.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from qctl.config.prefixes import Prefixes
from qctl.config.settings import Settings
from qctl.connection.address import Address, Arg, Client
from qctl.connection.forwarding import ForwardingClient
from qctl.connection.info import parse_info, product
from qctl.errors import NotFoundError, ReplyError, is_outage
from qctl.manage.protocol import Identity
from qctl.ops.doctor_errors import DoctorErrors, DoctorMemory
from qctl.ops.processes.attribution import known_holders
from qctl.ops.processes.managers import managed_processes
from qctl.ops.queues.advice import Note, Severity, notes
from qctl.ops.queues.find import Queues, queues_named_or_all
from qctl.ops.queues.names import QueueNameCache, run_id, server_id
from qctl.ops.queues.problems import Problem, problems_of, worst
from qctl.ops.times import utc_datetime
from qctl.wire.keys import QueueKeys, common_prefix
from qctl.wire.read.clients import (
    LIST_CLIENTS,
    WorkerClient,
    Workers,
    list_workers,
    list_workers_under,
    parse_workers,
    worker_counts,
)
from qctl.wire.read.info import INFO_REPLICATION, is_master, upstream
from qctl.wire.read.snapshot import Counts, QueueSnapshot, RateLimit

_INFO = ("INFO", "server")


@dataclass(frozen=True, slots=True)
class RedisInfo:
    """The server. If the user may not call INFO, all fields except ``url`` are None.

    Args:
        version: the version of Redis with which the server is compatible.
        server, server_version: the product, for example ``Redis`` or ``Valkey``, and its version.
        replica_of: ``host:port`` of the master, if the server is a replica; else None.
    """

    url: str
    version: str | None
    mode: str | None
    server: str | None = None
    server_version: str | None = None
    replica_of: str | None = None

    @property
    def remarks(self) -> tuple[str, ...]:
        """Remarks that concern everything read from this server."""
        if self.replica_of is None:
            return ()
        return (
            f"this Redis is a replica of {self.replica_of}: its data may be old, and workers are "
            "connected to its master",
        )

    @property
    def product(self) -> str:
        """The server's name and version for people; ``Redis ?`` if unknown."""
        return f"{self.server or 'Redis'} {self.server_version or self.version or '?'}"


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """A window of a rate limit.

    Args:
        used: how many jobs have started in the window; None for a limit set by hand, or if unknown.
        max: the queue's maximum; None if only the workers have a limit.
        left_s: how many seconds remain until the window ends.
        holds: True if the limit is reached, so that no job starts before the window ends; None if
            unknown.
    """

    used: int | None
    max: int | None
    left_s: float
    holds: bool | None


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """One queue.

    Args:
        client_version: the BullMQ version of the last Queue object that was created.
        paused_by: who paused the queue through qctl; None if unknown or not paused.
        waiting_is_least: whether ``waiting`` is only a minimum: groups of BullMQ Pro may hold more.
        oldest_waiting_s: how long the oldest waiting job has waited, in seconds.
        workers: number of connected workers; None if unknown.
        paused_at: since when the queue is paused; None if unknown or not paused.
        legacy_paused: how many of the waiting jobs are in BullMQ 5's ``paused`` list.
        rate_limited_s: for how long no job can start because of the rate limit; None if unknown,
            or if jobs can start.
        rate_limit: the current window of the rate limit; None without a window.
        concurrency: how many jobs may run at once in the queue; None if unlimited or broken.
        is_maxed: whether at least ``concurrency`` jobs are active.
        is_broken: whether the stored concurrency is not a number; BullMQ's scripts then fail.
        overdue: number of delayed jobs that are due, but that no worker has fetched yet.
        notes: what deserves attention, with the commands to type.
    """

    name: str
    prefix: str
    format: str
    client_version: str | None
    paused: bool
    paused_by: str | None
    counts: Counts
    waiting_is_least: bool
    oldest_waiting_s: float | None
    schedulers: int
    workers: int | None
    paused_at: datetime | None
    draining: bool
    legacy_paused: int
    rate_limited_s: float | None
    rate_limit: RateLimitStatus | None
    concurrency: int | None
    is_maxed: bool
    is_broken: bool
    overdue: int
    notes: tuple[Note, ...]

    @property
    def severity(self) -> Severity | None:
        """The severity of the queue's worst problem; None without a problem."""
        return worst(self.notes)


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One process under a manager, and the queues whose workers run in it.

    ``queues`` holds names, or ``NAME@PREFIX`` if the command works on several prefixes.
    """

    target: str
    key: str
    pid: int | None
    status: str
    uptime_s: float | None
    restarts: int | None
    cpu_percent: float | None
    rss_bytes: int | None
    queues: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The JSON of ``qctl status``.

    Args:
        queues_known_at: when the scan that found the cached queue names began; None if the names
            are not from the cache.
        other_prefixes: other prefixes that have queues, as far as the search for queues noticed
            them; None if there was no search.
        problems: what is wrong with the queues, worst first.
        doctor_errors: what ``qctl doctor`` found lately; None if no errors are known, which does
            not mean that there are none.
    """

    redis: RedisInfo
    queues: tuple[QueueStatus, ...]
    processes: tuple[ProcessStatus, ...]
    queues_known_at: datetime | None = None
    other_prefixes: tuple[str, ...] | None = None
    problems: tuple[Problem, ...] = ()
    doctor_errors: DoctorErrors | None = None

    def only_problems(self) -> StatusReport:
        """The report with only the queues that have a problem and the processes that serve them."""
        queues = tuple(queue for queue in self.queues if queue.severity is not None)
        labels = {label for problem in self.problems for label in problem.queues}
        return replace(self, queues=queues, processes=_serving(self.processes, labels))


@dataclass(frozen=True, slots=True)
class Inspection:
    """A report, its queues (also those that cannot be read), and remarks on what failed."""

    report: StatusReport
    queues: Queues
    remarks: tuple[str, ...]


def inspect_queues(
    client: Client, address: Address, settings: Settings, names: Sequence[str] = ()
) -> Inspection:
    """The named queues, or every queue, with their workers and this host's processes.

    Raises:
        NotFoundError: a named queue does not exist, or no name is given and no queue exists.
        ReplyError: a named queue cannot be read.
    """
    prefixes = settings.prefixes
    cache = QueueNameCache(settings.state_home, address, prefixes)
    needs_scan = not names or prefixes.needs_scan
    known = (cache.read() or cache.scan(client)) if needs_scan else None
    prober = _Prober(client)
    try:
        queues = queues_named_or_all(prober, prefixes, names, known)
        is_stale = known is not None and known.is_cached and known.server != prober.server_id()
    except NotFoundError:
        if known is None or not known.is_cached:
            raise
        is_stale = True
    if is_stale:
        # The cached names cannot be used: a queue was not found with them, perhaps because it is
        # newer, or they are from another run of the server.
        known = cache.scan(client)
        queues = queues_named_or_all(client, prefixes, names, known)
    redis = prober.redis(address)
    workers = prober.workers(prefixes, queues.keys if known is None else known.queues, address.db)
    if known is not None and known.is_cached:
        # A queue that is newer than the cached names is found if it has workers.
        more = known.including(worker.keys for worker in workers or ())
        if len(more.queues) > len(known.queues):
            known = more
            queues = queues_named_or_all(client, prefixes, names, known)
    prefix = common_prefix(queues.keys) or prefixes.single
    processes, remarks = _processes(client, settings, workers or [], prefix)
    remarks += redis.remarks
    known_at = None
    if known is not None and known.is_cached:
        known_at = datetime.fromtimestamp(known.scanned_at_s, UTC)
        if known.is_scan_due:
            cache.scan_in_background()
        remarks += (
            f"queues as of {known.age_s:.0f} s ago (newer queues only if they have workers), "
            f"because a full search takes {known.took_s:.1f} s; to search now: `qctl queues`",
        )
    now_s = time.time()
    statuses = tuple(queue_status(queue, workers, now_s) for queue in queues.readable)
    others = None if known is None else known.other_prefixes
    if names:
        processes = _serving(processes, {keys.label(prefix) for keys in queues.keys})
    remarked = zip(queues.readable, (status.notes for status in statuses), strict=True)
    problems = (*_unreadable(queues, prefix), *problems_of(remarked, prefix))
    memory = DoctorMemory(settings.state_home, address, prefixes, prober.server_id())
    report = StatusReport(redis, statuses, processes, known_at, others, problems, memory.recall())
    return Inspection(report, queues, remarks)


def _unreadable(queues: Queues, prefix: str | None) -> Iterator[Problem]:
    for keys, error in queues.broken:
        label = keys.label(prefix)
        yield Problem("unreadable", "error", (label,), f"{label}: cannot be read: {error.message}")


def _serving(
    processes: Sequence[ProcessStatus], labels: Collection[str]
) -> tuple[ProcessStatus, ...]:
    """The processes that serve some of these queues.

    If any queue has no known process, all processes without known queues are included, because each
    of them may serve that queue.
    """
    served = {label for process in processes for label in process.queues}
    has_gap = not served.issuperset(labels)
    return tuple(
        process
        for process in processes
        if (not set(labels).isdisjoint(process.queues) if process.queues else has_gap)
    )


class _Prober(ForwardingClient):
    """A client whose first pipeline also calls INFO and CLIENT LIST, which saves round trips.

    In a cluster with several masters, INFO and CLIENT LIST are called later, on each master.
    """

    def __init__(self, inner: Client) -> None:
        super().__init__(inner)
        self._replies: list[Any] = []
        # The reply to INFO; None before it is known.
        self._info: Any = None

    def pipeline(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        if self._replies or len(self.inner.masters()) > 1:
            return self.inner.pipeline(commands)
        own = (_INFO, LIST_CLIENTS, INFO_REPLICATION)
        (*self._replies,) = self.inner.pipeline([*own, *commands])
        replies, self._replies = self._replies[len(own) :], self._replies[: len(own)]
        self._info = self._replies[0]
        return replies

    def server_id(self) -> str:
        """Like ``names.server_id``."""
        return server_id(self.inner) if self._info is None else run_id(self._info)

    def redis(self, address: Address) -> RedisInfo:
        if self._replies:
            replication = self._replies[2]
        else:
            self._info, replication = _read_info(self.inner)
        return _redis_info(self._info, replication, address)

    def workers(self, prefixes: Prefixes, queues: Sequence[QueueKeys], db: int) -> Workers | None:
        """Like ``list_workers_under``."""
        if not self._replies or isinstance(self._replies[1], ReplyError):
            return list_workers_under(self.inner, prefixes, queues, db)
        found = parse_workers([str(self._replies[1])], prefixes, queues, db)
        # On a replica, an empty list proves nothing: workers are connected to its master.
        return found if found or is_master(self._replies[2]) else None


def redis_info(client: Client, address: Address) -> RedisInfo:
    info, replication = _read_info(client)
    return _redis_info(info, replication, address)


def _read_info(client: Client) -> list[Any]:
    return client.masters()[0].pipeline([_INFO, INFO_REPLICATION])


def _redis_info(reply: Any, replication: Any, address: Address) -> RedisInfo:
    if isinstance(reply, ReplyError):
        # INFO is not granted to this user, or a hosting service has renamed INFO.
        if is_outage(reply):
            raise reply
        return RedisInfo(str(address), None, None)
    fields = parse_info(str(reply))
    version, mode = fields.get("redis_version"), fields.get("redis_mode")
    above = upstream(replication)
    return RedisInfo(
        str(address), version, mode, *product(fields), None if above is None else above.master
    )


def count_workers(client: Client, keys: QueueKeys, db: int, running: int) -> int | None:
    """Number of workers of one queue, which has ``running`` locked jobs; None if unknown."""
    workers = list_workers(client, keys.prefix, [keys.name], db)
    own = None if workers is None else workers.of(keys, running=running)
    return None if own is None else worker_counts(own).total()


def workers_of(queue: QueueSnapshot, workers: Workers | None) -> list[WorkerClient] | None:
    """The workers of one queue; None if unknown."""
    return None if workers is None else workers.of(queue.keys, running=queue.counts.running)


def queue_status(queue: QueueSnapshot, connected: Workers | None, now_s: float) -> QueueStatus:
    """The status of a queue.

    Args:
        connected: the workers of all queues; None if unknown.
    """
    note = queue.pause_note
    workers = workers_of(queue, connected)
    paused_ms = queue.paused_since_ms
    return QueueStatus(
        name=queue.keys.name,
        prefix=queue.keys.prefix,
        format=queue.format,
        client_version=queue.client_version,
        paused=queue.paused,
        paused_by=str(note) if note and queue.paused else None,
        counts=queue.counts,
        waiting_is_least=queue.has_groups,
        oldest_waiting_s=_age_s(queue.oldest_waiting_ms, now_s),
        schedulers=queue.schedulers,
        workers=None if workers is None else worker_counts(workers).total(),
        paused_at=None if paused_ms is None or not queue.paused else utc_datetime(paused_ms),
        draining=queue.lease is not None,
        legacy_paused=queue.legacy_paused,
        rate_limited_s=queue.rate_limited_ms / 1000 if queue.rate_limited_ms else None,
        rate_limit=_rate_limit(queue.rate_limit),
        concurrency=queue.concurrency,
        is_maxed=queue.is_maxed,
        is_broken=queue.invalid_concurrency is not None,
        overdue=queue.overdue,
        notes=notes(queue, workers, all_named=connected is not None and connected.all_named),
    )


def _rate_limit(limit: RateLimit | None) -> RateLimitStatus | None:
    if limit is None:
        return None
    used = None if limit.is_manual else limit.used
    return RateLimitStatus(used, limit.maximum, limit.left_ms / 1000, limit.holds)


def _processes(
    client: Client, settings: Settings, workers: Sequence[WorkerClient], prefix: str | None
) -> tuple[tuple[ProcessStatus, ...], tuple[str, ...]]:
    """The managed processes, and remarks on what is unknown of them.

    Args:
        prefix: the prefix to leave out of the queues' names; None if they have several prefixes.
    """
    managed, remarks = managed_processes(settings, lambda: [w.address for w in workers])
    holders, more_remarks = known_holders(client, workers, managed)
    served: dict[Identity, set[str]] = {}
    for worker in (worker for worker in workers if worker.id in holders):
        name = worker.keys.label(prefix)
        served.setdefault(holders[worker.id].identity, set()).add(name)
    statuses = []
    for process in managed:
        started_ms = process.started_at_ms
        statuses.append(
            ProcessStatus(
                target=process.target,
                key=process.key,
                pid=process.pid,
                status=process.status,
                uptime_s=_age_s(started_ms, time.time()),
                restarts=process.restarts,
                cpu_percent=process.cpu_percent,
                rss_bytes=process.rss_bytes,
                queues=tuple(sorted(served.get(process.identity, ()))),
            )
        )
    return tuple(statuses), remarks + more_remarks


def _age_s(since_ms: float | None, now_s: float) -> float | None:
    return None if since_ms is None else round(max(now_s - since_ms / 1000, 0), 3)
