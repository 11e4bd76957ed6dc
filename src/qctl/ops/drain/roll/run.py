"""Replace the processes of a target one after another, while the queues go on.

Nothing is paused: each process finishes its own jobs and leaves, and the others take jobs
meanwhile. That is only true of workers that finish when they are told to leave, so after each one
it is looked whether a job was left behind; with the first that was, the roll ends.
"""

from __future__ import annotations

from collections.abc import Iterator

from qctl.errors import FailedError
from qctl.manage.protocol import ManagedProcess, Signaller
from qctl.ops.drain.finish import DrainEnd
from qctl.ops.drain.inventory import JobKey
from qctl.ops.drain.proof import take_inventory
from qctl.ops.drain.roll.ledger import RollLedger
from qctl.ops.drain.roll.turn import Turn
from qctl.ops.drain.state import DrainState
from qctl.ops.drain.steps import Step
from qctl.ops.processes.targets import Target
from qctl.plurals import counted
from qctl.wire.events import last_event_id
from qctl.wire.read.active import ActiveJob, read_active
from qctl.wire.read.snapshot import QueueSnapshot, read_snapshots


class Roll:
    """One roll.

    Args:
        state: of this drain; its ledger is replaced by one for rolls.
        end: puts back the jobs that were interrupted.
    """

    def __init__(self, state: DrainState, end: DrainEnd) -> None:
        self._state = state
        self._end = end
        self._ledger = state.ledger = RollLedger()
        self._orphans_at_start: set[JobKey] = set()

    def run(self) -> Iterator[Step]:
        """Replace every process.

        Yields:
            steps.

        Raises:
            TimedOut: a process still has jobs in hand; it leaves when they end, unattended.
            Interrupted: the operator wants to stop; a process that was told to leave still does.
            FailedError: jobs were interrupted, or a new process does not get ready.
            RefusedError: another drain has taken a lease.
        """
        state = self._state
        target = state.plan.target
        assert target is not None  # noqa: S101 - a roll is planned with one
        self._begin()
        for planned in target.processes:
            turn = Turn(state, self._ledger, target, planned)
            yield from turn.run()
            if turn.harmed:
                yield from self._put_back(turn.harmed)
            if turn.error is not None:
                raise turn.error
            if turn.harmed:
                raise _interrupted(target, planned, turn)
        self._look_for_backlog()
        # Whoever had these has been replaced, or was gone before.
        orphans = {job.key: "" for job in read_active(state.client, state.queues) if job.is_orphan}
        yield from self._put_back_locked(
            {key: lock for key, lock in orphans.items() if key in self._orphans_at_start}
        )

    def _begin(self) -> None:
        state = self._state
        for keys in state.queues:
            if keys in state.plan.left_behind:
                # So that it is resumed at the end.
                state.pause(keys)
            else:
                state.cursors[keys] = last_event_id(state.client, keys)
            take_inventory(state, keys)
        jobs = read_active(state.client, state.queues)
        state.inventory.begin_active(job.key for job in jobs)
        self._orphans_at_start = {job.key for job in jobs if job.is_orphan}
        self._ledger.begin(jobs, backlog=self._backlog(), at_ms=state.redis_now_ms())

    def _backlog(self) -> int:
        found = read_snapshots(self._state.client, self._state.queues)
        return sum(s.backlog for s in found if isinstance(s, QueueSnapshot) and not s.paused)

    def _look_for_backlog(self) -> None:
        self._state.catch_up()
        self._ledger.backlog_is(self._backlog())

    def _put_back(self, harmed: dict[JobKey, ActiveJob | None]) -> Iterator[Step]:
        """Bring back jobs that were interrupted; None stands for one that somebody has."""
        self._ledger.note(harmed)
        self._ledger.interrupt(harmed)
        locks = {key: job.lock_token or "" for key, job in harmed.items() if job is not None}
        yield from self._put_back_locked(locks)

    def _put_back_locked(self, locks: dict[JobKey, str]) -> Iterator[Step]:
        for keys in self._state.queues:
            own = {job_id: lock for (queue, job_id), lock in locks.items() if queue == keys}
            yield from self._end.put_back_jobs(keys, own)


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
