"""The end of a drain: resume the queues, put interrupted jobs back, release the leases."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass

from qctl.errors import FailedError, QctlError, is_outage
from qctl.ops.drain.context import DrainContext
from qctl.ops.drain.recover import recover_orphans, recover_others, recover_sole
from qctl.ops.drain.restart import Restarted
from qctl.ops.drain.resume import confirm, resume_own
from qctl.ops.drain.steps import Step
from qctl.ops.processes.suggest import command
from qctl.ops.queues.advice import limited
from qctl.wire.read.snapshot import QueueSnapshot, read_snapshots

# How long to wait for a job to start after the resume. A worker that missed the wake-up looks for
# jobs again after BullMQ's drainDelay, 5 s by default.
FIRST_START_S = 10.0


@dataclass(frozen=True, slots=True)
class PutBack:
    """The result of ``put_back``.

    Args:
        is_confirmed: False after an error, or if a failover might still undo the resume.
        trouble: the error after which the rest was left to the watchdog; None if there was none.
    """

    is_confirmed: bool
    trouble: QctlError | None = None


def put_back(
    context: DrainContext, restarted: Restarted, *, keep_paused: bool
) -> Generator[Step, None, PutBack]:
    """Put back the jobs that lost their worker, and resume the queues unless ``keep_paused``.

    After a roll, this function puts no jobs back, because the roll has already put them back. Never
    raises a QctlError: after an error, the watchdog (a second process) does the rest, and a note
    names any queues that may still be paused.
    """
    try:
        # Jobs that still ran at the restart are put back before the resume, so that they run first.
        # If no worker was asked to stop, nothing is put back: these jobs may still be running.
        if restarted.in_the_way and restarted.has_stopped_workers:
            yield from recover_sole(context, restarted)
        if not keep_paused:
            yield from resume_own(context)
        has_ended_workers = restarted.has_stopped_workers or restarted.was_gone
        if has_ended_workers and context.plan.strategy != "roll":
            yield from recover_orphans(context)
            yield from recover_others(context, restarted)
        if (restarted.new_pids or restarted.replacement) and not keep_paused:
            await_first_start(context)
        context.leases.release()
        is_confirmed, watch_s = confirm(context)
        # A failover may bring a queue's pause back. If that happens within ``watch_s`` seconds, the
        # watchdog resumes the queue again.
        context.leases.dismiss(watch_s=watch_s)
    except QctlError as error:
        _leave_to_watchdog(context, error)
        return PutBack(is_confirmed=False, trouble=error)
    return PutBack(is_confirmed)


def _leave_to_watchdog(context: DrainContext, error: QctlError) -> None:
    """Leave the rest to the watchdog, and note which queues may still be paused, and why."""
    queues = sorted(context.tracker.pauses.ours)
    labels = [context.label(keys) for keys in queues]
    # The watchdog may have died since the last step.
    with suppress(FailedError):
        context.leases.keep_watchdog()
    pid = context.leases.watchdog_pid
    # By hand, a resume is of no use while Redis is away.
    by_hand = None if pid and is_outage(error) else command(context.prefix, "resume", *labels)
    if labels:
        remark = f"{', '.join(labels)} may still be paused ({error.what}); "
        if pid:
            until = "Redis accepts writes" if is_outage(error) else "Redis no longer refuses"
            remark += f"the watchdog (pid {pid}) tries to resume until {until}"
        else:
            remark += "no watchdog runs"
        context.notes.append(f"{remark}; try: {by_hand}" if by_hand else remark)
    context.leases.abandon()
    context.tracker.pauses.is_left_to_watchdog = pid is not None


def await_first_start(context: DrainContext) -> None:
    """Wait up to ``FIRST_START_S`` for a job to start, which shows that work goes on."""
    tracker = context.tracker
    deadline = time.monotonic() + FIRST_START_S
    # A job may have started already, because some apps resume their queues when they start.
    while not (tracker.has_started or context.stop()):
        tracker.follow(wait=True)
        if tracker.has_started:
            return
        snapshots = read_snapshots(context.client, context.queues)
        ready = [s for s in snapshots if isinstance(s, QueueSnapshot) and not s.paused]
        # No job starts in a queue at its rate limit, or at its maximum of active jobs.
        idle = [s for s in ready if s.backlog and not (s.rate_limited_ms or s.is_maxed)]
        if not idle:
            return
        if time.monotonic() > deadline:
            # The reason may be a rate limit: qctl cannot always see whether a limit is reached.
            limits = [
                f"; {context.label(s.keys)} {note.text}" for s in idle if (note := limited(s))
            ]
            context.notes.append(
                f"jobs wait, but none has started within {FIRST_START_S:.0f} s{''.join(limits)}"
            )
            return
