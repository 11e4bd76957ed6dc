"""Keep the queues of a drain paused, although somebody resumes them.

Many apps resume their queues when they start (``if (await q.isPaused()) await q.resume()``), and so
end the pause of the drain that restarts them. The lease says that the queues are the drain's for
the time being, so it pauses them again before it does anything that needs them paused: it waits on,
or, before the next process is restarted, for the jobs that have started since. Going on as a roll
would not do: nothing says that the app finishes its jobs when it is told to leave.
"""

from __future__ import annotations

import time
from contextlib import suppress

from qctl.errors import FailedError, QctlError
from qctl.manage.protocol import ManagedProcess
from qctl.ops.drain.state import DrainState
from qctl.ops.processes.suggest import command
from qctl.wire import drain_record
from qctl.wire.keys import QueueKeys
from qctl.wire.read.active import read_active
from qctl.wire.read.snapshot import QueueSnapshot, are_paused, read_snapshots
from qctl.wire.write.pausing import Pause, pause, pause_again

# Within one wait. Several apps may start at the time, but not without end.
MAX_RESUMES = 3


def hold_pauses(state: DrainState) -> list[QueueKeys]:
    """Make sure that the leases are ours and the queues paused; pause again what was resumed.

    Returns:
        the queues that had to be paused again.

    Raises:
        RefusedError: another drain has taken a lease.
        FailedError: a queue was resumed with qctl resume --force, or is resumed again and again.
    """
    state.guard.hold()
    again = []
    for keys in state.queues:
        use_list = keys in state.plan.mixed
        is_ours = state.is_ours(keys)
        if not is_ours and not are_paused(state.client, [keys])[0]:
            # Only the event tells who has resumed it.
            state.catch_up()
        if keys in state.forced:
            raise _forced(keys)
        if is_ours:
            held = pause_again(state.client, keys, state.holder, use_list=use_list)
        else:
            held = pause(state.client, keys, state.holder, use_list=use_list)
        if held is None:
            held = _pause_anew(state, keys)
        if held.event_id and state.paused_again(keys, held.event_id):
            again.append(keys)
            follow_active(state, keys, held.event_id, again=True)
            _require_peace(state, keys)
    return again


def _pause_anew(state: DrainState, keys: QueueKeys) -> Pause:
    """Pause a queue that has neither its flag nor our note any more."""
    # A resume, which takes the note away when it is qctl's, leaves an event.
    state.catch_up()
    if keys in state.resumed_by_others:
        raise _forced(keys)
    state.forgotten.add(keys)
    return pause(state.client, keys, state.holder, use_list=keys in state.plan.mixed)


def _forced(keys: QueueKeys) -> FailedError:
    return FailedError(
        f"queue {keys.name} was resumed with qctl resume --force during the drain",
        why="jobs may have started again, so the drain went no further",
        hint=f"drain it again; now: {command(keys.prefix, 'status', keys.name)}",
    )


def follow_active(
    state: DrainState, keys: QueueKeys, event_id: str, *, again: bool = False
) -> None:
    """Follow the jobs that are active after a pause.

    Args:
        event_id: of the pause.
        again: whether it is not the first one.
    """
    (snapshot,) = read_snapshots(state.client, [keys])
    active = read_active(state.client, [keys])
    state.inventory.begin_active(job.key for job in active)
    begin = state.ledger.begin_again if again else state.ledger.begin
    begin(
        active,
        backlog=snapshot.backlog if isinstance(snapshot, QueueSnapshot) else 0,
        at_ms=int(event_id.partition("-")[0]),
    )


def _require_peace(state: DrainState, keys: QueueKeys) -> None:
    count = state.resumed_lately[keys]
    if count > MAX_RESUMES:
        raise FailedError(
            f"queue {keys.name} was resumed by somebody else {count} times within one wait",
            why="it was paused again each time, and jobs started in between",
            hint="find out what resumes it, such as an app that keeps starting anew, then drain "
            f"again; now: {command(keys.prefix, 'status', keys.name)}",
        )


def look_after_start(state: DrainState, process: ManagedProcess) -> None:
    """Take note of the queues that were resumed while a new process started."""
    state.resumed_lately.clear()
    states = are_paused(state.client, state.queues)
    if not all(states):
        state.catch_up()
    for keys, paused in zip(state.queues, states, strict=True):
        if not paused and keys not in state.forced:
            state.resumed_at_start[keys] = process.target


def record_starts(state: DrainState, *, complete: bool) -> None:
    """Remember whether the app resumed its queues when it started, for the doctor.

    Args:
        complete: whether all of its processes were restarted.
    """
    target = state.plan.target
    if target is None or state.plan.strategy == "roll":
        return
    resumed = {keys.name for keys in state.resumed_at_start}
    quiet = {keys.name for keys in state.queues if keys not in state.resumed_by_others}
    # An extra: a user without this right must not fail a drain.
    with suppress(QctlError):
        drain_record.record_starts(
            state.client,
            state.queues[0].prefix,
            target.label,
            int(time.time() * 1000),
            resumed=resumed,
            kept=quiet - resumed if complete else (),
        )


def pauses_ended(state: DrainState) -> set[QueueKeys]:
    """Queues that somebody had paused before the drain, and that run at its end."""
    before = {snapshot.keys for snapshot in state.plan.snapshots if snapshot.paused}
    before -= state.plan.left_behind
    if state.paused_at_end is not None:
        return before - state.paused_at_end
    is_kept = state.options.keep_paused or state.plan.target is None
    return set() if is_kept else before & state.resumed_by_others


def notes(state: DrainState) -> list[str]:
    """What the operator should know about resumes by somebody else."""
    told = []
    for keys in state.queues:
        ended = keys in pauses_ended(state)
        end = "; it was paused before the drain, and runs now" if ended else ""
        if keys in state.forgotten:
            told.append(
                f"Redis had lost the pause of {keys.name}, as after a failover, so it was paused "
                "again"
            )
        count, target = state.times_paused_again.get(keys, 0), state.resumed_at_start.get(keys)
        again = f", and paused again {'once' if count == 1 else f'{count} times'}" if count else ""
        if target is not None:
            told.append(
                f"{keys.name} was resumed while {target} started{again}: the app seems to resume "
                f"its queues when it starts, which ends any pause{end}"
            )
        elif count and keys in state.resumed_by_others:
            told.append(f"{keys.name} was resumed by somebody else during the drain{again}{end}")
        elif keys in state.resumed_by_others:
            told.append(f"{keys.name} was resumed by somebody else meanwhile{end}")
        elif ended:
            told.append(f"{keys.name} was paused before the drain, and runs now")
    return told
