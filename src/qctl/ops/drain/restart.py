"""Restart the processes of the target, in batches, while the queues are paused.

A batch is restarted together; by default, a batch is one process.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from qctl.errors import QctlError, TimedOutError
from qctl.manage.protocol import ManagedProcess
from qctl.ops.drain.batch import raise_first, together
from qctl.ops.drain.context import EARLY_ENDS, DrainContext
from qctl.ops.drain.pause import keep_paused
from qctl.ops.drain.steps import ProcessResult, Restarting, Step, error_text
from qctl.ops.drain.unavailable import batches
from qctl.ops.drain.wait import wait_for_jobs
from qctl.ops.drain.watchdog import Stopping
from qctl.ops.processes.replacement import QueueWorkers, Replacement
from qctl.ops.processes.restart import Interrupted, NotReplacedError, Restart
from qctl.ops.processes.stopped import StoppedError, current_process
from qctl.ops.processes.targets import Connections, Target
from qctl.wire.read.active import ActiveJob, read_active
from qctl.wire.read.server import clock_ms
from qctl.wire.read.snapshot import are_paused


@dataclass(frozen=True, slots=True)
class Restarted:
    """The result of a restart or roll, complete or ended early.

    Args:
        processes: what became of each process of the target, in the order of the plan.
        restarts: process key → the restart that led to its new process.
        was_gone: whether a process had ended before its turn.
        in_the_way: jobs that still ran at the first restart, or at the start of the command.
        in_doubt: jobs that still ran at a later restart, and that may belong to a new process.
        ignored_running: how many jobs of the queues in ``DrainPlan.ignored`` ran before the
            restart; None when unknown.
        ran_command: whether the plan's command was started.
        replacement: watches the workers that the command replaces; None if there is no command, or
            if the drain does not check that new workers connect.
        workers, rule: see ``DrainReport``.
        stopped_beside: other queues whose workers went away while the command ran.
        ended_by: the exception that ended the restart early; None if it did not end early.
    """

    processes: tuple[ProcessResult, ...] = ()
    restarts: Mapping[str, Restart] = field(default_factory=dict)
    was_gone: bool = False
    in_the_way: tuple[ActiveJob, ...] = ()
    in_doubt: tuple[ActiveJob, ...] = ()
    ignored_running: int | None = None
    ran_command: bool = False
    replacement: Replacement | None = None
    workers: tuple[QueueWorkers, ...] = ()
    rule: str = ""
    stopped_beside: tuple[str, ...] = ()
    ended_by: Exception | None = None

    @property
    def old_pids(self) -> tuple[int, ...]:
        """Pids of the processes that were asked to exit."""
        return tuple(each.old_pid for each in self.processes if each.old_pid)

    @property
    def new_pids(self) -> tuple[int, ...]:
        """Pids of the new processes."""
        return tuple(each.new_pid for each in self.processes if each.new_pid)

    @property
    def has_stopped_workers(self) -> bool:
        """Whether workers were asked to stop, by qctl or by the plan's command."""
        return bool(self.old_pids) or self.ran_command

    def noting(self, key: str, **changes: Any) -> Restarted:
        """A copy in which the result of one process is changed."""
        return replace(
            self,
            processes=tuple(
                replace(each, **changes) if each.key == key else each for each in self.processes
            ),
        )


def restart_processes(
    context: DrainContext, overdue: tuple[ActiveJob, ...]
) -> Generator[Step, None, Restarted]:
    """Restart every process of the target; do nothing if the plan has no target.

    If a restart fails, the rest of its batch is waited for, and no further batch begins. Before
    each batch, the drain pauses again any queue that somebody has resumed, and waits for
    the jobs that have started since.

    Args:
        overdue: jobs that still run after the timeout.
    """
    target = context.plan.target
    if target is None:
        return Restarted()
    phase = _Phase(context, target)
    try:
        yield from phase.run(overdue)
    except EARLY_ENDS as ending:
        return replace(phase.done, ended_by=ending)
    return phase.done


def untouched(target: Target) -> Restarted:
    """The result before any process of the target was restarted."""
    return Restarted(tuple(ProcessResult(p.target, p.key) for p in target.processes))


def confirm_up(context: DrainContext, restarted: Restarted) -> Generator[Step, None, Restarted]:
    """Make sure that the new processes have stayed up; see ``Restart.confirm``."""
    keys = list(restarted.restarts)
    try:
        confirmed = [restarted.restarts[key].confirm() for key in keys]
        results = yield from together(context, confirmed)
        for key, result in zip(keys, results, strict=True):
            if isinstance(result, int):
                restarted = restarted.noting(key, new_pid=result)
            elif isinstance(result, QctlError):
                restarted = restarted.noting(key, **failure(result))
        raise_first(results)
        if restarted.replacement is not None:
            restarted.replacement.confirm()
    except (Interrupted, QctlError) as ending:
        return replace(restarted, ended_by=ending)
    return restarted


def failure(error: QctlError) -> dict[str, str | None]:
    """The fields that mark a ``ProcessResult`` as failed because of this error."""
    return {"result": "failed", "error": error_text(error)}


def prepare_restart(
    context: DrainContext, target: Target, process: ManagedProcess, connections: Connections | None
) -> Restart:
    """Prepare the restart of a process: find the queues that must get a new worker.

    Args:
        connections: the connected workers, including those of the process.
    """
    planned = context.plan.connections
    wanted = frozenset(context.queues)
    by_address = bool(planned and planned.queues_of(target.processes))
    served = connections.queues_of([process]) if connections else set()
    return Restart(
        context.client,
        target.restarter,
        process,
        context.stop,
        # If no worker could be matched to a process, every queue must get a new worker.
        queues=wanted.intersection(served) if by_address else wanted,
        by_address=by_address,
        prefix=context.prefix,
        db=context.address.db,
        timeout_s=context.options.timeout_s,
        watch_s=context.settings.watch_s,
        pulse=context.client.pulse,
    )


class _Phase:
    """The restart of all processes of a target.

    Attributes:
        done: what has been done so far.
    """

    def __init__(self, context: DrainContext, target: Target) -> None:
        self._context = context
        self._target = target
        self.done = untouched(target)

    def run(self, overdue: tuple[ActiveJob, ...]) -> Iterator[Step]:
        context = self._context
        self._note_overdue(overdue)
        for batch in batches(self._target.processes, context.plan.max_unavailable):
            # Check the pauses a last time, because the restarts cannot be undone.
            while again := keep_paused(context):
                yield from again
                self._note_overdue((yield from wait_for_jobs(context)))
            yield from self._restart(batch)
        if context.options.keep_paused:
            yield from keep_paused(context)

    def _restart(self, batch: Sequence[ManagedProcess]) -> Iterator[Step]:
        """Restart the processes of a batch together, and wait for each, even if another fails."""
        context = self._context
        processes = [self._current(planned) for planned in batch]
        connections = context.plan.connections
        restarts = [prepare_restart(context, self._target, p, connections) for p in processes]
        if context.stop():
            raise Interrupted
        # After the kill timeout, the manager needs a moment to kill the process.
        context.leases.announce_stop(
            Stopping(process.pid, restart.old_birth_s, restart.patience_s + 2)
            for process, restart in zip(processes, restarts, strict=True)
            if process.pid is not None and restart.old_birth_s is not None
        )
        if not self.done.old_pids:
            self._count_ignored()
        pairs = zip(processes, restarts, strict=True)
        raise_first((yield from together(context, [self._replace(*pair) for pair in pairs])))

    def _current(self, planned: ManagedProcess) -> ManagedProcess:
        # A crash, or a restart by somebody else, may have changed the pid.
        try:
            return current_process(self._target.restarter, planned, self._context.rest)
        except StoppedError as error:
            self._note(was_gone=True)
            self.done = self.done.noting(planned.key, **failure(error))
            raise

    def _replace(
        self, process: ManagedProcess, restart: Restart
    ) -> Generator[Step | None, None, None]:
        yield Restarting(process.target, process.key, process.pid)
        self.done = self.done.noting(process.key, result="asked", old_pid=process.pid)
        if not process.pid:
            self._note(was_gone=True)
        try:
            ready = yield from restart.run()
        except QctlError as error:
            self.done = self.done.noting(process.key, **failure(error))
            if isinstance(error, NotReplacedError) and not restart.old_is_gone():
                self.done = self.done.noting(process.key, old_pid=None)  # not asked to exit
            if isinstance(error, TimedOutError):
                self._note_still_stopping(restart)
            raise
        except Interrupted:
            self._note_still_stopping(restart)
            raise
        self.done = self.done.noting(process.key, result="new", new_pid=ready.new_pid)
        self._note(restarts={**self.done.restarts, process.key: restart})
        yield ready
        note_resumed_at_start(self._context, process.target)

    def _note_still_stopping(self, restart: Restart) -> None:
        if remark := restart.still_stopping():
            self._context.notes.append(remark)

    def _note(self, **changes: Any) -> None:
        self.done = replace(self.done, **changes)

    def _note_overdue(self, overdue: tuple[ActiveJob, ...]) -> None:
        """Record the jobs that a restart may interrupt."""
        if not overdue:
            return
        if self.done.new_pids:
            known = {job.key for job in self.done.in_the_way}
            more = [job for job in overdue if job.key not in known]
            self._note(in_doubt=(*self.done.in_doubt, *more))
            return
        self._note(in_the_way=overdue)
        # Record that these jobs are running at this time, unless a process of the plan has ended:
        # the jobs of an ended process stay active until their locks expire, but do not run.
        now_ms = clock_ms(self._context.client)
        found = [self._target.restarter.process(planned.key) for planned in self._target.processes]
        pids = [process.pid for process in found if process is not None]
        if pids == [planned.pid for planned in self._target.processes]:
            ledger = self._context.tracker.ledger
            ledger.note_running((job.key for job in overdue), now_ms)

    def _count_ignored(self) -> None:
        """Count the jobs outside the drain that the restart may interrupt."""
        context = self._context
        if not context.plan.others:
            return
        # The report mentions the number only in a note, so a failure does not matter.
        with suppress(QctlError):
            jobs = read_active(context.client, context.plan.others)
            self._note(ignored_running=sum(not job.is_orphan for job in jobs))


def note_resumed_at_start(context: DrainContext, who: str) -> None:
    """Record which queues were resumed by the start of ``who``: a target, or the new workers."""
    tracker = context.tracker
    tracker.pauses.paused_again_lately.clear()
    states = are_paused(context.client, context.queues)
    if not all(states):
        tracker.catch_up()
    for keys, is_paused in zip(context.queues, states, strict=True):
        if not is_paused and keys not in tracker.pauses.forced:
            tracker.pauses.resumed_at_start[keys] = who
