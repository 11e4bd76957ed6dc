"""Makes the readings that ``top`` shows.

The cost of a reading depends on the screen, not on the number of jobs and queues. A reading covers
the queues in sight, and the workers and up to 200 active jobs of the chosen queue. The names of the
queues come from a scan. The longer a scan takes, the less often it is repeated.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from qctl.config.settings import Settings
from qctl.connection.address import Address, Arg, Client
from qctl.connection.forwarding import ForwardingClient
from qctl.errors import QctlError, ReplyError, is_outage
from qctl.ops.jobs.listing import list_jobs
from qctl.ops.jobs.model import Job
from qctl.ops.live.events import EventRates, Failure, OtherFailures, Rates
from qctl.ops.queues.find import read_existing
from qctl.ops.queues.status import QueueStatus, RedisInfo, queue_status, redis_info
from qctl.ops.queues.workers import WorkerStatus, inspect_workers
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import Workers, list_workers_under
from qctl.wire.read.discovery import survey
from qctl.wire.read.snapshot import QueueSnapshot, read_snapshots

T = TypeVar("T")

# One reading covers at most this many queues, however tall the screen is. To sort queues by a
# figure, all of them must be read, so more queues than this cannot be sorted by a figure.
MAX_QUEUES = 200
# The trouble of a queue that no longer exists.
GONE = "is gone"
# How many active jobs of the chosen queue are read each time: minimum and maximum.
_MIN_JOBS = 20
MAX_JOBS = 200
# If the chosen queue has more active jobs than this, the jobs of each worker are not shown, because
# every active job would have to be read.
MAX_JOBS_OF_WORKERS = 1000
# Each active job in sight takes two commands. Readings are made less often if their commands would
# exceed this rate.
MAX_COMMANDS_PER_S = 5000
# Points of a sparkline: the rates of this many readings are kept.
TREND_POINTS = 30
# The minimum time between two scans for queues.
MIN_SCAN_PAUSE_S = 30.0
# The pause before the next scan, as a multiple of the duration of the last scan: scans take at most
# 1 % of the time.
_SCAN_PAUSE_FACTOR = 100


@dataclass(frozen=True, slots=True)
class View:
    """What is on the screen.

    Args:
        queues: names of the queues in sight; or of all queues, if the screen sorts them by a
            figure. Only the first 200 are read.
        chosen: the queue whose workers and jobs are shown; None if no queue is chosen.
        jobs: how many active jobs to read; less than 20 counts as 20, more than 200 as 200.
    """

    queues: tuple[str, ...] = ()
    chosen: str | None = None
    jobs: int = 0


@dataclass(frozen=True, slots=True)
class LiveQueue:
    """A queue in sight.

    Args:
        status: None if the queue is gone or cannot be read; ``trouble`` then says why.
        rates: None if the queue has just come into sight, or if its events cannot be read.
        trend: jobs completed per second at the last readings, oldest first; None where unknown.
    """

    name: str
    status: QueueStatus | None
    trouble: str | None
    rates: Rates | None
    trend: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """All figures of one reading.

    Args:
        at: when the reading was made, by this host's clock.
        names: the names of all queues, or of those that the operator named.
        queues: the queues in sight, and the chosen one.
        workers, jobs: those of the chosen queue, stalled jobs first; None if they are unknown (see
            ``remarks`` and the queue's ``trouble``), or if no queue is chosen.
        jobs_total: how many jobs are active in the chosen queue, ``jobs`` included.
        failures: the last failures of all queues since ``top`` started, newest first. Failures of
            queues out of sight appear with a delay, and some never appear.
        commands: number of commands sent to Redis for this reading.
        took_ms: the time this reading took, Redis and network included.
        pause_s: the minimum time until the next reading.
        remarks: what could not be read, and why.
    """

    at: datetime
    redis: RedisInfo
    prefix: str
    context: str | None
    names: tuple[str, ...]
    queues: tuple[LiveQueue, ...]
    chosen: str | None
    workers: tuple[WorkerStatus, ...] | None
    jobs: tuple[Job, ...] | None
    jobs_total: int
    failures: tuple[Failure, ...]
    commands: int
    took_ms: float
    pause_s: float
    remarks: tuple[str, ...]


class LiveReader:
    """Makes readings of the named queues, or of all queues under the prefixes. Not thread-safe.

    Readings show a queue as ``NAME``, or as ``NAME@PREFIX`` if the settings have several prefixes
    or a named queue has another prefix.
    """

    def __init__(
        self, client: Client, address: Address, settings: Settings, named: Sequence[QueueKeys] = ()
    ) -> None:
        self._client = _CountingClient(client)
        self._address = address
        self._settings = settings
        single = settings.prefixes.single
        self._is_single = single is not None and all(keys.prefix == single for keys in named)
        self._keys: dict[str, QueueKeys] = {}
        self._queues_named = tuple(named)
        self._named = self._labels(named)
        self._found: tuple[str, ...] = ()
        self._scan_due = 0.0
        self._redis: RedisInfo | None = None
        self._events = EventRates(self._label)
        self._other_failures = OtherFailures(self._label)
        self._trends: dict[str, deque[float | None]] = {}
        self._remarks: list[str] = []

    def check(self) -> None:
        """Make sure that Redis answers and that the named queues exist.

        Raises:
            NotFoundError: a named queue does not exist.
            UnreachableError: Redis does not answer.
        """
        self._redis = redis_info(self._client, self._address)
        if self._queues_named:
            read_existing(self._client, self._queues_named)

    def keys_of(self, label: str) -> QueueKeys:
        """The queue that readings call ``label``."""
        return self._keys.get(label) or QueueKeys(self._settings.prefix, label)

    def _label(self, keys: QueueKeys) -> str:
        return keys.name if self._is_single else keys.full_name

    def _labels(self, queues: Iterable[QueueKeys]) -> tuple[str, ...]:
        labels = {self._label(keys): keys for keys in queues}
        self._keys |= labels
        return tuple(labels)

    def read(self, view: View) -> Reading:
        """One reading.

        Raises:
            UnreachableError: Redis does not answer; the next reading may succeed.
            ReplyError: Redis refuses a command that every reading needs.
        """
        try:
            return self._read(view)
        except QctlError as error:
            if is_outage(error):
                # After a failover, a server of another version may answer.
                self._redis = None
            raise

    def _read(self, view: View) -> Reading:
        began = time.monotonic()
        self._client.commands = 0
        if self._redis is None:
            self._redis = redis_info(self._client, self._address)
        names = self._named or self._discovered()
        self._remarks = [*self._redis.remarks]
        snapshots = self._snapshots(view)
        readable = {
            name: found for name, found in snapshots.items() if isinstance(found, QueueSnapshot)
        }
        prefixes = self._settings.prefixes
        # One call for all queues, because CLIENT LIST is slow.
        clients: Workers | None = Workers()
        if readable:
            known = [found.keys for found in readable.values()]
            clients = list_workers_under(self._client, prefixes, known, self._address.db)
        queues = self._queues(snapshots, clients)
        failures = self._or_remark(
            "no failures shown for queues out of sight",
            lambda: self._other_failures.read(
                self._client, [*map(self.keys_of, names)], [*map(self.keys_of, snapshots)]
            ),
        )
        self._events.add_failures(failures or ())
        if not self._client.commands:
            # No command has been sent so far, so find out whether Redis answers.
            self._client.call("PING")
        chosen = readable.get(view.chosen or "")
        workers: tuple[WorkerStatus, ...] | None = None
        jobs: tuple[Job, ...] | None = None
        total = 0
        if chosen is not None:
            workers = self._workers(chosen, clients)
            limit = min(max(view.jobs, _MIN_JOBS), MAX_JOBS)
            jobs = self._jobs(chosen, limit)
            # Jobs may have ended since the snapshot counted them. So if all active jobs were read,
            # the number of jobs read is the better total.
            is_cut = jobs is None or len(jobs) == limit
            total = chosen.counts.active if is_cut else len(jobs or ())
        return Reading(
            at=datetime.now(UTC),
            redis=self._redis,
            prefix=str(prefixes) if prefixes.single is None else prefixes.single,
            context=self._settings.context,
            names=names,
            queues=queues,
            chosen=view.chosen,
            workers=workers,
            jobs=jobs,
            jobs_total=total,
            failures=self._events.failures,
            commands=self._client.commands,
            took_ms=round((time.monotonic() - began) * 1000, 1),
            pause_s=self._client.commands / MAX_COMMANDS_PER_S,
            remarks=tuple(dict.fromkeys(self._remarks)),
        )

    def _discovered(self) -> tuple[str, ...]:
        began = time.monotonic()
        if began >= self._scan_due:
            self._found = self._labels(survey(self._client, self._settings.prefixes).queues)
            ended = time.monotonic()
            self._scan_due = ended + max(MIN_SCAN_PAUSE_S, (ended - began) * _SCAN_PAUSE_FACTOR)
        return self._found

    def _snapshots(self, view: View) -> dict[str, QueueSnapshot | ReplyError | None]:
        wanted = view.queues[:MAX_QUEUES]
        if view.chosen is not None and view.chosen not in wanted:
            wanted = (*wanted, view.chosen)
        keys = [*map(self.keys_of, wanted)]
        return dict(zip(wanted, read_snapshots(self._client, keys), strict=True))

    def _queues(
        self,
        snapshots: dict[str, QueueSnapshot | ReplyError | None],
        clients: Workers | None,
    ) -> tuple[LiveQueue, ...]:
        readable = [s.keys for s in snapshots.values() if isinstance(s, QueueSnapshot)]
        rates = (
            self._or_remark("no rates shown", lambda: self._events.read(self._client, readable))
            or {}
        )
        names = [self._label(keys) for keys in readable]
        now_s = time.time()
        self._trends = {name: self._trends.get(name, deque(maxlen=TREND_POINTS)) for name in names}
        rows = []
        for name, found in snapshots.items():
            if not isinstance(found, QueueSnapshot):
                trouble = GONE if found is None else found.what
                rows.append(LiveQueue(name, None, trouble, None, ()))
                continue
            rate = rates.get(found.keys)
            self._trends[name].append(None if rate is None else rate.completed_per_s)
            status = queue_status(found, clients, now_s)
            rows.append(LiveQueue(name, status, None, rate, tuple(self._trends[name])))
        return tuple(rows)

    def _workers(
        self, chosen: QueueSnapshot, clients: Workers | None
    ) -> tuple[WorkerStatus, ...] | None:
        found = self._or_remark(
            "no workers shown",
            lambda: inspect_workers(
                self._client,
                self._address,
                self._settings.under(chosen.keys.prefix),
                [chosen.keys.name],
                exist=True,
                with_jobs=chosen.counts.active <= MAX_JOBS_OF_WORKERS,
                connected=clients,
            ),
        )
        if found is None:
            return None
        report, remarks = found
        self._remarks += remarks
        return report.workers

    def _jobs(self, chosen: QueueSnapshot, limit: int) -> tuple[Job, ...] | None:
        if not chosen.counts.active:
            return ()
        found = self._or_remark(
            "no jobs shown", lambda: list_jobs(self._client, chosen, "active", limit=limit).jobs
        )
        if found is None:
            return None
        return tuple(sorted(found, key=lambda job: job.state != "stalled"))

    def _or_remark(self, what: str, read: Callable[[], T]) -> T | None:
        """The result of ``read``. If Redis refuses, add a remark "WHAT: error" and return None."""
        try:
            return read()
        except QctlError as error:
            if is_outage(error):
                raise
            self._remarks.append(f"{what}: {error.what}")
            return None


class _CountingClient(ForwardingClient):
    """Counts the commands, except the few that go to single nodes of a cluster."""

    commands = 0

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:
        self.commands += 1
        return super().call(*command, timeout_s=timeout_s)

    def pipeline(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        self.commands += len(commands)
        return super().pipeline(commands)
