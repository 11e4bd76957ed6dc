"""At the end of a drain, resume the queues that it has paused, so that they stay resumed."""

from __future__ import annotations

from collections.abc import Iterator

from qctl.errors import ReplyError, is_outage
from qctl.ops.drain.context import DrainContext
from qctl.ops.drain.steps import Resumed, Step
from qctl.ops.drain.watchdog import WATCH_S
from qctl.ops.processes.suggest import command
from qctl.wire.events import past_events
from qctl.wire.keys import QueueKeys
from qctl.wire.read.info import await_replicas, can_lose_writes
from qctl.wire.read.server import clock_ms
from qctl.wire.read.snapshot import are_paused
from qctl.wire.write.pausing import Resume, resume

# How long to wait for the replicas to acknowledge the resume.
CONFIRM_MS = 1000
# How long the watchdog goes on if a replica has not acknowledged the resume.
UNCONFIRMED_WATCH_S = 60.0


def resume_own(context: DrainContext) -> Iterator[Step]:
    """Resume every queue whose pause is this drain's.

    The pause note in Redis names the owner of a pause, so every queue is tried: somebody else's
    pause stays, and a pause of ours whose reply was lost is found.

    Raises:
        QctlError: Redis is away for too long, or refuses; queues may still be paused by us.
    """
    client, tracker = context.client, context.tracker
    pauses = tracker.pauses
    # If somebody else has paused a queue as well, an event shows that, and the queue stays paused.
    tracker.follow()
    for keys in sorted(context.queues):
        outages = client.outages
        done = _resume(context, keys)
        if not done.changed and keys not in pauses.ours:
            continue
        if not done.changed and are_paused(client, [keys])[0]:
            context.notes.append(
                f"{keys.name} was paused by somebody else, too, so it stays paused; once "
                f"it may run: {command(keys.prefix, 'resume', keys.name)}"
            )
            continue
        pauses.ours.discard(keys)
        event_id = done.event_id
        if not done.owned and client.outages > outages:
            # The call was repeated after an outage: the first one may have resumed the queue.
            event_id = _resumed_event(context, keys)
        if done.changed or event_id:
            at_ms = int(event_id.partition("-")[0] or 0) or clock_ms(client)
            pauses.resumed_by_us(keys, event_id, at_ms)
            yield Resumed(keys.name, done.moved)
        elif keys in tracker.cursors:
            pauses.resumed_by_others.add(keys)
    tracker.ledger.note_resumed()


def _resume(context: DrainContext, keys: QueueKeys) -> Resume:
    try:
        return resume(context.client, keys, owner=context.holder.owner)
    except ReplyError as error:
        if is_outage(error) or are_paused(context.client, [keys])[0]:
            raise
        # The resume failed, but after the step that lets workers take jobs again.
        context.notes.append(f"{keys.name} runs again, but its resume failed half way: {error.why}")
        return Resume(changed=True, moved=0, owned=True, event_id="")


def _resumed_event(context: DrainContext, keys: QueueKeys) -> str:
    """The id of the newest ``resumed`` event since the last reading; empty if there is none."""
    events = past_events(context.client, keys, since=context.tracker.cursors.get(keys, "-"))
    return next((event.id for event in events if event.name == "resumed"), "")


def confirm(context: DrainContext) -> tuple[bool, float]:
    """Find out whether a failover could undo the resume.

    Call this after the last write of the drain, because the replicas acknowledge all writes so far.

    Returns:
        whether the resume is safe from a failover, as far as qctl knows; and for how many seconds
        the watchdog should go on, 0 if it is not needed.
    """
    has_sentinel = context.address.mode == "sentinel"
    resumed = sorted(context.tracker.pauses.resumed)
    if not resumed or not (has_sentinel or can_lose_writes(context.client)):
        return True, 0.0
    # Under Sentinel, a replica that Redis does not see may become the master: require one.
    confirmed = await_replicas(context.client, CONFIRM_MS, at_least=int(has_sentinel))
    # After a failover, the new master may lack the resume, so repeat it.
    for keys in resumed:
        resume(context.client, keys, owner=context.holder.owner)
    if confirmed:
        return True, WATCH_S
    names = ", ".join(keys.name for keys in resumed)
    doubt = (
        "this Redis user may not ask (INFO, WAIT) whether its replicas have acknowledged that"
        if confirmed is None
        else "not every replica has acknowledged that"
    )
    context.notes.append(
        f"{names} runs again, but {doubt}: a failover now might pause it again. The watchdog (pid "
        f"{context.leases.watchdog_pid}) would resume it, for {UNCONFIRMED_WATCH_S:.0f} s from now"
    )
    return False, UNCONFIRMED_WATCH_S
