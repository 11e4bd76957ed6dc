"""Replace the processes of a target one after another, while the queues keep working.

Nothing is paused: each process finishes its own jobs and exits, while the others take jobs. Some
apps exit without finishing their jobs, so the roll checks after each process whether it left jobs
behind, and stops at the first process that did.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from qctl.errors import FailedError
from qctl.manage.protocol import ManagedProcess, Signaller
from qctl.ops.drain.context import EARLY_ENDS, DrainContext
from qctl.ops.drain.pause import pause_queue
from qctl.ops.drain.proof import take_inventory
from qctl.ops.drain.recover import put_jobs_back
from qctl.ops.drain.restart import Restarted
from qctl.ops.drain.roll.ledger import RollLedger
from qctl.ops.drain.roll.turn import Turn
from qctl.ops.drain.steps import Step
from qctl.ops.processes.stopped import label
from qctl.ops.processes.targets import Target
from qctl.plurals import counted
from qctl.wire.events import last_event_id
from qctl.wire.keys import JobKey
from qctl.wire.read.active import read_active
from qctl.wire.read.server import clock_ms
from qctl.wire.read.snapshot import QueueSnapshot, read_snapshots


def roll(context: DrainContext) -> Generator[Step, None, Restarted]:
    """Replace every process of the target.

    Returns:
        which processes were replaced, and in ``ended_by`` why the roll ended early: TimedOut, a
        process still runs jobs, and exits once they end; Interrupted, the operator wants to stop,
        and a process that was asked to exit still does; FailedError, jobs were interrupted, or a
        new process does not get ready; RefusedError, another drain has taken a lease.
    """
    turns: list[Turn] = []
    ended_by: Exception | None = None
    try:
        yield from _take_turns(context, turns)
    except EARLY_ENDS as ending:
        ended_by = ending
    return Restarted(
        old_pids=tuple(turn.old_pid for turn in turns if turn.old_pid),
        new_pids=tuple(turn.new_pid for turn in turns if turn.new_pid),
        ended_by=ended_by,
    )


def _take_turns(context: DrainContext, turns: list[Turn]) -> Iterator[Step]:
    target, ledger = context.plan.target, context.tracker.ledger
    assert target is not None  # noqa: S101 - a roll is planned with one
    assert isinstance(ledger, RollLedger)  # noqa: S101 - and has a ledger of its own
    orphans_at_start = _begin(context, ledger)
    for planned in target.processes:
        turn = Turn(context, ledger, target, planned)
        turns.append(turn)
        yield from turn.run()
        # Those that are in the queue again (None) are not put back once more.
        locks = {key: job.lock_token or "" for key, job in turn.harmed.items() if job is not None}
        ledger.add_jobs(turn.harmed)
        ledger.note_interrupted(turn.harmed)
        yield from put_jobs_back(context, locks)
        if turn.error is not None:
            raise turn.error
        if turn.harmed:
            raise _interrupted(target, planned, turn)
    context.tracker.catch_up()
    ledger.backlog = _backlog(context)
    # The workers of these jobs have been replaced, or were gone before the roll.
    active = read_active(context.client, context.queues)
    orphans = [job.key for job in active if job.is_orphan and job.key in orphans_at_start]
    yield from put_jobs_back(context, dict.fromkeys(orphans, ""))


def _begin(context: DrainContext, ledger: RollLedger) -> set[JobKey]:
    """Follow the queues and their active jobs; return those without a lock."""
    tracker = context.tracker
    for keys in context.queues:
        if keys in context.plan.left_behind:
            # The roll takes this pause over, to resume the queue at the end.
            pause_queue(context, keys)
        else:
            tracker.cursors[keys] = last_event_id(context.client, keys)
        take_inventory(context.client, tracker, keys)
    jobs = read_active(context.client, context.queues)
    tracker.inventory.begin_active(job.key for job in jobs)
    ledger.backlog = _backlog(context)
    ledger.begin(jobs, backlog=ledger.backlog, at_ms=clock_ms(context.client))
    return {job.key for job in jobs if job.is_orphan}


def _backlog(context: DrainContext) -> int:
    found = read_snapshots(context.client, context.queues)
    return sum(s.backlog for s in found if isinstance(s, QueueSnapshot) and not s.paused)


def _interrupted(target: Target, process: ManagedProcess, turn: Turn) -> FailedError:
    count = len(turn.harmed)
    jobs = counted(count, "job")
    what = f"{label(process)} left {jobs} behind, so the roll ended with it"
    if isinstance(target.manager, Signaller):
        return FailedError(
            what,
            why=f"it does not finish its jobs on {process.stop_signal}, or takes the whole process "
            "down before",
            hint="--strategy pause needs nothing from the app",
        )
    return FailedError(
        what, why="it ended before its jobs did", hint=f"qctl worker logs {process.name}"
    )
