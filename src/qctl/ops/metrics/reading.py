"""Figures for Prometheus: a reading of bounded size, for all queues, workers and processes.

However many queues there are, a reading takes at most four round trips more than ``status``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.errors import NotFoundError, ReplyError
from qctl.grouping import grouped
from qctl.ops.queues.status import ProcessStatus, QueueStatus, inspect_queues
from qctl.ops.times import utc_datetime
from qctl.wire.drain_record import OUTCOMES, RESULTS, read_drain_records
from qctl.wire.keys import QueueKeys
from qctl.wire.read import heartbeats
from qctl.wire.read.finished import FinishedCounts, read_finished_counts
from qctl.wire.read.heartbeats import Heartbeat
from qctl.wire.read.snapshot import Counts

DEFAULT_MAX_QUEUES = 1000
# The label of all queues beyond the limit.
OTHER = QueueKeys("", "(other)")


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """One queue, or the sum of all queues with the label ``(other)``.

    A sum is None (unknown) if one of its parts is unknown.

    Args:
        name, prefix: the queue's label.
        queues: the number of queues in the sum; 1 for one queue.
        oldest_waiting_s: how long the oldest waiting job has waited; None when no job waits, or if
            unknown.
        paused: how many of the queues are paused.
        workers: how many workers are connected; None if unknown.
        completed_total, failed_total: jobs that finished since BullMQ began to count them; None if
            no worker has the option ``metrics``.
    """

    name: str
    prefix: str
    queues: int
    counts: Counts
    oldest_waiting_s: float | None
    paused: int
    schedulers: int
    workers: int | None
    completed_total: int | None
    failed_total: int | None


@dataclass(frozen=True, slots=True)
class OwnWorkers:
    """qctl's own workers of one queue in one process target, as their heartbeats show.

    Args:
        queue, prefix: the queue's label.
        target: e.g. ``qctl:emails``; "" for workers without a supervisor.
        slots: how many jobs the workers can run at once.
        busy: how many jobs the workers run now.
        done: how many jobs have ended in these workers.

    ``slots``, ``busy`` and ``done`` are None if the number of one of the workers is unknown.
    """

    queue: str
    prefix: str
    target: str
    workers: int
    slots: int | None
    busy: int | None
    done: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LastDrain:
    """The drain that ended last: its outcome, its times, and its number of jobs by result.

    ``ended_at`` is None if the recorded time is not valid.
    """

    ended_at: datetime | None
    outcome: str
    completed: int
    failed: int
    retried: int
    interrupted: int | None
    recovered: int
    lost: int | None
    paused_s: float
    idle_s: float | None


@dataclass(frozen=True, slots=True)
class Drains:
    """All drains under the prefixes since qctl began to record them.

    Args:
        drains: number of drains by outcome; 0 for outcomes that never occurred.
        jobs: number of jobs by result; 0 for results that never occurred.
        last: None if there was no drain yet.
    """

    drains: Mapping[str, int]
    jobs: Mapping[str, int]
    last: LastDrain | None


@dataclass(frozen=True, slots=True)
class MetricsReading:
    """The JSON of ``qctl metrics``.

    Args:
        up: whether Redis answered in time and could be read.
        error: the kind of failure if ``up`` is False: ``unreachable``, ``timeout`` or ``failed``.
        queues_unreadable: the number of queues that exist and could not be read.
        drains: None if this Redis user may not read the record of drains.
    """

    read_at: datetime
    duration_s: float
    up: bool
    error: str | None = None
    queues: tuple[QueueFigures, ...] = ()
    queues_unreadable: int = 0
    own_workers: tuple[OwnWorkers, ...] = ()
    processes: tuple[ProcessStatus, ...] = ()
    drains: Drains | None = None
    remarks: tuple[str, ...] = ()


@dataclass
class QueueLabels:
    """The label of each queue.

    The first ``max_queues`` queues have their own labels, and all other queues have ``(other)``.
    A queue keeps its label for as long as it exists. If it moved from ``(other)`` to a label of its
    own, the sum of ``(other)`` would suddenly fall.
    """

    max_queues: int = DEFAULT_MAX_QUEUES
    labels: dict[QueueKeys, QueueKeys] = field(default_factory=dict)
    _with_own_label: int = 0
    # Readings and events are processed in different threads.
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def of(self, queue: QueueKeys) -> QueueKeys:
        """The label of one queue, which may be new."""
        with self._lock:
            if queue not in self.labels:
                has_own = self._with_own_label < self.max_queues
                self._with_own_label += has_own
                self.labels[queue] = queue if has_own else OTHER
            return self.labels[queue]

    def keep_only(self, queues: Collection[QueueKeys]) -> None:
        """Forget the queues that are gone, so that new queues can have labels of their own.

        Args:
            queues: all queues that still exist.
        """
        with self._lock:
            for gone in self.labels.keys() - queues:
                self._with_own_label -= self.labels.pop(gone) != OTHER


def read_metrics(
    client: Client, address: Address, settings: Settings, labels: QueueLabels
) -> MetricsReading:
    """Make one reading, and forget the labels of queues that are gone.

    Raises:
        UnreachableError: Redis is away.
        ReplyError: Redis refuses a command that every reading needs.
    """
    began = time.monotonic()
    try:
        found = inspect_queues(client, address, settings)
    except NotFoundError:
        # For metrics, a Redis without queues is not an error.
        labels.keep_only(())
        return MetricsReading(
            datetime.now(UTC),
            round(time.monotonic() - began, 6),
            up=True,
            drains=_drains(client, _prefixes_used(settings, ())),
        )
    statuses = found.report.queues
    totals = read_finished_counts(client, [QueueKeys(q.prefix, q.name) for q in statuses])
    existing = set(found.queues.keys)
    prefixes = _prefixes_used(settings, existing)
    figures = list(map(_figures, statuses, totals))
    beats: Sequence[Heartbeat] = ()
    beat_remarks: tuple[str, ...] = ()
    try:
        beats = heartbeats.read_all(client, *prefixes)
    except ReplyError as error:
        # A Redis user that has access to the queues may have no access to qctl's own keys.
        beat_remarks = (f"it is unknown whether qctl's own workers run: {error.what}",)
    broken = found.queues.broken
    broken_remarks = [f"queue {keys.name!r} cannot be read: {why.message}" for keys, why in broken]
    # A queue that cannot be read still exists, and keeps its label.
    labels.keep_only(existing | {QueueKeys(beat.prefix, beat.queue) for beat in beats})
    return MetricsReading(
        read_at=datetime.now(UTC),
        duration_s=round(time.monotonic() - began, 6),
        up=True,
        queues=_by_label(figures, labels),
        queues_unreadable=len(broken),
        own_workers=_own_workers(beats, labels),
        processes=found.report.processes,
        drains=_drains(client, prefixes),
        remarks=(*found.remarks, *broken_remarks, *beat_remarks),
    )


def _figures(status: QueueStatus, totals: FinishedCounts) -> QueueFigures:
    return QueueFigures(
        name=status.name,
        prefix=status.prefix,
        queues=1,
        counts=status.counts,
        oldest_waiting_s=status.oldest_waiting_s,
        paused=int(status.paused),
        schedulers=status.schedulers,
        workers=status.workers,
        completed_total=totals.completed,
        failed_total=totals.failed,
    )


def _by_label(figures: Sequence[QueueFigures], labels: QueueLabels) -> tuple[QueueFigures, ...]:
    rows: dict[QueueKeys, QueueFigures] = {}
    for row in figures:
        label = labels.of(QueueKeys(row.prefix, row.name))
        labelled = replace(row, name=label.name, prefix=label.prefix)
        rows[label] = _sum(rows[label], labelled) if label in rows else labelled
    return tuple(rows.values())


def _sum(one: QueueFigures, two: QueueFigures) -> QueueFigures:
    counts = [getattr(one.counts, f.name) + getattr(two.counts, f.name) for f in fields(Counts)]
    sums: dict[str, Any] = {}
    for name in ("queues", "paused", "schedulers", "workers", "completed_total", "failed_total"):
        parts = [getattr(row, name) for row in (one, two)]
        sums[name] = None if None in parts else sum(parts)
    return replace(one, counts=Counts(*counts), oldest_waiting_s=_oldest(one, two), **sums)


def _oldest(*rows: QueueFigures) -> float | None:
    waiting = [row for row in rows if row.counts.waiting or row.counts.prioritized]
    ages_s = [row.oldest_waiting_s for row in waiting if row.oldest_waiting_s is not None]
    return max(ages_s, default=None) if len(ages_s) == len(waiting) else None


def _prefixes_used(settings: Settings, queues: Iterable[QueueKeys]) -> list[str]:
    """The prefixes of these queues; also the settings' prefix, if the settings have only one."""
    single = settings.prefixes.single
    return sorted({*(queue.prefix for queue in queues), *([] if single is None else [single])})


def _drains(client: Client, prefixes: Sequence[str]) -> Drains | None:
    try:
        found = read_drain_records(client, prefixes)
    except ReplyError:
        # This Redis user may not read the records, so the figures are unknown and not 0.
        return None
    records = [record for record in found if record is not None]
    if len(records) < len(found):
        return None
    drains = {name: sum(record.drains[name] for record in records) for name in OUTCOMES}
    jobs = {name: sum(record.jobs[name] for record in records) for name in RESULTS}
    results = [record.last for record in records if record.last is not None]
    if not results:
        return Drains(drains, jobs, None)
    result = max(results, key=lambda result: result.at_ms)
    last = LastDrain(
        ended_at=utc_datetime(result.at_ms),
        outcome=result.outcome,
        **{name: getattr(result, name) for name in RESULTS},
        paused_s=result.paused_ms / 1000,
        idle_s=None if result.idle_ms is None else result.idle_ms / 1000,
    )
    return Drains(drains, jobs, last)


def _own_workers(beats: Sequence[Heartbeat], labels: QueueLabels) -> tuple[OwnWorkers, ...]:
    groups = grouped(
        beats, lambda beat: (labels.of(QueueKeys(beat.prefix, beat.queue)), beat.target)
    )
    return tuple(
        OwnWorkers(
            queue=label.name,
            prefix=label.prefix,
            target=target,
            workers=len(group),
            slots=_total(beat.concurrency for beat in group),
            busy=_total(beat.busy for beat in group),
            done=_total(beat.jobs_done for beat in group),
        )
        for (label, target), group in sorted(groups.items())
    )


def _total(numbers: Iterable[int | None]) -> int | None:
    """A sum; None if one of the numbers is unknown."""
    total = 0
    for number in numbers:
        if number is None:
            return None
        total += number
    return total
