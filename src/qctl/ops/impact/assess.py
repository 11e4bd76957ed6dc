"""What a restart now would do to the jobs, for ``qctl impact``.

Nothing is written. The cost is bounded. ``assess`` reads the active lists, 200 recent jobs and 200
schedulers of each queue, and 168 hourly counts of each of the busiest queues.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.errors import (
    FailedError,
    QctlError,
    RefusedError,
    ReplyError,
    UnreachableError,
    UsageError,
)
from qctl.grouping import grouped
from qctl.ops.drain.plan import process_plans
from qctl.ops.drain.restartable import default_strategy, require_restartable
from qctl.ops.drain.steps import ProcessPlan
from qctl.ops.impact.best_time import BestTime, best_time, last_hours
from qctl.ops.impact.downtime import Downtime, downtime
from qctl.ops.impact.jobs_at_risk import Holders, JobAtRisk, JobRef, jobs_at_risk, read_heartbeats
from qctl.ops.impact.recovery import Recovery, recovery_of
from qctl.ops.impact.safety import DataSafety, data_safety
from qctl.ops.impact.schedules import ScheduleImpact, schedule_impacts
from qctl.ops.impact.scope import Platform, Scope, find_scope
from qctl.ops.impact.verdict import Facts, Verdict, judge
from qctl.ops.impact.waiting_work import QueueImpact, moved_queues, queue_impacts
from qctl.ops.jobs.estimate import Runtimes, quantile, remaining_runs_s, usual_runtimes
from qctl.ops.processes.past_restarts import RestartRow, past_restarts, restart_row
from qctl.ops.processes.targets import Connections, require_listed
from qctl.ops.queues.find import Queues
from qctl.ops.queues.pause import require_rights
from qctl.ops.queues.versions import require_safe_pause
from qctl.ops.times import from_epoch_ms
from qctl.wire.drain_record import Resumer, read_resumers
from qctl.wire.keys import QueueKeys
from qctl.wire.read import rights
from qctl.wire.read.active import read_active
from qctl.wire.read.clients import Workers
from qctl.wire.read.finished import RecentRuns, read_recent_runs
from qctl.wire.read.server import ServerFacts, read_servers
from qctl.wire.read.stalled_check import read_clocks
from qctl.wire.read.throughput import read_throughput
from qctl.wire.schedulers.iterations import read_agendas

# History is read for this many queues: those with the most completed jobs.
MAX_HISTORIES = 10
_NO_CONNECTIONS = Connections(Workers(), {}, {})
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Impact:
    """The JSON of ``qctl impact`` (see docs/cli.md).

    If the queues have several prefixes, fields that name a queue contain ``NAME@PREFIX``.

    Args:
        target: what would be restarted; None for all workers of these queues.
        prefix: the key prefix of all queues; None if they have several.
        processes: the target's processes.
        stop_signal: the stop signal that the operator named; None if the operator named none. The
            stop signal of each process is in ``processes``.
        handles_signal: True if the workers finish their jobs on the stop signal; None if unknown.
        kill_after_s: the time from the stop signal until the process is killed; None if unknown,
            or if there is no limit.
        last_restarts: what the last restart of each process did; None if Redis refuses to show it.
        also: queues that the target serves but that were not named.
        foreign: queues that the target serves under prefixes that were not selected, or in other
            databases. The jobs of these queues were not read.
        jobs: the active jobs.
        interrupted: jobs that a plain restart now interrupts, in the worst case.
        interrupted_if_handled: the jobs of ``interrupted`` that the kill interrupts even if the app
            lets jobs run on after the stop signal; None if the kill timeout is unknown.
        fails_for_good: the jobs of ``interrupted`` that would fail for good.
        fails_if_handled: the jobs of ``interrupted_if_handled`` that would fail for good.
        unattributed: jobs of ``interrupted`` that may belong to another worker.
        max_stalled_count: how often a job may stall before it fails, according to qctl's config.
        away_s: how long no worker runs, as assumed for ``schedules``.
        schedules, data, best_time: None if they cannot be read.
        schedules_unread: how many schedulers are not in ``schedules``: repeatables of old versions,
            schedulers without a record, and all after the first 200 of a queue; None if unknown.
        unread: names of queues that cannot be read.
        bull: names of queues of Bull 3/4, whose jobs were not read.
    """

    asked_at: datetime
    verdict: Verdict
    target: str | None
    why_no_target: str
    prefix: str | None
    processes: tuple[ProcessPlan, ...]
    stop_signal: str | None
    handles_signal: bool | None
    kill_after_s: float | None
    last_restarts: tuple[RestartRow, ...] | None
    queues: tuple[QueueImpact, ...]
    also: tuple[str, ...]
    foreign: tuple[str, ...]
    unread: tuple[str, ...]
    bull: tuple[str, ...]
    jobs: tuple[JobAtRisk, ...]
    interrupted: tuple[JobRef, ...]
    interrupted_if_handled: tuple[JobRef, ...] | None
    fails_for_good: tuple[JobRef, ...]
    fails_if_handled: tuple[JobRef, ...] | None
    unattributed: tuple[JobRef, ...]
    max_stalled_count: int
    runtimes: tuple[Runtimes, ...]
    recovery: tuple[Recovery, ...]
    away_s: float
    schedules: tuple[ScheduleImpact, ...] | None
    schedules_unread: int | None
    downtime: Downtime
    data: tuple[DataSafety, ...] | None
    best_time: BestTime | None

    def label(self, queue: QueueImpact) -> str:
        """How the other fields call a queue."""
        return queue.keys.label(self.prefix)


@dataclass(frozen=True, slots=True)
class Assessment:
    """An impact, its queues (some may be unreadable), and remarks on what could not be read."""

    impact: Impact
    queues: Queues
    remarks: tuple[str, ...]


def assess(
    client: Client,
    address: Address,
    settings: Settings,
    words: Sequence[str] = (),
    *,
    target: str | None = None,
    away_s: float | None = None,
    platform: Platform | None = None,
) -> Assessment:
    """What a restart now would do.

    Args:
        words: queues, each as ``NAME`` or ``NAME@PREFIX``. Other queues that the target serves are
            included if their prefix is in force, or if it is the prefix of a queue in ``words``.
        target: what would be restarted. None for the one app that serves the queues, or, if there
            is not exactly one, for all workers of the queues.
        away_s: how long no worker will run; None for the duration of a plain restart.
        platform: how the workers are stopped, if no manager on this host stops them. With a
            ``platform`` and without a ``target``, no manager is asked.

    Raises:
        NotFoundError: a queue or the target does not exist, there is no queue at all, or the
            target serves none of the named queues.
        RefusedError: a named queue belongs to Bull 3 or 4.
        UsageError: qctl does not know the target's manager, or the target serves only queues under
            other prefixes or in other databases.
        FailedError: the target does not run.
        UnreachableError: Redis or the target's manager cannot be reached.
    """
    scope = find_scope(client, address, settings, words, target, platform)
    assessor = _Assessor(client, address, settings, scope, platform)
    impact = assessor.impact(away_s)
    return Assessment(impact, scope.queues, (*scope.remarks, *assessor.remarks))


class _Assessor:
    """Reads due times before active jobs, so that no job that starts in between is missed.

    At the end, queues that looked idle are read again.
    """

    def __init__(
        self,
        client: Client,
        address: Address,
        settings: Settings,
        scope: Scope,
        platform: Platform | None = None,
    ) -> None:
        self._platform = platform
        self._client = client
        self._address = address
        self._scope = scope
        self._settings = settings
        self._now_ms, self._behind_ms = int(time.time() * 1000), 0
        self._redis_up_s: float | None = None
        self._keys = [snapshot.keys for snapshot in scope.queues.bullmq]
        self.remarks: list[str] = []
        self._agendas = self._or_remark(
            "what is scheduled", lambda: read_agendas(client, self._keys)
        )
        self._active = read_active(client, self._keys)
        # Durations are needed only for queues in which jobs run or are scheduled.
        busy = {job.keys for job in self._active}
        timed = [s.keys for s in scope.queues.bullmq if s.keys in busy or s.schedulers]
        self._durations: RecentRuns = read_recent_runs(client, timed)
        processes = scope.target.processes if scope.target else None
        prefixes = {keys.prefix for keys in self._keys}
        beats = read_heartbeats(client, self._active, prefixes)
        self._holders = Holders(processes, scope.connections, beats)

    def impact(self, away_s: float | None) -> Impact:
        scope, target = self._scope, self._scope.target
        kill_after_s = self._kill_after_s()
        jobs = jobs_at_risk(
            self._client,
            self._active,
            self._holders,
            self._durations,
            kill_after_s=kill_after_s,
            max_stalled_count=self._settings.max_stalled_count,
            now_ms=self._now_ms,
            prefix=scope.prefix,
        )
        # Nothing proves that an app ignores the signal, so the answer is yes or unknown.
        handles = target is not None and all(map(self._holders.handles_signal, target.processes))
        queues = queue_impacts(scope, self._active, self._agendas or ())
        held = [job for job in self._active if not job.is_orphan]
        remaining = [
            remaining_runs_s(job, job.runtime_s(self._now_ms), self._durations) for job in held
        ]
        masters = self._or_remark("how safe the data is", self._masters)
        times = downtime(target, scope.connections, remaining, self._now_ms, self._redis_up_s)
        # The default is the maximum for a plain restart. If that is unknown, or if there is no
        # target, the default is the maximum for a start.
        away_s = away_s if away_s is not None else (times.plain_s or times.boot_s)[1]
        worst = tuple(job for job in jobs if job.interrupted)
        best = tuple(job for job in jobs if job.interrupted_if_handled)
        is_timed = kill_after_s is not None
        is_gapless = kill_after_s == math.inf
        return Impact(
            asked_at=from_epoch_ms(self._now_ms),
            target=target.label if target else None,
            why_no_target=scope.why_no_target,
            prefix=scope.prefix,
            processes=process_plans(target, scope.connections, scope.prefix),
            stop_signal=self._platform.stop_signal or None if self._platform else None,
            handles_signal=handles or None,
            kill_after_s=None if is_gapless else kill_after_s,
            last_restarts=self._or_remark("what the last restart did", self._last_restarts),
            queues=queues,
            also=tuple(map(scope.label, scope.also)),
            foreign=scope.not_read,
            unread=tuple(scope.label(keys) for keys, _ in scope.queues.broken),
            bull=tuple(map(scope.label, scope.queues.bull)),
            jobs=jobs,
            interrupted=_refs(worst),
            interrupted_if_handled=_refs(best) if is_timed else None,
            fails_for_good=_refs(job for job in worst if job.fails_for_good),
            fails_if_handled=(
                _refs(job for job in best if job.fails_for_good) if is_timed else None
            ),
            unattributed=_refs(job for job in worst if job.held_by == "unknown"),
            max_stalled_count=self._settings.max_stalled_count,
            runtimes=usual_runtimes(self._active, self._durations, scope.prefix),
            recovery=self._recovery(jobs, kill_after_s, times.boot_s, queues),
            away_s=away_s,
            schedules=self._schedules(queues, away_s),
            schedules_unread=(
                None
                if self._agendas is None
                else sum(each.total_schedulers - len(each.schedulers) for each in self._agendas)
            ),
            downtime=times,
            data=None if masters is None else tuple(data_safety(m, self._now_ms) for m in masters),
            best_time=self._best_time(times),
            # Judged last, because the next due time comes nearer while the rest is read.
            verdict=judge(
                Facts(
                    scope=scope,
                    queues=queues,
                    interrupted=worst,
                    interrupted_if_handled=best if is_timed else None,
                    handles_signal=handles,
                    # Read the queues again only if no job is known to be in danger.
                    moved=() if worst or is_gapless else self._moved(),
                    resumers=self._or_remark(
                        "whether a start of the target ends a pause", self._resumers
                    )
                    or {},
                    downtime=times,
                    masters=masters,
                    is_gapless=is_gapless,
                    refusal=self._or_remark("whether a drain would be refused", self._refusal),
                    now=from_epoch_ms(int(time.time() * 1000) + self._behind_ms),
                    prefixes=self._settings.prefixes,
                    address=self._address,
                )
            ),
        )

    # The processes

    def _kill_after_s(self) -> float | None:
        target = self._scope.target
        if self._platform is not None:
            return self._platform.grace_s
        if target is None:
            return None
        if all(process.target.startswith("qctl:") for process in target.processes):
            return math.inf
        limits = [process.kill_timeout_ms for process in target.processes]
        if None in limits:
            return None
        return min(limit for limit in limits if limit is not None) / 1000

    def _refusal(self) -> QctlError | None:
        """Why qctl would refuse a drain; None if it would not, or if that is unknown."""
        scope, target = self._scope, self._scope.target
        if self._platform is not None:
            return None
        strategy = "pause" if target is None else default_strategy(target)
        try:
            if target is not None:
                require_restartable(target, scope.connections or _NO_CONNECTIONS, strategy)
                require_listed(self._client, self._keys)
            if strategy == "pause":
                snapshots = scope.queues.bullmq
                require_safe_pause(self._client, snapshots, self._settings, self._address.db)
        except UnreachableError as error:
            self.remarks.append(f"it is unknown whether a drain would be refused: {error.what}")
        except (RefusedError, UsageError, FailedError) as error:
            return error
        else:
            self._remark_on_rights()
        return None

    def _remark_on_rights(self) -> None:
        """Add a remark if this Redis user lacks a right that a drain needs.

        This is only a remark, because the operator can drain as another Redis user.
        """
        try:
            require_rights(self._client, self._keys, rights.DRAIN, what="a drain")
        except RefusedError as error:
            self.remarks.append(f"qctl would refuse a drain with this Redis user: {error.why}")

    def _last_restarts(self) -> tuple[RestartRow, ...]:
        target, connections = self._scope.target, self._scope.connections
        if target is None or connections is None:
            return ()
        served = {}
        for process in target.processes:
            connected = connections.queues_of([process])
            served[process] = [keys for keys in self._keys if keys in connected]
        past = past_restarts(self._client, served)
        return tuple(restart_row(each, self._scope.prefix) for each in past)

    def _resumers(self) -> dict[QueueKeys, Resumer]:
        """The paused queues that the target's app resumes when it starts."""
        target = self._scope.target
        paused = {snapshot.keys for snapshot in self._scope.queues.bullmq if snapshot.paused}
        if target is None:
            return {}
        found = {
            QueueKeys(prefix, each.queue): each
            for prefix in sorted({keys.prefix for keys in paused})
            for each in read_resumers(self._client, prefix)
            if each.target == target.label
        }
        return {keys: each for keys, each in found.items() if keys in paused}

    # What is scheduled

    def _schedules(
        self, queues: Sequence[QueueImpact], away_s: float
    ) -> tuple[ScheduleImpact, ...] | None:
        """The schedulers, and what they miss. In queues with other workers they miss nothing."""
        if (agendas := self._agendas) is None:
            return None
        served = {queue.keys for queue in queues if queue.other_workers}
        prefix = self._scope.prefix
        back_ms = self._now_ms + round(away_s * 1000)
        alone = [agenda for agenda in agendas if agenda.keys not in served]
        rest = [agenda for agenda in agendas if agenda.keys in served]
        return (
            *schedule_impacts(alone, now_ms=self._now_ms, back_ms=back_ms, prefix=prefix),
            *schedule_impacts(rest, now_ms=self._now_ms, back_ms=self._now_ms, prefix=prefix),
        )

    # The jobs

    def _moved(self) -> tuple[QueueKeys, ...]:
        queues = self._scope.queues.bullmq
        found = self._or_remark(
            "whether a job has moved since",
            lambda: moved_queues(self._client, queues, self._active, self._agendas),
        )
        return found if found is not None else tuple(self._keys)

    def _recovery(
        self,
        jobs: Sequence[JobAtRisk],
        exits_within_s: float | None,
        boot_s: tuple[float, float],
        queues: Sequence[QueueImpact],
    ) -> tuple[Recovery, ...]:
        pairs = zip(self._active, jobs, strict=True)
        interrupted = [active for active, job in pairs if job.interrupted]
        by_queue = grouped(interrupted, lambda job: job.keys)
        wanted = [(keys, [job.id for job in jobs]) for keys, jobs in by_queue.items()]
        clocks = self._or_remark(
            "when stalled checks run", lambda: read_clocks(self._client, wanted)
        )
        read_ms = int(time.time() * 1000)
        impacts = {queue.keys: queue for queue in queues}
        processes = self._scope.target.processes if self._scope.target else ()
        found = []
        for clock in clocks or ():
            queue = impacts[clock.keys]
            others = queue.other_workers
            by = "unknown" if others is None else "others" if others else "restarted"
            # If one process has two workers, they make stalled checks at different times.
            is_lone = by == "restarted" and queue.workers == 1 and len(processes) == 1
            found.append(
                recovery_of(
                    by_queue[clock.keys],
                    clock,
                    by=by,
                    is_lone=is_lone,
                    exits_within_s=exits_within_s,
                    boot_s=boot_s,
                    now_ms=read_ms,
                    prefix=self._scope.prefix,
                )
            )
        return tuple(found)

    # Redis and its history

    def _masters(self) -> tuple[ServerFacts, ...] | None:
        """Each master's facts; None if INFO is denied. Sets ``_redis_up_s`` and ``_behind_ms``."""
        servers = read_servers(self._client)
        # If this host's clock is behind, jobs are due sooner than the clock shows.
        self._behind_ms = max(0, *(server.clock_ahead_ms for server in servers))
        up_s = [server.uptime_s for server in servers if server.uptime_s is not None]
        if len(up_s) == len(servers):
            self._redis_up_s = min(up_s, default=None)
        if any(server.role is None for server in servers):
            self.remarks.append(
                "it is unknown how safe the data is: this Redis user may not call INFO (grant it: "
                "ACL SETUSER … +info)"
            )
            return None
        return servers

    def _best_time(self, times: Downtime) -> BestTime | None:
        if self._agendas is None:
            return None
        ordered = sorted(self._scope.queues.bullmq, key=lambda s: -s.counts.completed)
        chosen = [snapshot.keys for snapshot in ordered[:MAX_HISTORIES]]
        hours = last_hours(self._now_ms)
        found = self._or_remark(
            "when few jobs run", lambda: read_throughput(self._client, chosen, hours)
        )
        if found is None:
            return None
        usual_s = {
            (keys, name): quantile(sorted(runs), 0.95) or 0.0
            for keys, names in self._durations.items()
            for name, runs in names.items()
        }
        return best_time(
            found,
            self._agendas,
            now_ms=self._now_ms,
            needed_s=times.drain_p95_s or (times.plain_s or times.boot_s)[1],
            usual_s=usual_s,
            prefix=self._scope.prefix,
        )

    def _or_remark(self, what: str, read: Callable[[], T]) -> T | None:
        """What ``read`` returns; None, with a remark, if Redis refuses a command."""
        try:
            return read()
        except ReplyError as error:
            self.remarks.append(f"it is unknown {what}: {error.message}")
            return None


def _refs(jobs: Iterable[JobAtRisk]) -> tuple[JobRef, ...]:
    return tuple(JobRef(job.queue, job.id) for job in jobs)
