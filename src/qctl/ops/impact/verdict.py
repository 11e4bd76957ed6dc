"""The verdict (safe, drain first or not now), with the reasons and the commands to type.

The verdict is for the worst case. It includes jobs that may start at any moment: a queue with a
backlog is idle only by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from qctl.config.prefixes import Prefixes
from qctl.connection.address import Address
from qctl.errors import QctlError
from qctl.ops.drain.steps import DRAIN_TIMEOUT_S
from qctl.ops.impact.downtime import Downtime
from qctl.ops.impact.jobs_at_risk import JobAtRisk
from qctl.ops.impact.safety import is_writable
from qctl.ops.impact.scope import Scope
from qctl.ops.impact.waiting_work import QueueImpact
from qctl.ops.processes.suggest import command, command_on, redis_cli
from qctl.ops.processes.targets import Target
from qctl.ops.queues.advice import resumer_text
from qctl.plurals import counted
from qctl.wire.drain_record import Resumer
from qctl.wire.keys import QueueKeys
from qctl.wire.read.server import ServerFacts

SAFE, DRAIN_FIRST, NOT_NOW = "safe", "drain first", "not now"
# A job that is due sooner than this may start before the operator has typed the command.
SOON_S = 30.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to whether a restart is safe now.

    Args:
        word: ``safe``, ``drain first`` or ``not now``.
        reasons: clauses.
        commands: what to type, in this order.
        holds_until: for ``safe``, when the next job is due; None if no job is due, or if the
            manager replaces processes without interrupting jobs.
    """

    word: str
    reasons: tuple[str, ...]
    commands: tuple[str, ...]
    holds_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts from which the verdict follows.

    Args:
        interrupted: the jobs that a restart now interrupts, in the worst case.
        interrupted_if_handled: the jobs of ``interrupted`` that are still running when SIGKILL
            comes, if the workers let their jobs finish on the stop signal; None if it is unknown
            when SIGKILL comes.
        handles_signal: whether the workers are known to let their jobs finish on the stop signal.
        moved: queues that looked idle although a job moved while they were read.
        resumers: paused queue that the target resumes at the target's start → the record of a
            drain that saw this.
        masters: the facts about each master; None if INFO is denied.
        is_gapless: whether the manager replaces a process without interrupting its jobs.
        refusal: why qctl would refuse the drain; None if it would not, as far as is known.
        prefixes: the prefixes in force.
    """

    scope: Scope
    queues: Sequence[QueueImpact]
    interrupted: Sequence[JobAtRisk]
    interrupted_if_handled: Sequence[JobAtRisk] | None
    handles_signal: bool
    moved: Sequence[QueueKeys]
    resumers: Mapping[QueueKeys, Resumer]
    downtime: Downtime
    masters: Sequence[ServerFacts] | None
    is_gapless: bool
    refusal: QctlError | None
    now: datetime
    prefixes: Prefixes
    address: Address

    def label(self, queue: QueueImpact) -> str:
        """The name of a queue in the reasons of the verdict."""
        return self.scope.label(queue.keys)

    @property
    def leaves_old_process(self) -> bool:
        """Whether a plain restart would leave an old process running beside the new one."""
        target = self.scope.target
        return target is not None and any(each.restart_trouble for each in target.processes)


def judge(facts: Facts) -> Verdict:
    """The verdict on a restart now."""
    queues, resumers = facts.queues, facts.resumers
    dangers = (
        *_dangers(facts),
        *(
            f"a restart ends the pause of {facts.scope.label(keys)}: {resumer_text(each)}"
            for keys, each in resumers.items()
        ),
    )
    if against := dict.fromkeys(_reasons_against(facts, is_drain_needed=bool(dangers))):
        return Verdict(NOT_NOW, tuple(against), tuple(dict.fromkeys(_commands_instead(facts))))
    if dangers:
        # --keep-paused leaves all queues of the target paused, so all must be paused already.
        keep = ["--keep-paused"] * (bool(resumers) and all(queue.paused for queue in queues))
        # Otherwise, pause again the queues that the target resumes when it starts.
        again = () if keep else (command_on([keys], "pause") for keys in resumers)
        return Verdict(DRAIN_FIRST, dangers, (*_drain_commands(facts, *keep), *again))
    due = [q.next_due_at for q in queues if q.next_due_at is not None and not q.paused]
    # No active job is in danger, so all active jobs run in workers outside the target. The target
    # may run the next attempts of these jobs.
    is_active = any(q.active for q in queues)
    running = "no job of the target is running" if is_active else "no job is running"
    reason = f"{running}, and no job is known that could start at this moment"
    if facts.is_gapless:
        reason = (
            "the target's master starts the new process first, and lets the old one finish its jobs"
        )
    holds_until = None if facts.is_gapless else min(due, default=None)
    if facts.refusal is not None:
        # A plain restart is safe, but the command that qctl would recommend does not work.
        return Verdict(SAFE, (reason, _refused(facts.refusal)), (), holds_until)
    commands = (
        _drain_commands(facts, *_timeout_options(facts.downtime)) if facts.scope.target else ()
    )
    return Verdict(SAFE, (reason,), commands, holds_until)


def _reasons_against(facts: Facts, *, is_drain_needed: bool) -> Iterator[str]:
    """Why even a drain should not begin now."""
    scope = facts.scope
    for snapshot in scope.queues.bullmq:
        if snapshot.lease is not None:
            yield f"{snapshot.lease} is at work on {scope.label(snapshot.keys)}"
    for server in facts.masters or ():
        if server.master is not None:
            yield (
                f"this Redis is a replica of {server.master}: its data may be old, and "
                "nothing can be drained here"
            )
        elif is_writable(server) is False:
            yield (
                f"{server.product} refuses writes, or is about to, so jobs can neither end nor be "
                "drained"
            )
    for keys, error in scope.queues.broken:
        yield f"{scope.label(keys)} cannot be read: {error.message}"
    if not facts.is_gapless:
        for keys in scope.queues.bull:
            yield f"{scope.label(keys)} is a queue of Bull 3 or 4, which qctl cannot judge"
    if facts.refusal is not None and (is_drain_needed or facts.leaves_old_process):
        yield _refused(facts.refusal)
    wait_s = facts.downtime.drain_wait_p50_s
    if is_drain_needed and wait_s is not None and wait_s > DRAIN_TIMEOUT_S:
        yield (
            f"the running jobs probably need another {wait_s / 60:.0f} minutes, longer than a "
            f"drain waits ({DRAIN_TIMEOUT_S / 60:.0f} minutes)"
        )


def _dangers(facts: Facts) -> Iterator[str]:
    """Why a plain restart harms jobs, or may harm them."""
    interrupted, at_best = facts.interrupted, facts.interrupted_if_handled
    if at_best is None or not facts.handles_signal:
        if interrupted:
            yield f"a plain restart would interrupt {_harm(interrupted, at_best)}"
    elif at_best:
        yield f"a plain restart would probably interrupt {_harm(at_best)}"
    elif interrupted:
        jobs = counted(len(interrupted), "job is", "jobs are")
        yield f"{jobs} running, and will probably, but not certainly, end before the kill"
    if facts.is_gapless:
        return
    if not_read := facts.scope.not_read:
        yield f"the target also serves {', '.join(not_read)}, whose jobs were not read"
    if facts.scope.may_serve_more:
        yield facts.scope.may_serve_more
    for queue in facts.queues:
        why = [*_may_start(facts, queue)]
        if queue.keys in facts.moved and not why:
            why = [f"jobs of {facts.label(queue)} are moving, and one may start at any moment"]
        yield from why
    if facts.masters is None or None in map(is_writable, facts.masters):
        yield "it is unknown whether Redis accepts writes, and without writes no job can end"


def _may_start(facts: Facts, queue: QueueImpact) -> Iterator[str]:
    """Why a job of a queue may start before the restart, or may already run without a lock.

    The reasons hold even if no worker of the queue is seen: Redis does not list every worker.
    """
    name = facts.label(queue)
    if queue.stalled:
        jobs = counted(queue.stalled, "job of", "jobs of")
        # A worker that was too busy to renew the lock still runs the job, even in a paused queue.
        then = "may still run" if queue.paused else "may still run, or start again at any moment"
        put_back = command_on([queue.keys], "jobs retry-stalled")
        yield f"{jobs} {name} without a lock {then} ({put_back} puts stalled jobs back)"
    if queue.paused:
        return
    if waiting := queue.waiting + queue.prioritized:
        jobs = counted(waiting, "job waits", "jobs wait")
        yield f"{jobs} in {name}, so one may start at any moment"
    elif queue.waiting_is_least:
        yield (
            f"jobs may wait in {name}'s groups of BullMQ Pro, which qctl does not count, so "
            "one may start at any moment"
        )
    elif parents := queue.waiting_children:
        jobs = counted(parents, "job waits", "jobs wait")
        whose = "its" if parents == 1 else "their"
        yield (
            f"{jobs} in {name} for {whose} children; a parent may start at any moment, as soon as "
            "its last child has ended"
        )
    elif queue.next_due_at is not None:
        left = queue.next_due_at - facts.now
        if left < timedelta(seconds=SOON_S):
            when = f"in {left.total_seconds():.0f} s" if left > timedelta(0) else "now"
            yield f"a job of {name} is due {when}"
    elif queue.delayed:
        yield f"it is unknown when the next delayed job of {name} is due"


def _harm(jobs: Sequence[JobAtRisk], at_best: Sequence[JobAtRisk] | None = None) -> str:
    """How many jobs are interrupted, in the best case only ``at_best``, and how many then fail."""
    count, failing = len(jobs), sum(job.fails_for_good for job in jobs)
    text, up_to = counted(count, "job"), ""
    if at_best is not None and len(at_best) < count:
        text, up_to = f"{len(at_best):,} to {text}", "up to "
    if failing:
        one = "it would fail" if count == 1 else f"{up_to}{failing:,} of them would fail"
        text += f", and {one} for good"
    return text


def _commands_instead(facts: Facts) -> Iterator[str]:
    """The commands to type if even a drain should not begin."""
    scope, address = facts.scope, facts.address
    leased = [snapshot.keys for snapshot in scope.queues.bullmq if snapshot.lease]
    if odd := [*leased, *(keys for keys, _ in scope.queues.broken), *scope.queues.bull]:
        yield command_on(odd, "status")
    for server in facts.masters or ():
        if server.master is not None:
            target = ["--target", scope.target.label] if scope.target else []
            host, _, port = server.master.rpartition(":")
            master = replace(address, mode="standalone", host=host, port=int(port), unix_path=None)
            yield command(scope.prefix, "impact", *target, redis=str(master))
        elif is_writable(server) is False:
            yield redis_cli(address, server.node, "info")
    if facts.refusal is None and (options := _timeout_options(facts.downtime)):
        yield from _drain_commands(facts, *options)


def _refused(error: QctlError) -> str:
    text = f"qctl would refuse the drain: {error.what}"
    text += f": {error.why}" if error.why else ""
    return text + (f"; {error.hint}" if error.hint else "")


def _timeout_options(downtime: Downtime) -> tuple[str, ...]:
    """Options that raise the time limit of a drain, with a margin; () if the default is enough."""
    wait_s = downtime.drain_wait_p95_s
    if wait_s is None or wait_s <= DRAIN_TIMEOUT_S:
        return ()
    return "--timeout", f"{round(wait_s * 1.5 / 60)}m"


def _drain_commands(facts: Facts, *options: str) -> tuple[str, ...]:
    """Commands to restart the target without harm. Without a target: drain and resume."""
    scope, address = facts.scope, facts.address
    if scope.wider:
        # A drain of these queues alone would not protect the jobs of the other queues.
        return (scope.wider,)
    if scope.target is None:
        # The queues where a job runs or may start; if there are none, all queues.
        at_work = [
            q.keys
            for q in facts.queues
            if q.active
            or (not q.paused and (q.waiting + q.prioritized + q.delayed + q.waiting_children))
        ] or [q.keys for q in facts.queues]
        return (command_on(at_work, "drain", *options), command_on(at_work, "resume"))
    places = list(dict.fromkeys(worker.place for worker in scope.foreign))
    known = [place for place in places if place is not None]
    # If a place is unknown, --ignore-others is left out: ``restart`` then refuses, and its message
    # names the queues.
    drained = known if len(known) == len(places) else []
    restart, others = _restart(facts, scope.target)
    if not scope.foreign:
        return (restart(*(["--include-others"] if others else ()), *options),)
    if not drained:
        return (restart(*options),)
    return (
        *(command_on([keys], "drain") for keys in others),
        *(_elsewhere("drain", place, address) for place in drained),
        restart("--ignore-others", *options),
        *(command_on([keys], "resume") for keys in others),
        *(_elsewhere("resume", place, address) for place in drained),
    )


def _restart(facts: Facts, target: Target) -> tuple[Callable[..., str], Sequence[QueueKeys]]:
    """How to type the restart of a target, and which queues it does not drain by default.

    Returns:
        a function that takes further options and returns the command to type.
        the queues of this database that the command drains only with ``--include-others``.
    """
    scope = facts.scope
    served = scope.connections.queues_of(target.processes) if scope.connections else set()
    prefix = scope.prefix
    # Without a common prefix, the prefixes in force choose the queues.
    chosen = {
        keys
        for keys in served
        if (keys.prefix == prefix if prefix else facts.prefixes.include(keys.prefix, keys.name))
    }
    if chosen or target.configured:
        others = sorted(served.difference(chosen))
        return partial(command, prefix, "restart", target.label), others
    # ``restart`` would not find out which queues to drain, so type a drain that names the queues.
    queues = [queue.keys for queue in facts.queues if queue.keys in served or not served]
    drain = partial(command_on, queues, "drain", "--then-restart", "--target", target.label)
    return drain, sorted(served.difference(queues))


def _elsewhere(verb: str, place: tuple[str, str, int], address: Address) -> str:
    """A command for a queue under another prefix or in another database of this Redis."""
    prefix, queue, db = place
    redis = "" if db == address.db else str(replace(address, db=db))
    return command(prefix, verb, queue, redis=redis)
