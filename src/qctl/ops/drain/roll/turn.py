"""Replace one process in a roll."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

from qctl.errors import QctlError, is_outage
from qctl.manage.protocol import ManagedProcess, RestartCall, Signaller
from qctl.ops.drain.context import DrainContext, TimedOut
from qctl.ops.drain.restart import failure, prepare_restart
from qctl.ops.drain.roll.ledger import RollLedger
from qctl.ops.drain.roll.left_behind import LeftBehind
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
from qctl.wire.read.active import ActiveJob, read_active

# How often the active jobs are read.
READ_EVERY_S = 1.0


class Turn:
    """The replacement of one process.

    Args:
        planned: the process as it was when the plan was made.

    Attributes:
        key: the process's key.
        own_names: names of the process's workers; empty if any worker has no name, because then
            the names do not show which jobs are this process's own.
        is_leaving: whether the process was asked to exit, and still runs.
        in_hand: while it is leaving, the jobs that it may still have.
        old_pid: the pid of the process, once it was asked to exit.
        new_pid: the pid of the new process, once it is confirmed up.
        error: why the process was not replaced; None if it was, or if its turn has not ended.
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
        self._process = planned
        self.key = planned.key
        self.own_names: frozenset[str] = frozenset()
        self.is_leaving = False
        self.in_hand: Sequence[ActiveJob] = ()
        self.old_pid: int | None = None
        self.new_pid: int | None = None
        self.error: QctlError | None = None
        self._run: Restart | None = None
        self._is_asked = False
        self._is_being_stopped = False

    @property
    def label(self) -> str:
        return label(self._process)

    def prepare(self) -> None:
        """Find the process as it is now, and its workers.

        Raises:
            StoppedError: somebody has stopped it.
            Interrupted: the operator wants to stop.
        """
        context = self._context
        try:
            process = self._process = current_process(
                self._target.restarter, self._process, context.rest
            )
        except StoppedError as error:
            self.error = error
            raise
        connections = read_connections(
            context.client, context.settings, context.address.db, [process], context.queues
        )
        names = [worker.worker_name for worker in connections.owned.get(process.identity, ())]
        self.own_names = frozenset(name for name in names if name) if all(names) else frozenset()
        self._run = prepare_restart(context, self._target, process, connections)

    def run(self, left: LeftBehind, batch: Sequence[Turn]) -> Generator[Step | None, None, None]:
        """Replace the process; ``prepare`` was called before.

        Args:
            left: is notified when the process has exited.
            batch: all turns that are taken at the same time, including this one.

        Raises:
            QctlError: the process was not replaced.
            TimedOut, Interrupted: it still runs, or its successor was not confirmed up.
        """
        try:
            yield from self._replace(left, batch)
        except QctlError as error:
            self.error = error
            raise
        finally:
            self.is_leaving = False

    def result(self) -> dict[str, Any]:
        """What became of the process, as fields of a ``ProcessResult``."""
        fields: dict[str, Any] = {"old_pid": self.old_pid, "new_pid": self.new_pid}
        if self.error is not None:
            return fields | failure(self.error)
        if self.new_pid is not None:
            return fields | {"result": "new"}
        return fields | {"result": "asked" if self._is_asked else "untouched"}

    def _replace(self, left: LeftBehind, batch: Sequence[Turn]) -> Iterator[Step | None]:
        context, manager = self._context, self._target.restarter
        process, run = self._process, self._run
        assert run is not None  # noqa: S101 - the process was prepared
        self._is_asked = True
        yield Restarting(process.target, process.key, process.pid)
        self.old_pid = process.pid
        began = time.monotonic()
        with contextlib.closing(
            manager.begin_exit(process)
            if isinstance(manager, Signaller) and process.pid
            else manager.begin_restart(process)
        ) as call:
            self.is_leaving = True
            try:
                yield from self._await_old_gone(run, call, batch)
            except (Interrupted, TimedOut):
                if manager.kind == "docker":
                    context.notes.append(
                        f"Docker starts {label(process)} again as soon as it exits on "
                        f"{process.stop_signal}; but if the container's PID 1 does not handle "
                        "this signal (Node does not by default), the container never exits: then "
                        "use --strategy pause"
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
            self.is_leaving = False
            left.note_exit(self.own_names)
            if process.pid:
                yield from self._start_if_stopped(run, process)
            ready = yield from run.await_ready(call, began)
            # Confirm the new process before the next batch is asked to exit. Nothing is paused, so
            # no job waits meanwhile.
            self.new_pid = yield from run.confirm()
            yield replace(ready, new_pid=self.new_pid)

    # Exit

    def _await_old_gone(
        self, run: Restart, call: RestartCall, batch: Sequence[Turn]
    ) -> Iterator[Step | None]:
        context = self._context
        began, read_at = time.monotonic(), 0.0
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
                    self.in_hand = in_hand
                    tokens = frozenset(job.lock_token for job in in_hand)
                if is_late:
                    raise TimedOut(self.in_hand, tokens)
                leaving = [turn for turn in batch if turn.is_leaving]
                # One step for the whole batch.
                if leaving[0] is self:
                    jobs = {job.key: job for turn in leaving for job in turn.in_hand}
                    yield Waiting(
                        active=context.plan.shown(jobs.values()),
                        orphans=(),
                        waited_s=round(waited_s, 1),
                        redis_away=is_away,
                    )
            yield None

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
        if self.own_names:
            jobs = [job for job in jobs if job.worker in self.own_names]
            self._ledger.add_jobs(job.key for job in jobs)
            return jobs
        return [job for job in jobs if tokens is None or job.lock_token in tokens]

    def _start_if_stopped(self, run: Restart, process: ManagedProcess) -> Iterator[None]:
        """Start the process again if its manager does not, for example PM2 without autorestart.

        Raises:
            StoppedError: somebody has stopped the process.
        """
        manager = self._target.restarter
        noticed = time.monotonic() + AWAY_S
        while (row := run.row()) is not None and (
            row.pid == process.pid or row.status == "stopping"
        ):
            # The manager has not noticed yet that the process is gone.
            if time.monotonic() > noticed:
                return
            yield
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
                yield
