"""Replace the processes of a target one after another, while the queues keep working.

Nothing is paused: each process finishes its own jobs and exits, while the others take jobs. Some
apps exit without finishing their jobs, so the roll checks after each process whether it left jobs
behind, and stops at the first process that did.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping

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
from qctl.ops.drain.tracker import Tracker
from qctl.ops.processes.targets import Target
from qctl.plurals import counted
from qctl.wire.events import last_event_id
from qctl.wire.keys import JobKey
from qctl.wire.read.active import ActiveJob, read_active
from qctl.wire.read.snapshot import QueueSnapshot, read_snapshots


def roll(
    context: DrainContext, tracker: Tracker, ledger: RollLedger
) -> Generator[Step, None, Restarted]:
    """Replace every process of the target.

    Args:
        ledger: the tracker's.

    Returns:
        which processes were replaced, and in ``ended_by`` why the roll ended early: TimedOut, a
        process still runs jobs, and exits once they end; Interrupted, the operator wants to stop,
        and a process that was asked to exit still does; FailedError, jobs were interrupted, or a
        new process does not get ready; RefusedError, another drain has taken a lease.
    """
    run = _Roll(context, tracker, ledger)
    try:
        yield from run.run()
    except EARLY_ENDS as ending:
        return run.result(ending)
    return run.result()


class _Roll:
    """A roll that is running."""

    def __init__(self, context: DrainContext, tracker: Tracker, ledger: RollLedger) -> None:
        self._context = context
        self._tracker = tracker
        self._ledger = ledger
        self._turns: list[Turn] = []
        self._orphans_at_start: set[JobKey] = set()

    def result(self, ended_by: Exception | None = None) -> Restarted:
        turns = self._turns
        return Restarted(
            old_pids=tuple(turn.old_pid for turn in turns if turn.old_pid),
            new_pids=tuple(turn.new_pid for turn in turns if turn.new_pid),
            ended_by=ended_by,
            notes=tuple(note for turn in turns for note in turn.notes),
        )

    def run(self) -> Iterator[Step]:
        context = self._context
        target = context.plan.target
        assert target is not None  # noqa: S101 - a roll is planned with one
        self._begin()
        for planned in target.processes:
            turn = Turn(context, self._tracker, self._ledger, target, planned)
            self._turns.append(turn)
            yield from turn.run()
            if turn.harmed:
                yield from self._put_back_harmed(turn.harmed)
            if turn.error is not None:
                raise turn.error
            if turn.harmed:
                raise _interrupted(target, planned, turn)
        self._tracker.catch_up()
        self._ledger.set_backlog(self._backlog())
        # The workers of these jobs have been replaced, or were gone before the roll.
        orphans = {j.key: "" for j in read_active(context.client, context.queues) if j.is_orphan}
        yield from self._put_back(
            {key: lock for key, lock in orphans.items() if key in self._orphans_at_start}
        )

    def _begin(self) -> None:
        context, tracker = self._context, self._tracker
        for keys in context.queues:
            if keys in context.plan.left_behind:
                # The roll takes this pause over, to resume the queue at the end.
                pause_queue(context, tracker, keys)
            else:
                tracker.cursors[keys] = last_event_id(context.client, keys)
            take_inventory(context.client, tracker, keys)
        jobs = read_active(context.client, context.queues)
        tracker.inventory.begin_active(job.key for job in jobs)
        self._orphans_at_start = {job.key for job in jobs if job.is_orphan}
        self._ledger.begin(jobs, backlog=self._backlog(), at_ms=context.redis_now_ms())

    def _backlog(self) -> int:
        found = read_snapshots(self._context.client, self._context.queues)
        return sum(s.backlog for s in found if isinstance(s, QueueSnapshot) and not s.paused)

    def _put_back_harmed(self, harmed: Mapping[JobKey, ActiveJob | None]) -> Iterator[Step]:
        """Put interrupted jobs back, except those that are in the queue again (None)."""
        self._ledger.add_jobs(harmed)
        self._ledger.note_interrupted(harmed)
        locks = {key: job.lock_token or "" for key, job in harmed.items() if job is not None}
        yield from self._put_back(locks)

    def _put_back(self, locks: Mapping[JobKey, str]) -> Iterator[Step]:
        for keys in self._context.queues:
            own = {job_id: lock for (queue, job_id), lock in locks.items() if queue == keys}
            yield from put_jobs_back(self._context.client, self._ledger, keys, own)


def _interrupted(target: Target, process: ManagedProcess, turn: Turn) -> FailedError:
    count = len(turn.harmed)
    jobs = counted(count, "job")
    what = f"{process.target} (id {process.key}) left {jobs} behind, so the roll ended with it"
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
