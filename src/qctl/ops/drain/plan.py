"""The plan of a drain: its queues and processes, found and checked before anything is written."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.errors import (
    FailedError,
    RefusedError,
    ReplyError,
    UnreachableError,
    UsageError,
    is_outage,
)
from qctl.manage.kinds import words_of
from qctl.manage.protocol import Rollout
from qctl.ops.drain.lease import drain_at_work
from qctl.ops.drain.roll.rollable import require_rollable
from qctl.ops.drain.steps import Planned, ProcessPlan, RunningJob
from qctl.ops.jobs.estimate import remaining_s
from qctl.ops.processes.beside import queues_beside
from qctl.ops.processes.managers import managed_processes
from qctl.ops.processes.replacement import WITHOUT_PROOF
from qctl.ops.processes.run_command import READY_TIMEOUT_S, OperatorCommand
from qctl.ops.processes.stopped import remedy
from qctl.ops.processes.suggest import command
from qctl.ops.processes.targets import (
    Connections,
    Target,
    listed_workers,
    open_target,
    read_connections,
    targets_serving,
    worker_addresses,
)
from qctl.ops.queues.advice import LATER_PAUSE
from qctl.ops.queues.find import find_queues, require_bullmq
from qctl.ops.queues.pause import require_rights
from qctl.ops.queues.versions import require_safe_pause
from qctl.wire.drain_record import read_resumers
from qctl.wire.keys import QueueKeys
from qctl.wire.read import rights
from qctl.wire.read.active import ActiveJob, read_active
from qctl.wire.read.clients import WorkerClient
from qctl.wire.read.finished import RecentRuns, read_recent_runs
from qctl.wire.read.info import read_info
from qctl.wire.read.snapshot import QueueSnapshot

# A drain must know all processes before it begins, so it waits longer than ``status`` does.
MANAGER_TIMEOUT_S = 10.0
_NO_EXPECT_HINT = (
    "say how many each queue should have afterwards, with --expect-workers N, or do without the "
    "proof: --no-expect"
)


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """The plan of a drain that has passed all checks.

    Args:
        snapshots: the queues, as they were when the plan was made.
        target: the processes to restart; None without a restart, or with an operator's command.
        connections: the connected workers; None if no target was looked up.
        durations: how long the last jobs of the queues took.
        guessed: the target, if the operator did not name it and must confirm it; else "".
        strategy: ``pause`` (all queues, until the end) or ``roll`` (one process after another).
        mixed: queue → warning, if the queue may be paused although BullMQ 5 and 6 both serve it.
        left_behind: queues that an earlier drain, which no longer runs, left paused. This drain
            takes their pauses over.
        unchecked_user: the Redis user, if its rights are unknown; "" for the default user.
        not_restarted: the target that the operator named, if it is not restarted; else "".
        command: restarts the workers; either the operator's command or the rollout of the target.
        beside: queues outside the drain whose jobs ``command`` may interrupt.
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
    beside: tuple[str, ...] = ()

    @property
    def restarts(self) -> bool:
        """Whether the drain also restarts workers."""
        return self.target is not None or self.command is not None

    @property
    def queues(self) -> tuple[QueueKeys, ...]:
        return tuple(snapshot.keys for snapshot in self.snapshots)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(snapshot.keys.name for snapshot in self.snapshots)

    @property
    def ignored(self) -> tuple[str, ...]:
        """Queues outside the drain that the workers also serve. The drain ignores their jobs.

        For a queue under another prefix or database, a description stands in place of the name.
        """
        if self.target is None or self.connections is None:
            return self.beside
        processes = self.target.processes
        served = self.connections.queues_of(processes) | {*self.target.configured}
        known = (*sorted(served - {*self.names}), *self.connections.elsewhere(processes))
        return tuple(dict.fromkeys([*known, *self.beside]))

    def shown(self, jobs: Iterable[ActiveJob], *, orphans: bool = False) -> tuple[RunningJob, ...]:
        """Convert active jobs for a step: those that have a worker, or only the ``orphans``."""
        now_ms = int(time.time() * 1000)
        shown = []
        for job in jobs:
            if job.is_orphan is not orphans:
                continue
            runtime_s = job.runtime_s(now_ms)
            shown.append(
                RunningJob(
                    queue=job.keys.name,
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
    names: Sequence[str],
    *,
    target: str | None,
    then_restart: bool,
    include_others: bool | None = None,
    strategy: str | None = None,
    mixed_versions: bool = False,
    operator_command: OperatorCommand | None = None,
) -> DrainPlan:
    """Find the queues and the target, and make sure that the drain may begin. Writes nothing.

    Args:
        include_others: what to do if the workers also serve queues that are not named. True drains
            those queues, False lets their jobs be interrupted, None refuses the drain.
        strategy: ``pause`` or ``roll``. None means ``roll`` for qctl's own processes, and ``pause``
            for all others.
        mixed_versions: pause a queue even if BullMQ 5 and BullMQ 6 both serve it.
        operator_command: restarts the workers; must be None if there is a target.

    Raises:
        NotFoundError: no such queue or target.
        RefusedError: the workers do not serve exactly the named queues; Bull 3 or 4, or both
            BullMQ 5 and 6, serve a queue; another drain is at work; the target cannot be rolled.
        FailedError: Redis is a replica or does not list the workers, or the target is stopped.
        UsageError: it is not clear which queues or which target are meant.
        UnreachableError: Redis or the process manager cannot be reached.
    """
    # Look up the queues first, so that a misspelt name is reported as an unknown queue, not as one
    # that the process does not serve.
    snapshots = find_queues(client, settings.prefix, names) if names else []
    found: Target | None = None
    connections: Connections | None = None
    guessed = ""
    beside: tuple[str, ...] = ()
    if operator_command is not None:
        if operator_command.is_proved:
            workers = listed_workers(
                client, settings.prefix, address.db, names, or_else=WITHOUT_PROOF
            )
            if operator_command.expected_workers is None:
                _require_workers(workers, names, _NO_EXPECT_HINT)
        names, beside = _queues_of_command(
            client, settings.prefix, address.db, names, include_others
        )
    elif target is not None:
        found = open_target(settings, target)
        connections = read_connections(client, settings, address.db, found.processes)
    elif then_restart or not names:
        found, connections = _only_target(client, address, settings, names, then_restart)
        guessed = found.label
    if found is not None and connections is not None:
        wanted = _queues_of(
            found, connections, settings.prefix, names, include_others, then_restart
        )
        if guessed and not names:
            guessed += f" with {', '.join(wanted)}"
        names = wanted
        if then_restart:
            strategy = strategy or ("roll" if found.manager.kind == "qctl" else "pause")
            _require_here(found)
            if strategy == "roll":
                require_rollable(found, connections)
            elif isinstance(found.manager, Rollout):
                operator_command = _rollout(found, found.manager)
                without = f"drain … --no-expect -- {' '.join(operator_command.argv)}"
                hint = f"start its workers first, or do without the proof: qctl {without}"
                _require_workers(connections.workers, wanted, hint)
                is_matched = bool(connections.queues_of(found.processes))
                # Otherwise, any worker of these queues may be the target's.
                where = (client, settings.prefix, address.db)
                names, beside = (
                    (wanted, ())
                    if is_matched
                    else _queues_of_command(*where, wanted, include_others)
                )
    named = {snapshot.keys.name for snapshot in snapshots}
    if more := [name for name in names if name not in named]:
        snapshots += find_queues(client, settings.prefix, more)
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
        guessed=guessed,
        strategy=strategy or "pause",
        mixed=mixed,
        # The default user nearly always has all rights.
        unchecked_user="" if is_granted or username == "default" else username,
        # No lease is held (see ``_preflight``), so the drain that paused these queues has ended.
        left_behind=frozenset(
            s.keys for s in snapshots if s.pause_note is not None and s.pause_note.is_temporary
        ),
        not_restarted=found.label if found and target is not None and not then_restart else "",
        command=operator_command,
        beside=beside,
    )


def _require_here(target: Target) -> None:
    """Refuse to restart processes whose end qctl could not see, because they run elsewhere."""
    away = [each for each in target.processes if each.status == "online" and each.pid is None]
    if away and not isinstance(target.manager, Rollout):
        words = words_of(target.manager.kind)
        raise RefusedError(
            f"the processes of {target.label} cannot be seen from this host",
            why=f"{words.title} runs {away[0].name} on another host or in a virtual machine",
            hint=f"let Redis show the restart: qctl drain QUEUE -- {remedy(away[0], 'restart')}",
        )


def _rollout(target: Target, manager: Rollout) -> OperatorCommand:
    """The command that replaces all processes of a target at once."""
    processes = target.processes
    longest_s = max(each.ready_timeout_ms / 1000 + each.max_stop_s for each in processes)
    return OperatorCommand(
        manager.restart_command(target.name),
        ready_timeout_s=READY_TIMEOUT_S + longest_s,
        shortcoming=lambda: manager.shortcoming(target.name, processes),
    )


def _only_target(
    client: Client,
    address: Address,
    settings: Settings,
    names: Sequence[str],
    then_restart: bool,
) -> tuple[Target, Connections]:
    """The only managed app that serves the named queues; without names, any queue."""
    what = "it is not clear " + ("which process to restart" if names else "which queues to drain")
    hint = "name the process with --target MANAGER:NAME, for example pm2:worker"
    if not then_restart:
        hint = f"name each queue: {command(settings.prefix, 'drain', 'QUEUE')}"
    processes, remarks = managed_processes(
        settings,
        lambda: worker_addresses(client, settings.prefix, address.db),
        timeout_s=MANAGER_TIMEOUT_S,
    )
    connections = read_connections(client, settings, address.db, processes)
    labels = targets_serving(settings, connections, processes, names)
    if remarks and not (labels and connections.all_owned(names)):
        # Processes that qctl could not see may also serve these queues.
        raise UnreachableError(what, why="; ".join(remarks), hint=hint)
    if len(labels) == 1:
        return open_target(settings, labels.pop()), connections
    why = f"no managed process on this host holds a worker of {', '.join(names)}"
    if labels:
        why = f"several serve them: {', '.join(sorted(labels))}"
    elif not names:
        why = "no managed process on this host holds a worker"
    raise UsageError(what, why=why, hint=hint)


def _queues_of(
    target: Target,
    connections: Connections,
    prefix: str,
    names: Sequence[str],
    include_others: bool | None,
    then_restart: bool,
) -> Sequence[str]:
    """The queues to drain: the named ones, or all that the target serves."""
    connected = connections.queues_of(target.processes)
    serves = connected | set(target.configured)
    foreign = connections.elsewhere(target.processes)
    if not names and not serves:
        # A drain without a restart needs no target.
        restart = ("--then-restart", "--target", target.label) if then_restart else ()
        raise UsageError(
            f"it is not clear which queues {target.label} serves",
            why="none of its processes holds a worker connection that can be matched here",
            hint=f"name each of them: {command(prefix, 'drain', 'QUEUE', *restart)}",
        )
    names = names or sorted(serves)
    if not then_restart:
        return names
    if connected and (strangers := set(names) - serves):
        # Most likely the target is wrong.
        raise RefusedError(
            f"{target.label} does not serve {', '.join(sorted(strangers))}",
            why=f"its workers are connected to {', '.join(sorted(connected))}",
            hint="name another --target, or add the queues to its [targets.NAME] in qctl.toml",
        )
    rest = sorted(serves - set(names))
    _require_choice(f"{target.label} also serves", rest, foreign, include_others)
    return [*names, *rest] if include_others else names


def _require_workers(workers: Sequence[WorkerClient], names: Sequence[str], hint: str) -> None:
    """Refuse a command if no worker is connected, because then no proof is possible."""
    if not any(worker.queue in names for worker in workers):
        raise RefusedError(
            f"no worker of {', '.join(names)} is connected",
            why="so nothing would show whether the command has restarted any",
            hint=hint,
        )


def _queues_of_command(
    client: Client, prefix: str, db: int, names: Sequence[str], include_others: bool | None
) -> tuple[Sequence[str], tuple[str, ...]]:
    """The queues to drain, and other queues whose jobs the command may interrupt."""
    rest, foreign = queues_beside(client, prefix, db, names)
    _require_choice(f"the workers of {', '.join(names)} also serve", rest, foreign, include_others)
    if include_others:
        return [*names, *rest], ()
    return names, (*rest, *foreign)


def _require_choice(
    what: str, rest: Sequence[str], foreign: Sequence[str], include_others: bool | None
) -> None:
    """Refuse to restart workers that also serve other queues, unless the operator has chosen.

    Args:
        rest: other queues of this prefix.
        foreign: queues of another prefix or database.
    """
    if (rest or foreign) and include_others is None:
        raise RefusedError(
            f"{what} {', '.join([*rest, *foreign])}",
            why="a restart would interrupt the jobs of those queues",
            hint="drain them too with --include-others"
            + (" (possible only for queues of this prefix and database)" if foreign else "")
            + ", or let their jobs be interrupted with --ignore-others",
        )
    if foreign and include_others:
        raise RefusedError(
            f"{what} {', '.join(foreign)}",
            why="they are under another prefix or database, which one drain cannot include",
            hint="let their jobs be interrupted with --ignore-others",
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
        queues=plan.names,
        already_paused=tuple(s.keys.name for s in plan.snapshots if s.paused),
        target=plan.target.label if plan.target else None,
        processes=process_plans(plan.target, plan.connections),
        backlog=sum(snapshot.backlog for snapshot in plan.snapshots),
        active=active,
        orphans=plan.shown(jobs, orphans=True),
        estimate_s=max(known, default=0.0) if len(known) == len(estimates) else None,
        warnings=tuple(_warnings(plan, _resumed_at_start(plan, client))),
        strategy=plan.strategy,
        command=plan.command.argv if plan.command else (),
    )


def process_plans(
    target: Target | None, connections: Connections | None
) -> tuple[ProcessPlan, ...]:
    """The processes of a target; they have no queues if the connected workers are unknown."""
    return tuple(
        ProcessPlan(
            target=process.target,
            key=process.key,
            pid=process.pid,
            status=process.status,
            stop_signal=process.stop_signal or None,
            kill_timeout_ms=process.kill_timeout_ms,
            queues=tuple(sorted(connections.queues_of([process]) if connections else ())),
            signal_trouble=process.signal_trouble,
        )
        for process in (target.processes if target else ())
    )


def _resumed_at_start(plan: DrainPlan, client: Client) -> set[str]:
    """Names of the queues that the target resumed at its start in an earlier drain."""
    if plan.target is None or plan.strategy == "roll":
        return set()
    try:
        seen = read_resumers(client, plan.queues[0].prefix)
    except ReplyError as error:
        if is_outage(error):
            raise
        return set()
    return {each.queue for each in seen if each.target == plan.target.label}


def _warnings(plan: DrainPlan, resumed_at_start: Collection[str]) -> Iterable[str]:
    if plan.not_restarted:
        yield not_restarted(plan.not_restarted)
    if plan.unchecked_user:
        yield (
            f"a Redis before version 7 cannot say what the user {plan.unchecked_user} may do: if "
            "the user lacks a right, the drain fails half way"
        )
    if plan.ignored:
        yield (
            f"jobs of {', '.join(plan.ignored)} that run at the restart may be interrupted: the "
            "drain does not wait for them, and they are not in the figures"
        )
    for snapshot in plan.snapshots:
        name = snapshot.keys.name
        if snapshot.keys in plan.mixed:
            yield plan.mixed[snapshot.keys]
        if snapshot.keys in plan.left_behind:
            yield f"{name} was left paused by {snapshot.pause_note}: this drain takes it over"
        elif snapshot.paused and name in resumed_at_start and plan.target:
            yield (
                f"{name} was paused before, but {plan.target.label} seems to resume it when it "
                "starts, as in an earlier drain; if so, the queue runs at the end. To keep it "
                "paused: --keep-paused"
            )
        elif snapshot.paused:
            yield stays_paused(snapshot)


def not_restarted(label: str) -> str:
    """The note that the target named by the operator is not restarted."""
    return f"{label} is not restarted: that needs --then-restart"


def stays_paused(snapshot: QueueSnapshot) -> str:
    """The note on a queue that somebody paused before the drain."""
    by = f" by {snapshot.pause_note}" if snapshot.pause_note else ""
    if snapshot.uncertain_note:
        by = f", by {snapshot.uncertain_note} or {LATER_PAUSE},"
    name = snapshot.keys.name
    return (
        f"{name} was paused before{by} and stays paused at the end; to resume it later: "
        f"{command(snapshot.keys.prefix, 'resume', name)}"
    )
