"""Figures for Prometheus: one reading of all queues, workers and processes, of bounded size.

A reading costs what ``status`` costs and three round trips more, however many queues there are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime

from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.errors import NotFoundError, ReplyError
from qctl.ops.queues.status import Inspection, ProcessStatus, QueueStatus, inspect_queues
from qctl.wire.drain_record import RESULTS, DrainResult, read_drain_record
from qctl.wire.keys import QueueKeys
from qctl.wire.read import heartbeats
from qctl.wire.read.finished_counts import FinishedCounts, read_finished_counts
from qctl.wire.read.heartbeats import Heartbeat
from qctl.wire.read.snapshot import Counts

DEFAULT_MAX_QUEUES = 1000
OTHER = "(other)"


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """One queue, or all beyond the limit under the name ``(other)``.

    Args:
        queues: how many queues this is the sum of.
        oldest_waiting_s: the longest of them; None when nothing waits.
        paused: how many of them are paused.
        workers: connected ones; None when Redis does not tell.
        completed_total, failed_total: since BullMQ's metrics of the queue began; None where no
            worker keeps them.
    """

    name: str
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
    """qctl's own workers of one queue in one process target, by their heartbeats.

    Args:
        target: e.g. ``qctl:emails``; "" for those that nobody supervises.
        slots: jobs that they can have in hand at once.
        busy: jobs in hand.
        done: jobs that ended in the workers that live now.
    """

    queue: str
    target: str
    workers: int
    slots: int
    busy: int
    done: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LastDrain:
    """The drain that ended last; the counts are of its jobs, the rest is as in its report."""

    ended_at: datetime
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
    """All drains under a prefix since the record began.

    Args:
        drains: how many ended with each outcome; all outcomes are there.
        jobs: jobs by what became of them; all results are there.
        last: None while there was none.
    """

    drains: Mapping[str, int]
    jobs: Mapping[str, int]
    last: LastDrain | None


@dataclass(frozen=True, slots=True)
class MetricsReading:
    """The JSON of ``qctl metrics``.

    Args:
        up: whether Redis answered in time and could be read.
        error: the kind of failure when it is not up: ``unreachable``, ``timeout`` or ``failed``.
        queues_unreadable: queues that exist and of which nothing is known.
        drains: what drains under the prefix came to; None when this user may not read the record.
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
class Names:
    """Under which name each queue is told: its own, or ``(other)`` once there are too many.

    A queue keeps its name for as long as it exists, so that no sum loses a part of itself.
    """

    most: int = DEFAULT_MAX_QUEUES
    shown: dict[str, str] = field(default_factory=dict)
    _own: int = 0
    # Readings and the events are followed in threads of their own.
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def of(self, queue: str) -> str:
        """The name of one queue, which may be new."""
        with self._lock:
            if queue not in self.shown:
                has_own = self._own < self.most
                self._own += has_own
                self.shown[queue] = queue if has_own else OTHER
            return self.shown[queue]

    def keep_only(self, queues: Collection[str]) -> None:
        """Forget all other queues: they are gone, and new ones may have their places."""
        with self._lock:
            for gone in self.shown.keys() - queues:
                self._own -= self.shown.pop(gone) != OTHER


def read_metrics(
    client: Client, address: Address, settings: Settings, names: Names
) -> MetricsReading:
    """One reading.

    Raises:
        UnreachableError: Redis is away.
        ReplyError: it refuses what every reading needs.
    """
    began = time.monotonic()
    try:
        found = inspect_queues(client, address, settings)
    except NotFoundError:
        # An empty Redis is a fact here and no mistake of who asks.
        names.keep_only(())
        return MetricsReading(
            datetime.now(UTC),
            round(time.monotonic() - began, 6),
            up=True,
            drains=_drains(client, settings.prefix),
        )
    statuses = found.report.queues
    totals = read_finished_counts(client, [QueueKeys(q.prefix, q.name) for q in statuses])
    figures = [_figures(*pair) for pair in zip(statuses, totals, strict=True)]
    beats, unseen = _heartbeats(client, settings.prefix)
    # A queue that cannot be read now is there all the same.
    there = {status.name for status in statuses} | {name for name, _ in found.queues.broken}
    names.keep_only(there | {beat.queue for beat in beats})
    return MetricsReading(
        read_at=datetime.now(UTC),
        duration_s=round(time.monotonic() - began, 6),
        up=True,
        queues=_folded(figures, names),
        queues_unreadable=len(found.queues.broken),
        own_workers=_own_workers(beats, names),
        processes=found.report.processes,
        drains=_drains(client, settings.prefix),
        remarks=(*_remarks(found), *unseen),
    )


def _remarks(found: Inspection) -> tuple[str, ...]:
    broken = (f"queue {name!r} cannot be read: {why.message}" for name, why in found.queues.broken)
    return (*found.remarks, *broken)


def _figures(status: QueueStatus, totals: FinishedCounts) -> QueueFigures:
    return QueueFigures(
        name=status.name,
        queues=1,
        counts=status.counts,
        oldest_waiting_s=status.oldest_waiting_s,
        paused=int(status.paused),
        schedulers=status.schedulers,
        workers=status.workers,
        completed_total=totals.completed,
        failed_total=totals.failed,
    )


def _folded(figures: Sequence[QueueFigures], names: Names) -> tuple[QueueFigures, ...]:
    rows: dict[str, QueueFigures] = {}
    for row in figures:
        name = names.of(row.name)
        rows[name] = _sum(rows[name], row) if name in rows else replace(row, name=name)
    return tuple(rows.values())


def _sum(one: QueueFigures, two: QueueFigures) -> QueueFigures:
    ages = [age for age in (one.oldest_waiting_s, two.oldest_waiting_s) if age is not None]
    counts = [getattr(one.counts, f.name) + getattr(two.counts, f.name) for f in fields(Counts)]
    return QueueFigures(
        name=one.name,
        queues=one.queues + two.queues,
        counts=Counts(*counts),
        oldest_waiting_s=max(ages, default=None),
        paused=one.paused + two.paused,
        schedulers=one.schedulers + two.schedulers,
        workers=_plus(one.workers, two.workers),
        completed_total=_plus(one.completed_total, two.completed_total),
        failed_total=_plus(one.failed_total, two.failed_total),
    )


def _plus(one: int | None, two: int | None) -> int | None:
    return two if one is None else one if two is None else one + two


def _heartbeats(client: Client, prefix: str) -> tuple[Sequence[Heartbeat], tuple[str, ...]]:
    """Those of qctl's own workers, and a remark where they cannot be read."""
    try:
        return heartbeats.read_all(client, prefix), ()
    except ReplyError as error:
        # An extra; whoever may see the queues need not be allowed to see qctl's keys.
        return (), (f"whether qctl's own workers run is unknown: {error.what}",)


def _drains(client: Client, prefix: str) -> Drains | None:
    try:
        record = read_drain_record(client, prefix)
    except ReplyError:
        # As with heartbeats; unknown, and so left out: not zero.
        return None
    return Drains(record.drains, record.jobs, None if record.last is None else _last(record.last))


def _last(result: DrainResult) -> LastDrain:
    return LastDrain(
        ended_at=datetime.fromtimestamp(result.at_ms / 1000, UTC),
        outcome=result.outcome,
        **{name: getattr(result, name) for name in RESULTS},
        paused_s=result.paused_ms / 1000,
        idle_s=None if result.idle_ms is None else result.idle_ms / 1000,
    )


def _own_workers(beats: Sequence[Heartbeat], names: Names) -> tuple[OwnWorkers, ...]:
    groups: dict[tuple[str, str], list[Heartbeat]] = {}
    for beat in beats:
        groups.setdefault((names.of(beat.queue), beat.process), []).append(beat)
    return tuple(
        OwnWorkers(
            queue=queue,
            target=target,
            workers=len(group),
            slots=sum(beat.concurrency for beat in group),
            busy=sum(beat.busy for beat in group),
            done=sum(beat.completed + beat.failed for beat in group),
        )
        for (queue, target), group in sorted(groups.items())
    )
