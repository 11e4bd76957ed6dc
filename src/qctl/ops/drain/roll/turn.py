"""Replace one process in a roll, and search for jobs that the process has left behind."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace

from qctl.errors import FailedError, QctlError, is_outage
from qctl.manage.protocol import ManagedProcess, RestartCall, Signaller
from qctl.ops.drain.context import DrainContext, TimedOut
from qctl.ops.drain.restart import prepare_restart
from qctl.ops.drain.roll.ledger import RollLedger
from qctl.ops.drain.steps import Restarting, Step, Waiting
from qctl.ops.patience import AWAY_S
from qctl.ops.processes.restart import Interrupted, NotReplacedError, Restart
from qctl.ops.processes.stopped import (
    StoppedError,
    current_process,
    label,
    remedy,
    stopped_by_somebody,
)
from qctl.ops.processes.targets import Target, read_connections
from qctl.wire.keys import JobKey
from qctl.wire.read.active import ActiveJob, read_active

# How often the active jobs are read.
READ_EVERY_S = 1.0
# A lock must be renewed or expire within its remaining time plus this.
LOCK_GRACE_S = 5.0


class Turn:
    """The replacement of one process.

    Args:
        planned: the process as it was when the plan was made.

    Attributes:
        old_pid: the pid of the process, once it was asked to exit.
        new_pid: the pid of the new process, once it is confirmed up.
        harmed: job that the process left behind → its last reading; None if the job is already back
            in its queue.
        error: why the roll must end with this process; None if it may go on.
    """

    def __init__(
        self,
        context: DrainContext,
        ledger: RollLedger,
        target: Target,
        planned: ManagedProcess,
    ) -> None:
        self._context = context
        self._tracker = context.tracker
        self._ledger = ledger
        self._target = target
        self._planned = planned
        self.old_pid: int | None = None
        self.new_pid: int | None = None
        self.harmed: dict[JobKey, ActiveJob | None] = {}
        self.error: FailedError | None = None
        self._orphans: set[JobKey] = set()
        self._own_names: frozenset[str] = frozenset()
        self._is_being_stopped = False

    def run(self) -> Iterator[Step]:
        """Replace the process and find out whether it left jobs behind; see ``harmed``."""
        context, manager = self._context, self._target.manager
        context.leases.renew()
        self._tracker.rest()
        if context.stop():
            raise Interrupted
        try:
            process = current_process(manager, self._planned)
        except StoppedError as error:
            self.error = error
            yield from self._find_harmed(self._active_after_exit())
            return
        connections = read_connections(
            context.client, context.settings, context.address.db, [process], context.queues
        )
        names = [worker.worker_name for worker in connections.owned.get(process.key, ())]
        # If any worker has no name, the names do not show which jobs are this process's own.
        self._own_names = frozenset(name for name in names if name) if all(names) else frozenset()
        jobs = read_active(context.client, context.queues)
        self._orphans = {job.key for job in jobs if job.is_orphan}
        self._ledger.take_stalled()  # drop those of earlier turns
        run = prepare_restart(context, self._target, process, connections)
        yield Restarting(process.target, process.key, process.pid)
        self.old_pid = process.pid
        began = time.monotonic()
        with contextlib.closing(
            manager.begin_exit(process)
            if isinstance(manager, Signaller) and process.pid
            else manager.begin_restart(process)
        ) as call:
            try:
                yield from self._await_old_gone(run, call)
            except (Interrupted, TimedOut):
                if manager.kind == "docker":
                    context.notes.append(
                        f"Docker starts {label(process)} again as soon as it exits on "
                        f"{process.stop_signal}; a PID 1 without a handler for the signal, such as "
                        "Node's, never exits on it: then use --strategy pause"
                    )
                elif not process.starts_again:
                    context.notes.append(
                        f"{label(process)} exits when its jobs have ended, and its manager does "
                        f"not start it again; start it then: {remedy(process, 'start')}"
                    )
                raise
            except NotReplacedError:
                self.old_pid = None  # it was not asked to exit
                raise
            active = self._active_after_exit()
            try:
                if process.pid:
                    self._start_if_stopped(run, process)
                ready = run.await_ready(call, began)
                # Confirm the new process before the next one is asked to exit. Nothing is paused,
                # so no job waits meanwhile.
                new_pid = run.confirm()
            except FailedError as error:
                # Not raised here: the old process's jobs must still be checked.
                self.error = error
            else:
                self.new_pid = new_pid
                yield replace(ready, new_pid=new_pid)
        yield from self._find_harmed(active)

    # Exit

    def _await_old_gone(self, run: Restart, call: RestartCall) -> Iterator[Step]:
        context = self._context
        began, read_at = time.monotonic(), 0.0
        active: list[ActiveJob] = []
        tokens: frozenset[str | None] | None = None
        while not run.old_is_gone():
            run.raise_refusal(call)
            if context.stop():
                raise Interrupted
            waited_s = time.monotonic() - began
            is_late = waited_s > context.options.timeout_s
            if is_late or time.monotonic() - read_at >= READ_EVERY_S:
                read_at = time.monotonic()
                row = run.row()
                self._is_being_stopped |= row is not None and row.status == "stopping"
                in_hand = self._jobs_in_hand(tokens)
                is_away = in_hand is None
                if in_hand is not None:
                    active = in_hand
                    tokens = frozenset(job.lock_token for job in active)
                if is_late:
                    raise TimedOut(active, tokens)
                yield Waiting(
                    active=context.plan.shown(active),
                    orphans=(),
                    waited_s=round(waited_s, 1),
                    redis_away=is_away,
                )
            self._tracker.rest()

    def _jobs_in_hand(self, tokens: frozenset[str | None] | None) -> list[ActiveJob] | None:
        """The jobs that the process may still have; None while Redis is away.

        If all its workers have names, the names show its jobs. Otherwise, the process may have any
        job that has been running since the first reading.

        Args:
            tokens: the lock tokens of the jobs at the last reading; None at the first reading.
        """
        context = self._context
        try:
            with context.client.at_most(0.0):
                context.leases.renew()
                jobs = read_active(context.client, context.queues)
        except QctlError as error:
            if not is_outage(error):
                raise
            return None
        jobs = [job for job in jobs if not job.is_orphan]
        if self._own_names:
            jobs = [job for job in jobs if job.worker in self._own_names]
            self._ledger.add_jobs(job.key for job in jobs)
            return jobs
        return [job for job in jobs if tokens is None or job.lock_token in tokens]

    def _start_if_stopped(self, run: Restart, process: ManagedProcess) -> None:
        """Start the process again if its manager does not, for example PM2 without autorestart.

        Raises:
            StoppedError: somebody has stopped the process.
        """
        manager = self._target.manager
        noticed = time.monotonic() + AWAY_S
        while (row := run.row()) is not None and (
            row.pid == process.pid or row.status == "stopping"
        ):
            # The manager has not noticed yet that the process is gone.
            if time.monotonic() > noticed:
                return
            self._tracker.rest()
        if row is None or row.pid or row.was_started_since(process):
            return
        if row.status == "stopped" and (process.starts_again or self._is_being_stopped):
            raise stopped_by_somebody(row)
        if row.status not in {"stopped", "errored"}:
            return
        until = time.monotonic() + AWAY_S
        with contextlib.closing(manager.begin_restart(process)) as call:
            while (row := run.row()) is not None and not row.was_started_since(process):
                run.raise_refusal(call)
                if time.monotonic() > until:
                    return
                self._tracker.rest()

    # Jobs left behind

    def _active_after_exit(self) -> list[ActiveJob]:
        """The active jobs after the process has exited, including any that it left behind."""
        self._tracker.catch_up()
        jobs = read_active(self._context.client, self._context.queues)
        self._ledger.add_jobs(job.key for job in jobs if job.key not in self._orphans)
        return jobs

    def _find_harmed(self, active: list[ActiveJob]) -> Iterator[Step]:
        """Find the active jobs that no longer have a worker, and put them into ``harmed``.

        If a job's lock expires, the process left the job behind. If the job ends, or the worker
        that holds the lock renews any lock or takes another job, the worker is alive.
        """
        context = self._context
        pending: dict[JobKey, ActiveJob] = {}
        for job in active:
            if job.is_orphan:
                if job.key not in self._orphans:
                    self.harmed[job.key] = job
            elif not self._own_names or job.worker in self._own_names:
                pending[job.key] = job
        tokens = {job.lock_token for job in active}
        longest_ms = max((job.lock_ttl_ms or 0 for job in pending.values()), default=0)
        until = time.monotonic() + longest_ms / 1000 + LOCK_GRACE_S
        began = shown_at = time.monotonic()
        while pending and time.monotonic() < until:
            if context.stop():
                raise Interrupted
            now = {job.key: job for job in read_active(context.client, context.queues)}
            self._settle(pending, now, tokens)
            if pending and time.monotonic() - shown_at >= READ_EVERY_S:
                shown_at = time.monotonic()
                yield Waiting(
                    active=context.plan.shown(pending.values()),
                    orphans=(),
                    waited_s=round(shown_at - began, 1),
                )
            if pending:
                self._tracker.rest()
        for keys, job_id in sorted(pending):
            context.notes.append(
                f"it is unknown whether job {job_id} of {context.label(keys)} still runs"
            )
        self._tracker.catch_up()
        for key in self._ledger.take_stalled() - self._orphans:
            self.harmed[key] = None

    def _settle(
        self,
        pending: dict[JobKey, ActiveJob],
        now: dict[JobKey, ActiveJob],
        tokens: set[str | None],
    ) -> None:
        """Remove from ``pending`` each job that ended, was left behind, or has a living worker."""
        # A worker that took a job or renewed a lock after the process exited is alive.
        alive = {_owner(job) for job in now.values() if job.lock_token not in tokens}
        for key, before in pending.items():
            job = now.get(key)
            if job is not None and job.was_renewed_since(before):
                alive.add(_owner(job))
        for key, before in list(pending.items()):
            job = now.get(key)
            if job is None or job.lock_token not in {None, before.lock_token}:
                del pending[key]
            elif job.is_orphan:
                del pending[key]
                self.harmed[key] = job
            elif _owner(job) in alive - {""}:
                del pending[key]
            else:
                pending[key] = job


def _owner(job: ActiveJob) -> str:
    """The part that all lock tokens of a worker share; "" for a token of another form."""
    return (job.lock_token or "").rpartition(":")[0]
