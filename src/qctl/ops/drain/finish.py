"""The end of a drain: resume the queues, put interrupted jobs back, give the leases back."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass

from qctl.errors import QctlError, is_outage
from qctl.ops.drain.context import DrainContext
from qctl.ops.drain.recover import recover_orphans, recover_others, recover_sole
from qctl.ops.drain.restart import Restarted
from qctl.ops.drain.resume import confirm, resume_own
from qctl.ops.drain.steps import Step
from qctl.ops.drain.tracker import Tracker
from qctl.ops.processes.suggest import command
from qctl.ops.queues.advice import limited
from qctl.wire.read.snapshot import QueueSnapshot, read_snapshots

# How long to watch for the first job after the resume: a worker that missed its marker reads
# again after BullMQ's drainDelay, 5 s.
FIRST_START_S = 10.0


@dataclass(frozen=True, slots=True)
class PutBack:
    """What was put back.

    Args:
        is_confirmed: whether no failover can undo the resume, as far as is known.
        trouble: why the rest was left to the watchdog.
    """

    is_confirmed: bool
    trouble: QctlError | None
    notes: tuple[str, ...]


def put_back(
    context: DrainContext, tracker: Tracker, restarted: Restarted, *, keep_paused: bool
) -> Generator[Step, None, PutBack]:
    """Resume, and bring back the jobs that lost their worker; a roll has done that itself.

    Never raises a QctlError: what cannot be put back now is left to the watchdog, and a note says
    so.
    """
    notes: list[str] = []
    trouble: QctlError | None = None
    is_confirmed = False
    try:
        if restarted.in_the_way and restarted.old_pids:
            yield from recover_sole(context, tracker, restarted)
        if not keep_paused:
            yield from resume_own(context, tracker, notes)
        has_left_jobs = restarted.old_pids or restarted.was_gone
        if has_left_jobs and context.plan.strategy != "roll":
            yield from recover_orphans(context, tracker)
            yield from recover_others(context, tracker, restarted, notes)
        if restarted.new_pids and not keep_paused:
            await_first_start(context, tracker, notes)
        is_confirmed = _release(context, tracker, notes)
    except QctlError as error:
        trouble = error
        _leave_to_watchdog(context, tracker, error, notes)
    return PutBack(is_confirmed, trouble, tuple(notes))


def undo(context: DrainContext, tracker: Tracker) -> None:
    """Resume and give the leases back, without a word; for a drain that was cut short."""
    notes: list[str] = []
    try:
        for _ in resume_own(context, tracker, notes):
            pass
        _release(context, tracker, notes)
    except QctlError as error:
        _leave_to_watchdog(context, tracker, error, notes)


def _release(context: DrainContext, tracker: Tracker, notes: list[str]) -> bool:
    """Give the leases back, and dismiss the watchdog once nothing can bring our pause back.

    Returns:
        Whether the resume is confirmed; see ``confirm``.
    """
    context.leases.release()
    is_confirmed, watch_s = confirm(context, tracker, notes)
    context.leases.dismiss(watch_s=watch_s)
    return is_confirmed


def _leave_to_watchdog(
    context: DrainContext, tracker: Tracker, error: QctlError, notes: list[str]
) -> None:
    queues = sorted(tracker.pauses.ours)
    names = ", ".join(keys.name for keys in queues)
    if names and is_outage(error):
        notes.append(
            f"{names} could not be resumed ({error.what}); the watchdog (pid "
            f"{context.leases.watchdog_pid}) does it as soon as Redis can be written to again"
        )
    elif names:
        remedy = command(context.prefix, "resume", *(keys.name for keys in queues))
        notes.append(f"{names} could not be resumed ({error.what}): {remedy}")
    context.leases.abandon()
    tracker.pauses.is_left_to_watchdog = True


def await_first_start(context: DrainContext, tracker: Tracker, notes: list[str]) -> None:
    """See a job start after the resume: the proof that work goes on.

    Args:
        notes: gets what the operator should know.
    """
    deadline = time.monotonic() + FIRST_START_S
    # It may have been seen already, where an app resumed its queue when it started.
    while not (tracker.has_started or context.stop()):
        tracker.follow(wait=True)
        if tracker.has_started:
            return
        snapshots = read_snapshots(context.client, context.queues)
        ready = [s for s in snapshots if isinstance(s, QueueSnapshot) and not s.paused]
        # Of the others it is known why they wait.
        idle = [s for s in ready if s.backlog and not (s.rate_limited_ms or s.is_maxed)]
        if not idle:
            return
        if time.monotonic() > deadline:
            limits = [f"; {s.keys.name} {note.text}" for s in idle if (note := limited(s))]
            notes.append(
                f"jobs wait, but none has started within {FIRST_START_S:.0f} s{''.join(limits)}"
            )
            return
