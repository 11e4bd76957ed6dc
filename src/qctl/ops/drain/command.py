"""Run a command that restarts the workers: the operator's own, or the rollout of a target."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator
from contextlib import suppress
from dataclasses import replace

from qctl.errors import QctlError
from qctl.manage.host import read_birth_s
from qctl.ops.drain.context import EARLY_ENDS, DrainContext
from qctl.ops.drain.pause import keep_paused
from qctl.ops.drain.restart import Restarted, note_resumed_at_start
from qctl.ops.drain.steps import CommandDone, RunningCommand, Step
from qctl.ops.drain.wait import wait_for_jobs
from qctl.ops.drain.watchdog import Stopping
from qctl.ops.processes.replacement import Replacement
from qctl.ops.processes.restart import Interrupted
from qctl.ops.processes.run_command import OperatorCommand, run_command
from qctl.ops.processes.targets import read_connections
from qctl.wire.keys import QueueKeys
from qctl.wire.read.active import ActiveJob
from qctl.wire.read.clients import ConnectionId, worker_counts
from qctl.wire.read.server import clock_ms


def restart_by_command(
    context: DrainContext, overdue: tuple[ActiveJob, ...]
) -> Generator[Step, None, Restarted]:
    """Run the plan's command. If the command's ``is_proved`` is set, wait for the new workers.

    Args:
        overdue: jobs that still run after the timeout.
    """
    command = context.plan.command
    assert command is not None  # noqa: S101 - the caller has checked
    phase = _Phase(context, command)
    try:
        yield from phase.run(overdue)
    except EARLY_ENDS as ending:
        phase.note_stopped_beside()
        if phase.done.ran_command:
            context.notes.append("the command was run, and its changes were not undone")
        return replace(phase.done, ended_by=ending)
    return phase.done


class _Phase:
    """The restart by a command.

    Attributes:
        done: what has been done so far.
    """

    def __init__(self, context: DrainContext, command: OperatorCommand) -> None:
        self._context = context
        self._command = command
        self._replacement: Replacement | None = None
        self.done = Restarted()

    def run(self, overdue: tuple[ActiveJob, ...]) -> Generator[Step, None, None]:
        context, command = self._context, self._command
        # Check the pauses a last time, because the command cannot be undone.
        while again := keep_paused(context):
            yield from again
            overdue = yield from wait_for_jobs(context)
        if command.is_proved:
            whose, at_least = self._workers_of_target()
            self._replacement = Replacement(
                context.client,
                context.address.db,
                context.queues,
                command.expected_workers,
                whose,
                command.shortcoming,
                watch_s=context.settings.watch_s,
                at_least=at_least,
                stop=context.stop,
                rest=context.idle,
            )
        if context.stop():
            raise Interrupted
        if overdue:
            now_ms = clock_ms(context.client)
            context.tracker.ledger.note_running((job.key for job in overdue), now_ms)
        yield RunningCommand(command.argv)
        self.done = Restarted(in_the_way=overdue, ran_command=True)
        began = time.monotonic()
        names = "\n".join(context.plan.labels)
        run_command(
            command.argv,
            {"QCTL_QUEUES": names, "QCTL_REDIS_URL": str(context.address)},
            timeout_s=command.timeout_s,
            stop=context.stop,
            rest=context.idle,
            on_start=self._announce,
        )
        self._await_workers()
        note_resumed_at_start(context, "the new workers")
        took_s = round(time.monotonic() - began, 3)
        yield CommandDone(self.done.workers, self.done.rule, took_s)
        if context.options.keep_paused:
            yield from keep_paused(context)

    def note_stopped_beside(self) -> None:
        """Record the other queues whose workers went away while the command ran."""
        # The report mentions these queues only in a note, so a failure does not matter.
        with suppress(QctlError):
            if self._replacement is not None and self.done.ran_command:
                beside = self._replacement.stopped_beside()
                self.done = replace(self.done, stopped_beside=beside)

    def _workers_of_target(self) -> tuple[set[ConnectionId] | None, Counter[QueueKeys]]:
        """The target's workers: their connections now, and how many each queue had in the plan.

        They are None if there is no target, or if the plan matched no worker with the target.
        The workers are read again, because some may have crashed and come back since the plan.
        """
        context = self._context
        target, planned = context.plan.target, context.plan.connections
        if target is None or planned is None:
            return None, Counter()
        before = [w for p in target.processes for w in planned.owned.get(p.identity, ())]
        if not before:
            return None, Counter()
        processes = target.manager.find(target.name)
        now = read_connections(context.client, context.settings, context.address.db, processes)
        ids = {worker.id for p in processes for worker in now.owned.get(p.identity, ())}
        return ids, worker_counts(before)

    def _announce(self, pid: int) -> None:
        # If qctl is killed, the command goes on, so the watchdog must wait for the command's end.
        birth_s = read_birth_s(pid)
        if birth_s is not None:
            stopping = Stopping(pid, birth_s, self._command.timeout_s)
            self._context.leases.announce_stop([stopping])

    def _await_workers(self) -> None:
        replacement, expected = self._replacement, self._command.expected_workers
        if replacement is None:
            self.done = replace(self.done, rule="not checked")
            return
        workers = replacement.wait(self._command.ready_timeout_s)
        rule = "as many as before" if expected is None else f"{expected} for each queue"
        self.done = replace(self.done, replacement=replacement, workers=workers, rule=rule)
        self.note_stopped_beside()
