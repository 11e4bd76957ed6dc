"""Replace the processes of a target one after another, while the queues keep working.

The roll pauses no queue: each process finishes its own jobs and exits, while the other processes
take jobs. Some apps exit without finishing their jobs. Therefore, after each exit, the roll checks
whether the process left jobs behind, and goes no further if it did.
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
        which processes were replaced, and in ``ended_by`` why the roll ended early:
            TimedOut: a process still runs jobs; it exits once they end.
            Interrupted: the operator wants to stop; a process already asked to exit still exits.
            RefusedError: another drain has taken a lease.
            QctlError: for example, jobs were interrupted, or a new process is not ready.
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
    assert target is not None  # noqa: S101 - every roll has a target
    assert isinstance(ledger, RollLedger)  # noqa: S101
    orphans_at_start = _begin(context, ledger)
    for planned in target.processes:
        turn = Turn(context, ledger, target, planned)
        turns.append(turn)
        yield from turn.run()
        # Put back the jobs that the process left behind. Those with None are already back.
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
    # Also put back the jobs that had lost their worker before the roll began.
    active = read_active(context.client, context.queues)
    orphans = [job.key for job in active if job.is_orphan and job.key in orphans_at_start]
    yield from put_jobs_back(context, dict.fromkeys(orphans, ""))


def _begin(context: DrainContext, ledger: RollLedger) -> set[JobKey]:
    """Follow the queues and their active jobs; return the jobs that have no lock."""
    tracker = context.tracker
    for keys in context.queues:
        if keys in context.plan.left_behind:
            # An earlier drain left this queue paused. Take the pause over, so that the end of the
            # roll resumes the queue.
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
    jobs = counted(len(turn.harmed), "job")
    what = f"{label(process)} left {jobs} behind, so the roll ended with this process"
    why, hint = "it ended before its jobs did", f"qctl worker logs {process.name}"
    if isinstance(target.manager, Signaller):
        why = f"the app exits on {process.stop_signal} before it has finished its jobs"
        hint = "use --strategy pause, which needs nothing from the app"
    return FailedError(what, why=why, hint=hint)
