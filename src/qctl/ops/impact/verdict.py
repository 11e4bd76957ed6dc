"""Safe now, drain first, or not now; why, and the command to type.

It goes by the worst case, and by what may begin at any moment: a queue with a backlog has no active
job only by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from qctl.connection.address import Address
from qctl.ops.drain.steps import DRAIN_TIMEOUT_S
from qctl.ops.impact.downtime import Downtime
from qctl.ops.impact.jobs_at_risk import JobAtRisk
from qctl.ops.impact.safety import DataSafety
from qctl.ops.impact.scope import Scope
from qctl.ops.impact.waiting_work import QueueImpact
from qctl.ops.processes.suggest import command
from qctl.ops.queues.resumers import habit
from qctl.plurals import counted
from qctl.wire.drain_record import Resumer

SAFE, DRAIN_FIRST, NOT_NOW = "safe", "drain first", "not now"
# A job that is due sooner may start while somebody still types.
SOON_S = 30.0

_Say = Callable[..., str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer.

    Args:
        word: ``safe``, ``drain first`` or ``not now``.
        reasons: clauses, the most pressing first.
        commands: to type; the first does it.
        holds_until: for ``safe``: when the next job is due.
    """

    word: str
    reasons: tuple[str, ...]
    commands: tuple[str, ...]
    holds_until: datetime | None = None


def judge(
    scope: Scope,
    queues: Sequence[QueueImpact],
    *,
    interrupted: Sequence[JobAtRisk],
    probably: Sequence[JobAtRisk] | None,
    moved: Sequence[str],
    resumers: Sequence[Resumer],
    downtime: Downtime,
    data: Sequence[DataSafety] | None,
    is_gapless: bool,
    now: datetime,
    prefix: str,
    address: Address,
) -> Verdict:
    """The verdict on a restart now.

    Args:
        interrupted: at worst.
        probably: those of them that are, where the workers are known to finish their jobs.
        moved: queues that looked idle, and in which a job has moved while they were looked at.
        resumers: paused queues that the target resumes when it starts.
        data: of each master; None when it cannot be told.
        prefix: of the queues.
        address: of this Redis.
        is_gapless: the manager replaces a process without interrupting its jobs.
    """
    say = partial(command, prefix)
    endangered = (
        *_endangered(scope, queues, interrupted, probably, moved, data, is_gapless, now, say),
        *(f"a restart ends the pause of {each.queue}: {habit(each)}" for each in resumers),
    )
    against = (*_against(scope, data or (), is_gapless), *_too_long(downtime, endangered))
    if against:
        instead = _instead(scope, queues, downtime, data or (), say, address)
        return Verdict(NOT_NOW, tuple(dict.fromkeys(against)), tuple(dict.fromkeys(instead)))
    if endangered:
        # It leaves all queues of the target paused, so no other may run.
        stay = ["--keep-paused"] * (bool(resumers) and all(queue.paused for queue in queues))
        again = () if stay else (say("pause", each.queue) for each in resumers)
        return Verdict(
            DRAIN_FIRST, endangered, (*_drain(scope, queues, address, say, *stay), *again)
        )
    due = [q.next_due_at for q in queues if q.next_due_at is not None and not q.paused]
    # Those that run are other workers', and a retry of one may come here.
    running = "no running job is its own" if any(q.active for q in queues) else "no job is running"
    reason = f"{running}, and none is known that could start at this moment"
    if is_gapless:
        reason = "its master starts the new process first, and lets the old one finish its jobs"
    return Verdict(
        SAFE,
        (reason,),
        _drain(scope, queues, address, say, *_patience(downtime))
        if scope.target is not None
        else (),
        holds_until=None if is_gapless else min(due, default=None),
    )


def _against(scope: Scope, data: Sequence[DataSafety], is_gapless: bool) -> Iterator[str]:
    """Why even a drain should not begin now."""
    for snapshot in scope.snapshots:
        if snapshot.lease is not None:
            yield f"{snapshot.lease} is at work on {snapshot.keys.name}"
    for server in data:
        if server.replica_of is not None:
            yield (
                f"this Redis is a replica of {server.replica_of}: what it has may be old, and "
                "nothing can be drained here"
            )
        elif server.is_writable is False:
            yield "Redis refuses writes, or is about to, so jobs can neither end nor be drained"
    for name, error in scope.queues.broken:
        yield f"{name} cannot be read: {error.message}"
    if not is_gapless:
        for name in scope.bull:
            yield f"{name} is a queue of Bull 3 or 4, which qctl cannot judge"


def _too_long(downtime: Downtime, endangered: Sequence[str]) -> Iterator[str]:
    """Why a drain would fail, where one is needed."""
    wait_s = downtime.drain_wait_p50_s
    if endangered and wait_s is not None and wait_s > DRAIN_TIMEOUT_S:
        yield (
            f"the running jobs probably need another {wait_s / 60:.0f} minutes, longer than a "
            f"drain waits ({DRAIN_TIMEOUT_S / 60:.0f} minutes)"
        )


def _endangered(
    scope: Scope,
    queues: Sequence[QueueImpact],
    interrupted: Sequence[JobAtRisk],
    probably: Sequence[JobAtRisk] | None,
    moved: Sequence[str],
    data: Sequence[DataSafety] | None,
    is_gapless: bool,
    now: datetime,
    say: _Say,
) -> Iterator[str]:
    """Why a plain restart would do harm, or might."""
    if interrupted and probably is None:
        yield f"a plain restart would interrupt {_harm(interrupted)}"
    elif probably:
        yield f"a plain restart would probably interrupt {_harm(probably)}"
    elif interrupted:
        jobs = counted(len(interrupted), "job is", "jobs are")
        yield f"{jobs} running: that they end before they are killed is likely only"
    if is_gapless:
        return
    if scope.foreign:
        elsewhere = ", ".join(dict.fromkeys(map(str, scope.foreign)))
        yield f"it also serves {elsewhere}, whose jobs were not looked at"
    if scope.unsure:
        yield scope.unsure
    for queue in queues:
        why = [*_may_start(queue, now, say)]
        if queue.name in moved and not why:
            why = [f"jobs of {queue.name} move just now, and one may start at any moment"]
        yield from why
    if data is None or any(server.is_writable is None for server in data):
        yield "whether Redis takes writes, without which no job can end, cannot be told"


def _may_start(queue: QueueImpact, now: datetime, say: _Say) -> Iterator[str]:
    """Why a job of a queue may start, or may run unseen, between the question and the restart.

    Also where no worker is seen: not every client shows itself as one.
    """
    if queue.stalled:
        jobs = counted(queue.stalled, "job of", "jobs of")
        # A worker too busy to renew a lock still has the job, whether the queue is paused or not.
        then = "may still run" if queue.paused else "may still run, or start again at any moment"
        put_back = say("jobs retry-stalled", queue.name)
        yield f"{jobs} {queue.name} without a lock {then} ({put_back} puts back what has stalled)"
    if queue.paused:
        return
    if waiting := _waiting(queue):
        jobs = counted(waiting, "job waits", "jobs wait")
        yield f"{jobs} in {queue.name}, so one may start at any moment"
    elif parents := queue.waiting_children:
        jobs = counted(parents, "job waits", "jobs wait")
        yield (
            f"{jobs} for children in {queue.name}, so one may start at any moment, once its last "
            "child has ended"
        )
    elif queue.next_due_at is not None:
        left = queue.next_due_at - now
        if left < timedelta(seconds=SOON_S):
            when = f"in {left.total_seconds():.0f} s" if left > timedelta(0) else "now"
            yield f"a job of {queue.name} is due {when}"
    elif queue.delayed:
        yield f"when the next delayed job of {queue.name} is due cannot be told"


def _harm(jobs: Sequence[JobAtRisk]) -> str:
    count, failing = len(jobs), sum(job.fails_for_good for job in jobs)
    text = counted(count, "job")
    if failing:
        one = "it would fail" if count == 1 else f"{failing:,} of them would fail"
        text += f", and {one} for good"
    return text


def _instead(
    scope: Scope,
    queues: Sequence[QueueImpact],
    downtime: Downtime,
    data: Sequence[DataSafety],
    say: _Say,
    address: Address,
) -> Iterator[str]:
    """What to type when even a drain should not begin."""
    leased = [snapshot.keys.name for snapshot in scope.snapshots if snapshot.lease]
    if odd := [*leased, *(name for name, _ in scope.queues.broken), *scope.bull]:
        yield say("status", *odd)
    for server in data:
        if server.replica_of is not None:
            target = ["--target", scope.target.label] if scope.target else []
            yield say("impact", *target, redis=_url(address, server.replica_of))
        elif server.is_writable is False:
            yield "redis-cli INFO"
    if patience := _patience(downtime):
        yield from _drain(scope, queues, address, say, *patience)


def _patience(downtime: Downtime) -> tuple[str, ...]:
    """What a drain has to be told that waits longer than usual, be it for other workers' jobs."""
    wait_s = downtime.drain_wait_p95_s
    if wait_s is None or wait_s <= DRAIN_TIMEOUT_S:
        return ()
    return "--timeout", f"{round(wait_s * 1.5 / 60)}m"


def _drain(
    scope: Scope, queues: Sequence[QueueImpact], address: Address, say: _Say, *options: str
) -> tuple[str, ...]:
    """The commands that restart without an interruption; with unknown workers, around it."""
    target, connections = scope.target, scope.connections
    if scope.wider:
        # A drain of these queues alone would spare the others' jobs nothing.
        return (say("impact", *scope.wider),)
    if target is None:
        # Of many queues those where something runs or may start.
        at_work = [
            q.name
            for q in queues
            if q.active or (not q.paused and (_waiting(q) or q.delayed or q.waiting_children))
        ] or [q.name for q in queues]
        return (say("drain", *at_work, *options), say("resume", *at_work))
    if target.configured or (connections and connections.queues_of(target.processes)):
        places = list(dict.fromkeys(worker.place for worker in scope.foreign))
        known = [place for place in places if place is not None]
        # A restart without --ignore-others refuses, and says what else it would interrupt.
        spared = known if len(known) == len(places) else []
        return (
            *(_beside("drain", place, address) for place in spared),
            say("restart", target.label, *(["--ignore-others"] if spared else ()), *options),
            *(_beside("resume", place, address) for place in spared),
        )
    words = [*(queue.name for queue in queues), "--then-restart", "--target", target.label]
    return (say("drain", *words, *options),)


def _beside(verb: str, place: tuple[str, str, int], address: Address) -> str:
    """A command for a queue under another prefix or in another database of this Redis."""
    prefix, queue, db = place
    redis = "" if db == address.db else str(replace(address, db=db))
    return command(prefix, verb, queue, redis=redis)


def _url(address: Address, place: str) -> str:
    """Of another server; to be completed with this one's password."""
    host, _, port = place.rpartition(":")
    return str(replace(address, mode="standalone", host=host, port=int(port), unix_path=None))


def _waiting(queue: QueueImpact) -> int:
    return queue.waiting + queue.prioritized
