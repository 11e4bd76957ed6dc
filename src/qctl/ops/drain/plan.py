"""The plan of a drain: its queues and processes, found and checked before anything is written."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.durations import duration
from qctl.errors import (
    FailedError,
    ReplyError,
    is_outage,
)
from qctl.manage.protocol import NO_LIMIT_MS, Rollout
from qctl.ops.drain.choose import (
    Choice,
    choose_beside,
    choose_for_command,
    choose_for_target,
    require_workers,
)
from qctl.ops.drain.lease import drain_at_work
from qctl.ops.drain.restartable import default_strategy, require_restartable
from qctl.ops.drain.steps import Planned, ProcessPlan, RunningJob
from qctl.ops.drain.unavailable import MaxUnavailable
from qctl.ops.jobs.estimate import remaining_s
from qctl.ops.processes.restart import MIN_STOP_S
from qctl.ops.processes.run_command import READY_TIMEOUT_S, OperatorCommand
from qctl.ops.processes.suggest import command
from qctl.ops.processes.targets import (
    Connections,
    Target,
)
from qctl.ops.queues.advice import LATER_PAUSE
from qctl.ops.queues.find import read_existing, require_bullmq
from qctl.ops.queues.pause import require_rights
from qctl.ops.queues.select import select_queues
from qctl.ops.queues.versions import require_safe_pause
from qctl.wire.drain_record import read_resumers
from qctl.wire.keys import QueueKeys, common_prefix
from qctl.wire.read import rights
from qctl.wire.read.active import ActiveJob, read_active
from qctl.wire.read.finished import RecentRuns, read_recent_runs
from qctl.wire.read.info import read_info
from qctl.wire.read.snapshot import QueueSnapshot


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """The plan of a drain that has passed all checks.

    Args:
        snapshots: the queues, as they were when the plan was made.
        target: the processes to restart; None without a restart, or with an operator's command.
        connections: the connected workers; None if no target was looked up.
        durations: how long the last jobs of the queues took.
        guessed: what qctl itself chose, as text: a target, or a target with its queues. The
            operator must confirm it. "" if qctl did not choose the target.
        strategy: ``pause`` (all queues, until the end) or ``roll`` (one process after another).
        mixed: queues that are paused although BullMQ 5 and 6 both serve them, each with a warning.
        left_behind: queues left paused by a drain that no longer runs. This drain takes them over.
        unchecked_user: the Redis user, if its rights are unknown; "" for the default user.
        not_restarted: the target that the operator named, if it is not restarted; else "".
        command: restarts the workers; either the operator's command or the rollout of the target.
        others: queues outside the drain that the workers also serve. The drain ignores their jobs.
        foreign: descriptions of the queues that the workers also serve in other databases.
        max_unavailable: how many processes of the target are replaced at the same time.
    """

    snapshots: tuple[QueueSnapshot, ...]
    target: Target | None
    connections: Connections | None
    durations: RecentRuns
    guessed: str = ""
    strategy: str = "pause"
    mixed: Mapping[QueueKeys, str] = field(default_factory=dict)
    left_behind: frozenset[QueueKeys] = frozenset()
    unchecked_user: str = ""
    not_restarted: str = ""
    command: OperatorCommand | None = None
    others: tuple[QueueKeys, ...] = ()
    foreign: tuple[str, ...] = ()
    max_unavailable: int = 1

    @property
    def restarts(self) -> bool:
        """Whether the drain also restarts workers."""
        return self.target is not None or self.command is not None

    @property
    def queues(self) -> tuple[QueueKeys, ...]:
        return tuple(snapshot.keys for snapshot in self.snapshots)

    @property
    def prefix(self) -> str | None:
        """The key prefix of all queues; None if there are several."""
        return common_prefix(self.queues)

    def label(self, keys: QueueKeys) -> str:
        """How steps and messages name a queue; see ``QueueKeys.label``."""
        return keys.label(self.prefix)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(map(self.label, self.queues))

    @property
    def ignored(self) -> tuple[str, ...]:
        """The names of the queues outside the drain. A restart may interrupt these queues' jobs."""
        return (*map(self.label, self.others), *self.foreign)

    def shown(self, jobs: Iterable[ActiveJob], *, orphans: bool = False) -> tuple[RunningJob, ...]:
        """The active jobs as a step shows them.

        Args:
            orphans: True for only the jobs without a worker; False for only those with one.
        """
        now_ms = int(time.time() * 1000)
        shown = []
        for job in jobs:
            if job.is_orphan is not orphans:
                continue
            runtime_s = job.runtime_s(now_ms)
            shown.append(
                RunningJob(
                    queue=self.label(job.keys),
                    id=job.id,
                    name=job.name,
                    runtime_s=round(runtime_s, 1) if runtime_s is not None else None,
                    lock_ttl_ms=job.lock_ttl_ms,
                    worker=job.worker,
                    estimate_s=remaining_s(job, runtime_s, self.durations),
                )
            )
        return tuple(shown)


def make_plan(
    client: Client,
    address: Address,
    settings: Settings,
    words: Sequence[str],
    *,
    target: str | None,
    then_restart: bool,
    include_others: bool | None = None,
    strategy: str | None = None,
    mixed_versions: bool = False,
    operator_command: OperatorCommand | None = None,
    only_served: bool = False,
    max_unavailable: str | None = None,
) -> DrainPlan:
    """Find the queues and the target, and make sure that the drain may begin. Writes nothing.

    Args:
        words: the queues to drain, each as ``NAME`` or ``NAME@PREFIX``; empty for those that the
            target serves.
        include_others: what to do if the workers also serve queues that are not named. True drains
            those queues, False lets their jobs be interrupted, None refuses the drain.
        strategy: ``pause`` or ``roll``. None means ``roll`` for qctl's own processes, and ``pause``
            for all others.
        mixed_versions: pause a queue even if BullMQ 5 and BullMQ 6 both serve it.
        operator_command: restarts the workers; must be None if there is a target.
        only_served: leave out the named queues that the target does not serve.
        max_unavailable: how many processes to replace at the same time, as a number or a
            percentage; None for the default, 1.

    Raises:
        SeveralTargetsError: several targets serve the named queues, and ``target`` is None.
        NotFoundError: no such queue or target.
        RefusedError: the workers do not serve exactly the named queues; Bull 3 or 4 serves a queue,
            or BullMQ 5 and 6 both do; another drain is at work; the target cannot be rolled.
        FailedError: Redis is a replica or does not list the workers, or the target is stopped.
        UsageError: it is not clear which queues or which target are meant; ``max_unavailable`` is
            malformed, or the target's manager has no use for it.
        UnreachableError: Redis or the process manager cannot be reached.
    """
    wanted = MaxUnavailable.parse(max_unavailable)
    # Look up the queues first, so that a misspelt name is reported as an unknown queue, not as one
    # that the process does not serve.
    queues = select_queues(client, settings.prefixes, words) if words else []
    snapshots = read_existing(client, queues)
    if operator_command is not None:
        choice = choose_for_command(client, address.db, queues, operator_command, include_others)
    elif target is not None or then_restart or not queues:
        choice = choose_for_target(
            client, address, settings, queues, target, then_restart, include_others, only_served
        )
    else:
        choice = Choice(tuple(queues))
    found, connections = choice.target, choice.connections
    at_once = 1
    if then_restart and found is not None and connections is not None:
        if wanted is not None:
            at_once = wanted.of(found, connections)
        strategy = strategy or default_strategy(found)
        argv = require_restartable(found, connections, strategy, at_once)
        if argv and isinstance(found.manager, Rollout):
            operator_command = _rollout(found, found.manager, argv)
            without = f"drain … --no-expect -- {' '.join(operator_command.argv)}"
            hint = f"start its workers first, or do without the proof: qctl {without}"
            require_workers(connections.workers, choice.queues, hint)
            if not connections.queues_of(found.processes):
                # No worker is matched with the target, so any of these workers may belong to it.
                choice = choose_beside(client, address.db, choice, include_others)
    named = {snapshot.keys for snapshot in snapshots}
    snapshots += read_existing(client, [keys for keys in choice.queues if keys not in named])
    snapshots = [snapshot for snapshot in snapshots if snapshot.keys in choice.queues]
    is_granted = _preflight(client, snapshots)
    mixed: dict[QueueKeys, str] = {}
    if strategy != "roll":
        mixed = require_safe_pause(client, snapshots, settings, address.db, accept=mixed_versions)
    username = address.username or ""
    return DrainPlan(
        snapshots=tuple(snapshots),
        target=found if then_restart else None,
        connections=connections,
        durations=read_recent_runs(client, [snapshot.keys for snapshot in snapshots]),
        guessed=choice.guessed,
        strategy=strategy or "pause",
        mixed=mixed,
        # The default user nearly always has all rights.
        unchecked_user="" if is_granted or username == "default" else username,
        # No queue has a lease (see ``_preflight``), so the drain that paused these has ended.
        left_behind=frozenset(
            s.keys for s in snapshots if s.pause_note is not None and s.pause_note.is_temporary
        ),
        not_restarted=found.label if found and target is not None and not then_restart else "",
        command=operator_command,
        others=choice.others,
        foreign=choice.foreign,
        max_unavailable=at_once,
    )


def _rollout(target: Target, manager: Rollout, argv: tuple[str, ...]) -> OperatorCommand:
    """The command that replaces all processes of a target at once."""
    processes = target.processes
    longest_s = max(each.ready_timeout_ms / 1000 + each.max_stop_s for each in processes)
    return OperatorCommand(
        argv,
        ready_timeout_s=READY_TIMEOUT_S + longest_s,
        shortcoming=lambda: manager.shortcoming(target.name, processes),
    )


def _preflight(client: Client, snapshots: Sequence[QueueSnapshot]) -> bool:
    """Raise an error if the drain may not begin.

    Returns:
        True if the user has all rights that the drain needs; False if that is unknown.
    """
    require_bullmq(
        snapshots,
        hint="drain it with Bull's own queue.pause() and queue.whenCurrentJobsFinished()",
    )
    for snapshot in snapshots:
        if snapshot.lease is not None:
            raise drain_at_work(snapshot.keys, snapshot.lease)
    is_known = require_rights(client, [s.keys for s in snapshots], rights.DRAIN, what="a drain")
    # If INFO is refused, go on: on a replica, the first write fails and changes nothing.
    info = read_info(client.masters()[0], "replication") or {}
    if info.get("role") == "slave":
        raise FailedError(
            "this Redis is a replica, so queues cannot be paused here",
            why="\n".join(
                f"{name}:{value}" for name, value in info.items() if name.startswith("master_")
            ),
            hint="connect to its master with --redis URL",
        )
    return is_known


def describe(plan: DrainPlan, client: Client) -> Planned:
    """The plan with the current numbers, for ``--dry-run`` and before the first step."""
    jobs = read_active(client, plan.queues)
    active = plan.shown(jobs)
    estimates = [job.estimate_s for job in active]
    known = [estimate for estimate in estimates if estimate is not None]
    return Planned(
        queues=plan.labels,
        already_paused=tuple(plan.label(s.keys) for s in plan.snapshots if s.paused),
        target=plan.target.label if plan.target else None,
        processes=process_plans(plan.target, plan.connections, plan.prefix),
        backlog=sum(snapshot.backlog for snapshot in plan.snapshots),
        active=active,
        orphans=plan.shown(jobs, orphans=True),
        estimate_s=max(known, default=0.0) if len(known) == len(estimates) else None,
        warnings=tuple(_warnings(plan, _resumed_at_start(plan, client))),
        strategy=plan.strategy,
        command=plan.command.argv if plan.command else (),
        max_unavailable=plan.max_unavailable if plan.target and not plan.command else None,
    )


def process_plans(
    target: Target | None, connections: Connections | None, prefix: str | None
) -> tuple[ProcessPlan, ...]:
    """The processes of a target; without their queues if the connected workers are unknown.

    Args:
        prefix: the prefix that is left out of the queues' names.
    """
    return tuple(
        ProcessPlan(
            target=process.target,
            key=process.key,
            pid=process.pid,
            status=process.status,
            stop_signal=process.stop_signal or None,
            kill_timeout_ms=process.kill_timeout_ms,
            queues=tuple(
                keys.label(prefix)
                for keys in (sorted(connections.queues_of([process])) if connections else ())
            ),
            signal_trouble=process.signal_trouble,
        )
        for process in (target.processes if target else ())
    )


def _resumed_at_start(plan: DrainPlan, client: Client) -> set[QueueKeys]:
    """The queues that the target resumed when it started in an earlier drain."""
    if plan.target is None or plan.strategy == "roll":
        return set()
    found = set()
    for prefix in {keys.prefix for keys in plan.queues}:
        try:
            seen = read_resumers(client, prefix)
        except ReplyError as error:
            if is_outage(error):
                raise
            continue
        found |= {QueueKeys(prefix, s.queue) for s in seen if s.target == plan.target.label}
    return found


def _warnings(plan: DrainPlan, resumed_at_start: Collection[QueueKeys]) -> Iterable[str]:
    if plan.not_restarted:
        yield not_restarted(plan.not_restarted)
    if plan.unchecked_user:
        yield (
            f"a Redis before version 7 cannot say what the user {plan.unchecked_user} may do: if "
            "the user lacks a right, the drain fails half way"
        )
    target, connections = plan.target, plan.connections
    is_matched = bool(target and connections and connections.queues_of(target.processes))
    if plan.command is not None and target is not None and not is_matched:
        yield (
            f"it is unknown which workers belong to {target.label}, so all workers of the queues "
            "must be replaced: if another app serves these queues, too, the proof fails"
        )
    if plan.ignored:
        yield (
            f"jobs of {', '.join(plan.ignored)} that run at the restart may be interrupted: the "
            "drain does not wait for them, and they are not in the figures"
        )
    if target is not None and plan.command is None and plan.strategy != "roll":
        yield from _long_stops(target)
    for snapshot in plan.snapshots:
        name = plan.label(snapshot.keys)
        if snapshot.keys in plan.mixed:
            yield plan.mixed[snapshot.keys]
        if snapshot.keys in plan.left_behind:
            yield f"{name} was left paused by {snapshot.pause_note}: this drain takes it over"
        elif snapshot.paused and snapshot.keys in resumed_at_start and plan.target:
            yield (
                f"{name} was paused before, but {plan.target.label} seems to resume it when it "
                "starts, as in an earlier drain; if so, the queue runs at the end. To keep it "
                "paused: --keep-paused"
            )
        elif snapshot.paused:
            yield stays_paused(snapshot, name)


def _long_stops(target: Target) -> Iterable[str]:
    """A warning if a manager lets processes run for long after the stop signal."""
    limits_ms = [p.kill_timeout_ms for p in target.processes if p.kill_timeout_ms is not None]
    longest_ms = max((each for each in limits_ms if each < NO_LIMIT_MS), default=0)
    if longest_ms > MIN_STOP_S * 1000:
        yield (
            f"{target.label} gets SIGKILL only {duration(longest_ms / 1000)} after the stop "
            "signal: if the app ignores the signal, the queues stay paused until then, or until "
            f"the drain has waited for --timeout (at least {duration(MIN_STOP_S)})"
        )


def not_restarted(label: str) -> str:
    """The note on a target that the operator named, but that is not restarted."""
    return f"{label} is not restarted: that needs --then-restart"


def stays_paused(snapshot: QueueSnapshot, name: str) -> str:
    """The note on a queue that somebody paused before the drain; the note shows ``name``."""
    by = f" by {snapshot.pause_note}" if snapshot.pause_note else ""
    if snapshot.uncertain_note:
        by = f", by {snapshot.uncertain_note} or {LATER_PAUSE},"
    return (
        f"{name} was paused before{by} and stays paused at the end; to resume it later: "
        f"{command(snapshot.keys.prefix, 'resume', snapshot.keys.name)}"
    )
