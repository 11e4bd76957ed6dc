"""The report at the end of a drain: what became of the jobs, and what the operator should know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

from qctl.errors import ExitStatus, QctlError, ReplyError, is_outage
from qctl.ops.drain.context import DrainContext, TimedOut
from qctl.ops.drain.finish import PutBack
from qctl.ops.drain.plan import not_restarted, stays_paused
from qctl.ops.drain.proof import Verdict, prove, unproved
from qctl.ops.drain.restart import Restarted
from qctl.ops.drain.steps import DrainReport, error_text
from qctl.ops.processes.suggest import command
from qctl.plurals import counted
from qctl.wire.keys import QueueKeys
from qctl.wire.read.active import ActiveJob, read_active
from qctl.wire.read.clients import list_all_workers
from qctl.wire.read.server import clock_ms
from qctl.wire.read.snapshot import are_paused

# A suggested command has at most this many job ids.
MAX_NAMED = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a drain ended.

    Args:
        name: see ``DrainReport.outcome``.
        error: why the drain ended early; None after a timeout, or if the drain did not end early.
    """

    name: str
    error: QctlError | None = None


@dataclass(frozen=True, slots=True)
class _End:
    """The state of the jobs and queues at the end.

    Args:
        active: the jobs that still run; after a roll that timed out, only those of the process
            that has not exited.
        paused: queues that are paused; None when unknown.
        unserved: see ``DrainReport``.
        now_ms: Redis' time.
        trouble: why the state could not be read; None if it was read.
    """

    verdict: Verdict
    active: tuple[ActiveJob, ...]
    paused: frozenset[QueueKeys] | None
    unserved: tuple[str, ...] | None
    now_ms: int
    trouble: QctlError | None = None


def make_report(
    context: DrainContext, restarted: Restarted, put_back: PutBack, outcome: Outcome
) -> DrainReport:
    """Prove what became of the jobs, and put the report together."""
    plan, ledger, pauses = context.plan, context.tracker.ledger, context.tracker.pauses
    end = _read_end(context, restarted)
    trouble, verdict = end.trouble, end.verdict
    ended = _pauses_ended(context, end.paused)
    jobs = ledger.outcomes(plan.label)
    results = [job.result for job in jobs]
    until_ms = pauses.ended_ms or end.now_ms
    # A drain that could not put everything back has failed.
    error = outcome.error or put_back.trouble
    if error is None and trouble is not None and is_outage(trouble):
        # If Redis was away at the end, the drain has failed. A refused read only adds a note.
        error = trouble
    return DrainReport(
        outcome=outcome.name,
        queues=plan.labels,
        target=plan.target.label if plan.target else None,
        prefix=plan.prefix,
        strategy=plan.strategy,
        active_at_start=ledger.active_at_start,
        completed=results.count("completed"),
        failed=results.count("failed"),
        retried=results.count("retried"),
        interrupted=_interrupted(context, restarted, trouble),
        recovered=ledger.recovered,
        lost=verdict.lost,
        proof=verdict.proof,
        jobs=tuple(jobs),
        paused_s=max(until_ms - (pauses.began_ms or until_ms), 0) / 1000,
        idle_s=None if trouble else ledger.idle_s(end.now_ms),
        old_pids=restarted.old_pids,
        new_pids=restarted.new_pids,
        resumed=_is_resumed(context, put_back, ended),
        still_paused=None
        if end.paused is None
        else tuple(context.label(keys) for keys in context.queues if keys in end.paused),
        unserved=end.unserved,
        still_active=plan.shown(end.active) if outcome.name == "timeout" else (),
        paused_again=pauses.times_paused_again.total(),
        notes=tuple(_notes(context, restarted, end, ended, error)),
        error=error_text(error),
        hint=error.hint if error else "",
        exit_status=_exit_status(outcome.name, error, verdict),
        command=plan.command.argv if plan.command else (),
        rule=restarted.rule,
        workers=restarted.workers,
        processes=restarted.processes,
    )


def _read_end(context: DrainContext, restarted: Restarted) -> _End:
    """Read the state of the jobs and queues; after an error, the state is unknown."""
    tracker = context.tracker
    late = restarted.ended_by if isinstance(restarted.ended_by, TimedOut) else TimedOut()
    try:
        verdict = prove(context.client, tracker)
        active = read_active(context.client, context.queues)
        now_ms = clock_ms(context.client)
        states = zip(context.queues, are_paused(context.client, context.queues), strict=True)
        paused = frozenset(keys for keys, is_paused in states if is_paused)
        still_active = tuple(
            job for job in active if late.tokens is None or job.lock_token in late.tokens
        )
        return _End(verdict, still_active, paused, _unserved(context, paused, active), now_ms)
    except QctlError as failure:
        why = f"the outcome of the jobs could not be read: {failure.what}"
        for job in tracker.ledger.unsettled:
            tracker.ledger.settle(job, "unknown")
        now_ms = tracker.pauses.ended_ms or tracker.pauses.began_ms or 0
        return _End(unproved(tracker, why), late.active, None, None, now_ms, failure)


def _unserved(
    context: DrainContext, paused: Container[QueueKeys], active: Iterable[ActiveJob]
) -> tuple[str, ...] | None:
    """Queues that run although no worker is connected to them; None when that is unknown."""
    try:
        connected = list_all_workers(context.client, context.queues, context.address.db)
    except ReplyError:
        return None
    if connected is None:
        return None
    running = Counter(job.keys for job in active if not job.is_orphan)
    served = {keys: connected.workers.of(keys, running=running[keys]) for keys in context.queues}
    if None in served.values():
        return None
    return tuple(context.label(q) for q in context.queues if q not in paused and not served[q])


def _interrupted(
    context: DrainContext, restarted: Restarted, trouble: QctlError | None
) -> int | None:
    """The number of interrupted jobs; None if the ledger may lack some."""
    # In a roll, only events show which jobs a stalled check has put back.
    lacks_stalls = bool(context.tracker.missed) and context.plan.strategy == "roll"
    lacks_others = (
        restarted.has_stopped_workers and context.plan.ignored
    ) or restarted.stopped_beside
    if trouble is not None or lacks_stalls or lacks_others:
        return None
    return context.tracker.ledger.interrupted


def _is_resumed(context: DrainContext, put_back: PutBack, ended: set[QueueKeys]) -> bool | None:
    """See ``DrainReport.resumed``; ``ended`` is the result of ``_pauses_ended``."""
    pauses = context.tracker.pauses
    if pauses.ours:
        return False
    if not (pauses.own_pause_ids or pauses.resumed):
        # All queues were paused before the drain. They run now only if an app resumed them.
        return context.plan.strategy != "roll" and ended == set(context.queues)
    # Only the drain's own resumes need to be confirmed.
    return True if put_back.is_confirmed or not pauses.resumed else None


def _pauses_ended(context: DrainContext, paused: frozenset[QueueKeys] | None) -> set[QueueKeys]:
    """Queues that somebody had paused before the drain and that run at the end of the drain.

    Args:
        paused: queues that are paused at the end; None when unknown.
    """
    plan = context.plan
    before = {snapshot.keys for snapshot in plan.snapshots if snapshot.paused}
    before -= plan.left_behind
    if paused is not None:
        return before - paused
    return set() if context.stays_paused else before & context.tracker.pauses.resumed_by_others


# Notes


def _notes(
    context: DrainContext,
    restarted: Restarted,
    end: _End,
    ended: set[QueueKeys],
    error: QctlError | None,
) -> Iterator[str]:
    plan = context.plan
    yield from _notes_on_pauses_before(context, ended)
    yield from context.notes
    if end.trouble:
        yield end.verdict.proof.why
    yield from _notes_on_processes(context, restarted, error)
    yield from _notes_on_resumes(context, ended)
    if context.client.away_s >= 1:
        yield f"Redis was away for {context.client.away_s:.0f} s in all"
    if plan.not_restarted:
        yield not_restarted(plan.not_restarted)
    yield from _notes_on_proof(context, end.verdict)
    if restarted.stopped_beside:
        yield (
            f"workers of {', '.join(restarted.stopped_beside)} went away while the command ran: "
            "their jobs may have been interrupted, which is not in the figures"
        )
    if plan.ignored and restarted.has_stopped_workers:
        # The restart did not wait for the jobs of these queues.
        running, names = restarted.ignored_running, ", ".join(plan.ignored)
        what = f"jobs of {names} that were running"
        if running is not None:
            what = f"{counted(running, 'job')} of {names} that ran before the restart"
        yield (
            f"{what} may have been interrupted, which is not in the figures; such jobs run again "
            "once their locks have expired and a worker has checked for stalled jobs"
        )


def _notes_on_processes(
    context: DrainContext, restarted: Restarted, error: QctlError | None
) -> Iterator[str]:
    """Notes on processes that were not replaced, and on errors other than the drain's own."""
    was = "was to be replaced" if context.plan.strategy == "roll" else "was asked to stop"
    for process in restarted.processes:
        if process.old_pid and not process.new_pid:
            yield f"pid {process.old_pid} {was}; the new process has not been confirmed up"
        if process.error and process.error != error_text(error):
            yield ": ".join(process.error.splitlines()[:2])
    left = [f"{p.target} id {p.key}" for p in restarted.processes if p.result == "untouched"]
    if restarted.old_pids and left:
        yield f"not restarted: {', '.join(left)}"


def _notes_on_pauses_before(context: DrainContext, ended: set[QueueKeys]) -> Iterator[str]:
    """Notes on queues that were paused when the drain began."""
    pauses = context.tracker.pauses
    taken_over = context.plan.left_behind & (pauses.ours | pauses.resumed)
    for snapshot in context.plan.snapshots:
        keys, note = snapshot.keys, snapshot.pause_note
        name = context.label(keys)
        if keys in taken_over:
            yield f"{name} had been left paused by {note}; this drain took the pause over"
        elif snapshot.paused and keys not in ended:
            yield stays_paused(snapshot, name)


def _notes_on_resumes(context: DrainContext, ended: set[QueueKeys]) -> Iterator[str]:
    """Notes on resumes by somebody else."""
    pauses = context.tracker.pauses
    for keys in context.queues:
        name = context.label(keys)
        end = "; it was paused before the drain, and runs now" if keys in ended else ""
        if keys in pauses.lost_by_redis:
            yield (
                f"Redis had lost the pause of {name}, as after a failover, so the queue was "
                "paused again"
            )
        count, target = pauses.times_paused_again.get(keys, 0), pauses.resumed_at_start.get(keys)
        again = f", and paused again {'once' if count == 1 else f'{count} times'}" if count else ""
        if target is not None:
            yield (
                f"{name} was resumed while {target} started{again}: the app seems to resume "
                f"its queues when it starts, which ends any pause{end}"
            )
        elif keys in pauses.resumed_by_others:
            during = f" during the drain{again}" if count else ""
            yield f"{name} was resumed by somebody else{during}{end}"
        elif keys in ended:
            yield f"{name} was paused before the drain, and runs now"


def _notes_on_proof(context: DrainContext, verdict: Verdict) -> Iterator[str]:
    """Notes on how to find lost jobs and put them back, and on deleted jobs."""
    proof, prefix = verdict.proof, context.prefix
    lost = [job for job in context.tracker.ledger.outcomes(context.label) if job.result == "lost"]
    if lost or (verdict.lost is None and proof.checked != "nothing"):
        names = sorted({job.queue for job in lost} or {*context.plan.labels})
        note = f"to find jobs that are in no state: {command(prefix, 'doctor', *names, '--full')}"
        if lost:
            queue = lost[0].queue
            ids = [job.id for job in lost if job.queue == queue]
            is_all = len(ids) <= MAX_NAMED and len(names) == 1
            note += (
                f"; to see one: {command(prefix, 'jobs show', queue, ids[0])}; to put "
                f"{'back what is left of them' if is_all else 'the first ones back'}: "
                f"{command(prefix, 'jobs retry', queue, *ids[:MAX_NAMED])}"
            )
        yield note
    if proof.deleted:
        what = counted(proof.deleted, "job was", "jobs were")
        yield f"{what} deleted during the drain without an event, as BullMQ's queue.drain() does"


def _exit_status(outcome: str, error: QctlError | None, verdict: Verdict) -> int:
    if error is not None:
        return int(error.exit_status)
    if outcome == "timeout":
        return int(ExitStatus.TIMED_OUT)
    # A resume by somebody else may have lost jobs (wire format 10.2).
    may_have_lost = verdict.lost is None and bool(verdict.proof.resumed_by_others)
    return int(ExitStatus.FAILED if verdict.lost or may_have_lost else ExitStatus.OK)
