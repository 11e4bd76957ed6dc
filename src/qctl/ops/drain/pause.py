"""Pause the queues of a drain, and keep them paused even if somebody resumes them.

Many apps resume their queues when they start (``if (await q.isPaused()) await q.resume()``), and so
end the pause of the drain that restarts them. Therefore, before each step that needs the pause, the
drain pauses resumed queues again and waits for the jobs that have started meanwhile. The pause is
needed because an app may exit on a stop signal before its jobs have ended.

A pause note, a key in Redis, names the command that paused a queue.
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

# How often one queue may be paused again between two restarts. Several apps may start and resume
# the queue in that time, but more resumes mean that something keeps resuming it.
MAX_RESUMES = 3


def pause_queues(context: DrainContext) -> Iterator[Step]:
    """Pause every queue and record its jobs."""
    for keys in context.queues:
        changed = pause_queue(context, keys)
        take_inventory(context.client, context.tracker, keys)
        _follow_active(context, keys, context.tracker.cursors[keys])
        yield Paused(context.label(keys), changed)


def pause_queue(context: DrainContext, keys: QueueKeys) -> bool:
    """Pause a queue and follow its events from the pause on.

    Returns:
        whether the pause is ours: this drain made it, or took it over from an earlier drain that
        left it behind.
    """
    tracker = context.tracker
    before = last_event_id(context.client, keys)
    # Recorded before the call, because the pause may hold even if the reply is lost.
    tracker.pauses.ours.add(keys)
    done = pause(
        context.client,
        keys,
        context.holder,
        "take over" if keys in context.plan.left_behind else "",
        use_list=keys in context.plan.mixed,
    )
    # If somebody else has paused the queue, there is no event id. In that case, the drain follows
    # the events that come after the event ``before``.
    tracker.cursors[keys] = done.event_id or before
    if done.changed:
        tracker.pauses.paused(keys, tracker.cursors[keys])
    else:
        tracker.pauses.ours.discard(keys)
    return done.changed


def keep_paused(context: DrainContext) -> list[Paused]:
    """Renew the leases, and pause again every queue that was resumed.

    Returns:
        a step for each queue that had to be paused again.

    Raises:
        RefusedError: another drain has taken a lease.
        FailedError: a queue was resumed with ``qctl resume --force``, or more than ``MAX_RESUMES``
            times.
    """
    context.leases.renew()
    tracker = context.tracker
    again = []
    for keys in context.queues:
        use_list = keys in context.plan.mixed
        is_ours = tracker.pauses.is_ours(keys)
        if not is_ours and not are_paused(context.client, [keys])[0]:
            # The pause note is not ours, so only the event shows whether the resume was forced.
            tracker.catch_up()
        if keys in tracker.pauses.forced:
            raise _forced(context, keys)
        # With ``again``, ``pause`` refuses if the queue runs and our note is gone.
        mode = "again" if is_ours else ""
        done = pause(context.client, keys, context.holder, mode, use_list=use_list)
        if done.is_refused:
            done = _pause_without_note(context, keys)
        if done.event_id and tracker.pauses.paused_again(keys, done.event_id):
            again.append(Paused(context.label(keys), changed=True, again=True))
            _follow_active(context, keys, done.event_id, again=True)
            resumes = tracker.pauses.paused_again_lately[keys]
            if resumes > MAX_RESUMES:
                raise FailedError(
                    f"queue {context.label(keys)} was resumed by somebody else {resumes} times "
                    "since the start of the drain or its last restart",
                    why="it was paused again each time, and jobs started in between",
                    hint="find out what resumes it, such as an app that keeps restarting: "
                    f"{command(keys.prefix, 'status', keys.name)}; then drain it again",
                )
    return again


def _pause_without_note(context: DrainContext, keys: QueueKeys) -> Pause:
    """Pause a queue that runs again and whose pause note is gone."""
    # An app's resume keeps the note. ``qctl resume --force`` deletes the note, but writes an event.
    # If there is no event of a resume, Redis has lost the pause and the note.
    context.tracker.catch_up()
    if keys in context.tracker.pauses.resumed_by_others:
        raise _forced(context, keys)
    context.tracker.pauses.lost_by_redis.add(keys)
    return pause(context.client, keys, context.holder, use_list=keys in context.plan.mixed)


def _forced(context: DrainContext, keys: QueueKeys) -> FailedError:
    return FailedError(
        f"queue {context.label(keys)} was resumed with qctl resume --force during the drain",
        why="jobs may have started again, so the drain went no further",
        hint=f"look at it with {command(keys.prefix, 'status', keys.name)}, then drain it again",
    )


def _follow_active(
    context: DrainContext, keys: QueueKeys, event_id: str, *, again: bool = False
) -> None:
    """Follow the jobs that are active after a pause.

    Args:
        event_id: the ``paused`` event, or the last event before the pause; gives the pause's time.
        again: whether the drain has paused the queue before.
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
