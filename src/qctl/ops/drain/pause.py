"""Pause the queues of a drain, and keep them paused although somebody resumes them.

Many apps resume their queues when they start (``if (await q.isPaused()) await q.resume()``), and so
end the pause of the drain that restarts them. The lease says that the queues are the drain's for
the time being, so it pauses them again before it does anything that needs them paused: it waits on,
or, before the next process is restarted, for the jobs that have started since. To go on as a roll
would not do: whether the app finishes its jobs when it is asked to leave is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator

from qctl.errors import FailedError
from qctl.ops.drain.context import DrainContext
from qctl.ops.drain.proof import take_inventory
from qctl.ops.drain.steps import Paused, Step
from qctl.ops.processes.suggest import command
from qctl.wire.events import last_event_id
from qctl.wire.keys import QueueKeys
from qctl.wire.read.active import read_active
from qctl.wire.read.snapshot import QueueSnapshot, are_paused, read_snapshots
from qctl.wire.write.pausing import Pause, pause

# Within one wait. Several apps may start at the time, but not without end.
MAX_RESUMES = 3


def pause_queues(context: DrainContext) -> Iterator[Step]:
    """Pause every queue, and take note of its jobs."""
    for keys in context.queues:
        changed = pause_queue(context, keys)
        take_inventory(context.client, context.tracker, keys)
        _follow_active(context, keys, context.tracker.cursors[keys])
        yield Paused(keys.name, changed)


def pause_queue(context: DrainContext, keys: QueueKeys) -> bool:
    """Pause a queue and follow it from there; whether we, and not somebody before us, paused it.

    A pause that an earlier drain has left behind becomes ours.
    """
    tracker = context.tracker
    before = last_event_id(context.client, keys)
    # Until the answer is here, it may be paused by us.
    tracker.pauses.ours.add(keys)
    done = pause(
        context.client,
        keys,
        context.holder,
        "take over" if keys in context.plan.left_behind else "",
        use_list=keys in context.plan.mixed,
    )
    # A queue that is paused already is followed from before.
    tracker.cursors[keys] = done.event_id or before
    if done.changed:
        tracker.pauses.paused(keys, tracker.cursors[keys])
    else:
        tracker.pauses.ours.discard(keys)
    return done.changed


def keep_paused(context: DrainContext) -> list[Paused]:
    """Make sure that the leases are ours and the queues paused; pause again what was resumed.

    Returns:
        a step for each queue that had to be paused again.

    Raises:
        RefusedError: another drain has taken a lease.
        FailedError: a queue was resumed with qctl resume --force, or is resumed again and again.
    """
    context.leases.renew()
    tracker = context.tracker
    again = []
    for keys in context.queues:
        use_list = keys in context.plan.mixed
        is_ours = tracker.pauses.is_ours(keys)
        if not is_ours and not are_paused(context.client, [keys])[0]:
            # Only the event shows who has resumed it.
            tracker.catch_up()
        if keys in tracker.pauses.forced:
            raise _forced(keys)
        mode = "again" if is_ours else ""
        held = pause(context.client, keys, context.holder, mode, use_list=use_list)
        if held.is_refused:
            held = _pause_anew(context, keys)
        if held.event_id and tracker.pauses.paused_again(keys, held.event_id):
            again.append(Paused(keys.name, changed=True, again=True))
            _follow_active(context, keys, held.event_id, again=True)
            _require_peace(keys, tracker.pauses.resumed_lately[keys])
    return again


def _pause_anew(context: DrainContext, keys: QueueKeys) -> Pause:
    """Pause a queue that has neither its flag nor our note any more."""
    # A resume, which takes the note away when it is qctl's, leaves an event.
    context.tracker.catch_up()
    if keys in context.tracker.pauses.resumed_by_others:
        raise _forced(keys)
    context.tracker.pauses.lost_by_redis.add(keys)
    return pause(context.client, keys, context.holder, use_list=keys in context.plan.mixed)


def _forced(keys: QueueKeys) -> FailedError:
    return FailedError(
        f"queue {keys.name} was resumed with qctl resume --force during the drain",
        why="jobs may have started again, so the drain went no further",
        hint=f"drain it again; now: {command(keys.prefix, 'status', keys.name)}",
    )


def _follow_active(
    context: DrainContext, keys: QueueKeys, event_id: str, *, again: bool = False
) -> None:
    """Follow the jobs that are active after a pause.

    Args:
        event_id: of the pause.
        again: whether it is not the first one.
    """
    (snapshot,) = read_snapshots(context.client, [keys])
    active = read_active(context.client, [keys])
    ledger = context.tracker.ledger
    context.tracker.inventory.begin_active(job.key for job in active)
    if again:
        ledger.add_jobs(job.key for job in active)
    ledger.begin(
        active,
        backlog=snapshot.backlog if isinstance(snapshot, QueueSnapshot) else 0,
        at_ms=int(event_id.partition("-")[0]),
    )


def _require_peace(keys: QueueKeys, resumes: int) -> None:
    if resumes > MAX_RESUMES:
        raise FailedError(
            f"queue {keys.name} was resumed by somebody else {resumes} times within one wait",
            why="it was paused again each time, and jobs started in between",
            hint="find out what resumes it, such as an app that keeps starting anew, then drain "
            f"again; now: {command(keys.prefix, 'status', keys.name)}",
        )
