"""Drain queues, restart their processes, and prove what became of every job.

The phases, each in its own file, are: lease, pause, wait, restart, resume, recover, prove. A roll
(``roll/``) instead replaces one process after another while the queues keep working. A phase takes
the ``DrainContext``, whose tracker follows the events, and returns what it has done.

A lease, a key in Redis, reserves a queue for one drain. After an error, this process resumes the
queues that the drain has paused; if it cannot, a second process, the watchdog, resumes them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.errors import InterruptedByUserError, QctlError, is_outage
from qctl.ops.drain.command import restart_by_command
from qctl.ops.drain.context import EARLY_ENDS, DrainContext, DrainOptions, TimedOut
from qctl.ops.drain.finish import put_back
from qctl.ops.drain.lease import Leases
from qctl.ops.drain.ledger import Ledger
from qctl.ops.drain.pause import pause_queues
from qctl.ops.drain.plan import DrainPlan
from qctl.ops.drain.record import record_result, record_starts
from qctl.ops.drain.report import Outcome, make_report
from qctl.ops.drain.restart import Restarted, confirm_up, restart_processes
from qctl.ops.drain.roll.ledger import RollLedger
from qctl.ops.drain.roll.run import roll
from qctl.ops.drain.steps import Step
from qctl.ops.drain.tracker import Tracker
from qctl.ops.drain.wait import wait_for_jobs
from qctl.ops.patience import AWAY_S, PatientClient, Pulse
from qctl.ops.processes.restart import Interrupted
from qctl.wire.notes import this_process


def drain(
    client: Client,
    address: Address,
    settings: Settings,
    plan: DrainPlan,
    options: DrainOptions,
    stop: Callable[[], bool] = lambda: False,
    pulse: Pulse | None = None,
) -> Generator[Step, None, None]:
    """Carry out a plan.

    Args:
        stop: called several times a second; once it returns True, the drain resumes its queues and
            ends with the outcome ``aborted``.
        pulse: shows whether Redis and the process manager answer.

    Yields:
        steps, the last of which is a ``DrainReport``.

    Raises:
        RefusedError: since the plan was made, another drain took a lease; nothing was changed.
        QctlError: the leases could not be taken; nothing was changed.
    """
    context = _begin(client, address, settings, plan, options, stop, pulse)
    is_over = False
    try:
        restart = roll if plan.strategy == "roll" else _pause_and_restart
        restarted = yield from restart(context)
        outcome = _outcome(context, restarted.ended_by)
        succeeded = outcome.name in {"restarted", "drained"}
        stays_paused = context.stays_paused and succeeded
        done = yield from put_back(context, restarted, keep_paused=stays_paused)
        is_over = True
        if succeeded and not stays_paused:
            restarted = yield from confirm_up(context, restarted)
            if isinstance(restarted.ended_by, QctlError):
                outcome = Outcome("aborted", restarted.ended_by)
            elif restarted.ended_by is not None and plan.command is not None:
                why = "the new workers were not yet seen to stay up"
                outcome = Outcome("aborted", InterruptedByUserError("interrupted", why=why))
            elif restarted.ended_by is not None:
                context.notes.append("qctl was stopped before it saw the new processes stay up")
        report = make_report(context, restarted, done, outcome)
        pauses = context.tracker.pauses
        has_changed = pauses.own_pause_ids or restarted.has_stopped_workers
        # Do not record a drain that changed nothing.
        is_worth_a_record = succeeded or outcome.name == "timeout" or has_changed
        if is_worth_a_record and not context.client.has_given_up:
            record_result(client, context.tracker, report, outcome.error)
            record_starts(context.client, plan, pauses, complete=outcome.name == "restarted")
        yield report
    finally:
        # Either an unexpected error occurred, or the caller stopped reading the steps.
        if not is_over:
            for _ in put_back(context, Restarted(), keep_paused=False):
                pass


def _begin(
    client: Client,
    address: Address,
    settings: Settings,
    plan: DrainPlan,
    options: DrainOptions,
    stop: Callable[[], bool],
    pulse: Pulse | None,
) -> DrainContext:
    """Take the leases and start the watchdog."""
    stays = ""
    if options.keep_paused:
        stays = " --keep-paused"
    elif not plan.restarts:
        stays = " (stays paused)"
    # The pause note in Redis contains this verb. The added words tell `qctl status` that the pause
    # is meant to last.
    holder = this_process(f"{options.verb}{stays}")
    was_paused = {s.keys: s.paused and s.keys not in plan.left_behind for s in plan.snapshots}
    patient = PatientClient(client, stop, pulse)
    leases = Leases(patient, address.url, holder, was_paused)
    leases.acquire()
    # From here on, wait for Redis if it goes away.
    patient.patience_s = AWAY_S
    ledger = RollLedger() if plan.strategy == "roll" else Ledger()
    tracker = Tracker(patient, plan.queues, holder.owner, ledger)
    return DrainContext(patient, address, settings, plan, options, holder, stop, leases, tracker)


def _pause_and_restart(context: DrainContext) -> Generator[Step, None, Restarted]:
    try:
        yield from pause_queues(context)
        overdue = yield from wait_for_jobs(context)
    except EARLY_ENDS as ending:
        return Restarted(ended_by=ending)
    restart = restart_by_command if context.plan.command else restart_processes
    restarted = yield from restart(context, overdue)
    if context.stays_paused and restarted.ended_by is None:
        restarted = yield from confirm_up(context, restarted)
    return restarted


def _outcome(context: DrainContext, ended_by: Exception | None) -> Outcome:
    """The outcome of the drain; ``ended_by`` is the exception that ended its phases early."""
    if isinstance(ended_by, TimedOut):
        return Outcome("timeout")
    if isinstance(ended_by, Interrupted):
        return Outcome("aborted", InterruptedByUserError("interrupted"))
    if isinstance(ended_by, QctlError):
        if not is_outage(ended_by):
            return Outcome("aborted", ended_by)
        # Wait no longer for Redis: it was away for too long, or the operator wants to stop.
        context.client.give_up()
        error = InterruptedByUserError("interrupted") if context.stop() else ended_by
        return Outcome("aborted", error)
    return Outcome("restarted" if context.plan.restarts else "drained")
