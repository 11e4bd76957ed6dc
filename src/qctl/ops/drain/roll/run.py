"""Replace the processes of a target in batches, while the queues keep working.

The processes of a batch are replaced at the same time; by default, a batch is one process. The roll
pauses no queue: each process finishes its own jobs and exits, while the other processes take jobs.
Some apps exit without finishing their jobs. Therefore, after each batch, the roll checks whether
the processes of the batch left jobs behind, and goes no further if they did.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

from qctl.errors import FailedError
from qctl.manage.protocol import ManagedProcess, Signaller
from qctl.ops.drain.batch import raise_first, together
from qctl.ops.drain.context import EARLY_ENDS, DrainContext
from qctl.ops.drain.pause import pause_queue
from qctl.ops.drain.proof import take_inventory
from qctl.ops.drain.recover import put_jobs_back
from qctl.ops.drain.restart import Restarted, untouched
from qctl.ops.drain.roll.ledger import RollLedger
from qctl.ops.drain.roll.left_behind import LeftBehind
from qctl.ops.drain.roll.turn import Turn
from qctl.ops.drain.steps import Step
from qctl.ops.drain.unavailable import batches
from qctl.ops.processes.restart import BOOT_S, Interrupted
from qctl.ops.processes.stopped import StoppedError, label, remedy
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
            Interrupted: the operator wants to stop. If a process was asked to exit, it still exits.
            RefusedError: another drain has taken a lease.
            QctlError: for example, jobs were interrupted, or a new process is not ready.
    """
    target = context.plan.target
    assert target is not None  # noqa: S101 - every roll has a target
    turns: list[Turn] = []
    restarted = untouched(target)
    try:
        yield from _take_turns(context, target, turns)
    except EARLY_ENDS as ending:
        restarted = replace(restarted, ended_by=ending)
    for turn in turns:
        restarted = restarted.noting(turn.key, **turn.result())
    return restarted


def _take_turns(context: DrainContext, target: Target, turns: list[Turn]) -> Iterator[Step]:
    ledger, size = context.tracker.ledger, context.plan.max_unavailable
    assert isinstance(ledger, RollLedger)  # noqa: S101 - every roll has one
    orphans_at_start = _begin(context, ledger)
    # Processes that are down come first, so that at most ``size`` are ever down.
    ordered = sorted(target.processes, key=lambda process: process.status == "online")
    for processes in batches(ordered, size):
        batch = [Turn(context, ledger, target, planned) for planned in processes]
        turns += batch
        context.leases.renew()
        context.tracker.rest()
        _await_room(context, target, processes)
        yield from _replace(context, ledger, target, batch)
    context.tracker.catch_up()
    ledger.backlog = _backlog(context)
    # Also put back the jobs that had lost their worker before the roll began.
    active = read_active(context.client, context.queues)
    orphans = [job.key for job in active if job.is_orphan and job.key in orphans_at_start]
    yield from put_jobs_back(context, dict.fromkeys(orphans, ""))


def _await_room(context: DrainContext, target: Target, processes: Sequence[ManagedProcess]) -> None:
    """Wait until a stop of ``processes`` leaves at most ``max_unavailable`` processes down.

    Raises:
        FailedError: other processes do not come up.
        Interrupted: the operator wants to stop.
    """
    until = time.monotonic() + BOOT_S
    chosen = {process.key for process in processes}
    while True:
        if context.stop():
            raise Interrupted
        # qctl's masters start the new process before they stop the old one.
        if target.manager.kind == "qctl" or all(p.status != "online" for p in processes):
            return
        online = {p.key for p in target.manager.find(target.name) if p.status == "online"}
        down = [p for p in target.processes if p.key not in online | chosen]
        if len(down) + len(processes) <= context.plan.max_unavailable:
            return
        if time.monotonic() > until:
            raise FailedError(
                f"{label(down[0])} is not online, so the roll stops here",
                why="no further process is stopped while others are down",
                hint=f"see {remedy(down[0], 'show')}",
            )
        context.tracker.rest()


def _replace(
    context: DrainContext, ledger: RollLedger, target: Target, batch: Sequence[Turn]
) -> Iterator[Step]:
    """Replace the processes of a batch, and put back the jobs that they left behind."""
    try:
        for turn in batch:
            turn.prepare()
    except StoppedError as error:
        # Somebody has stopped a process of this batch, so no process of the batch is asked to exit.
        # But the stopped process may have left jobs behind.
        left = LeftBehind(context, ledger)
        left.note_exit()
        results: list[object] = [error]
    else:
        ledger.take_stalled()  # forget the stalled jobs of earlier batches
        left = LeftBehind(context, ledger, read_active(context.client, context.queues))
        results = [*(yield from together(context, [turn.run(left, batch) for turn in batch]))]
    if left.is_any_gone:
        yield from left.find()
        # Put back the jobs that were left behind, except those already back in their queue (None).
        locks = {key: job.lock_token or "" for key, job in left.jobs.items() if job is not None}
        ledger.add_jobs(left.jobs)
        ledger.note_interrupted(left.jobs)
        yield from put_jobs_back(context, locks)
    raise_first(results)
    if left.jobs:
        raise _interrupted(target, batch, len(left.jobs))


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


def _interrupted(target: Target, batch: Sequence[Turn], jobs: int) -> FailedError:
    process = target.processes[0]
    these = "this process" if len(batch) == 1 else "these processes"
    what = (
        f"{', '.join(turn.label for turn in batch)} left {counted(jobs, 'job')} behind, so the "
        f"roll ended with {these}"
    )
    why, hint = "a process ended before its jobs did", f"qctl worker logs {process.name}"
    if isinstance(target.manager, Signaller):
        why = f"the app exits on {process.stop_signal} before it has finished its jobs"
        hint = "use --strategy pause, which needs nothing from the app"
    return FailedError(what, why=why, hint=hint)
