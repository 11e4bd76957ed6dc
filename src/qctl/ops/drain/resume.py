"""Resume the queues that a drain has paused, and find out whether a failover may undo that."""

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
# How long the watchdog, a second process, goes on if a replica has not acknowledged the resume.
UNCONFIRMED_WATCH_S = 60.0


def resume_own(context: DrainContext) -> Iterator[Step]:
    """Resume every queue that this drain has paused.

    Tries every queue of the drain, because a pause whose reply was lost may have succeeded. A pause
    by somebody else stays: a note in Redis names the owner of a pause.

    Raises:
        QctlError: Redis is away for too long, or refuses a command; some queues may stay paused.
    """
    client, tracker = context.client, context.tracker
    pauses = tracker.pauses
    # The events show which queues somebody else has also paused. Those queues stay paused.
    tracker.follow()
    for keys in sorted(context.queues):
        outages = client.outages
        done = _resume(context, keys)
        if not done.changed and keys not in pauses.ours:
            continue
        if not done.changed and are_paused(client, [keys])[0]:
            context.notes.append(
                f"{context.label(keys)} was also paused by somebody else, so it stays paused; to "
                f"resume it: {command(keys.prefix, 'resume', keys.name)}"
            )
            continue
        pauses.ours.discard(keys)
        event_id = done.event_id
        if not done.owned and client.outages > outages:
            # The call was repeated after an outage, and the first call may have resumed the queue.
            event_id = _resumed_event(context, keys)
        if done.changed or event_id:
            at_ms = int(event_id.partition("-")[0] or 0) or clock_ms(client)
            pauses.resumed_by_us(keys, event_id, at_ms)
            yield Resumed(context.label(keys), done.moved)
        elif keys in tracker.cursors:
            pauses.resumed_by_others.add(keys)
    tracker.ledger.note_resumed()


def _resume(context: DrainContext, keys: QueueKeys) -> Resume:
    try:
        return resume(context.client, keys, owner=context.holder.owner)
    except ReplyError as error:
        if is_outage(error) or are_paused(context.client, [keys])[0]:
            raise
        # The resume failed half way, but workers can take jobs again.
        context.notes.append(
            f"{context.label(keys)} runs again, but its resume failed half way: {error.why}"
        )
        return Resume(changed=True, moved=0, owned=True, event_id="")


def _resumed_event(context: DrainContext, keys: QueueKeys) -> str:
    """The id of the newest ``resumed`` event that was not read yet; empty if there is none."""
    events = past_events(context.client, keys, since=context.tracker.cursors.get(keys, "-"))
    return next((event.id for event in events if event.name == "resumed"), "")


def confirm(context: DrainContext) -> tuple[bool, float]:
    """Find out whether a failover could undo the resume.

    Call this after the last write of the drain: the replicas acknowledge only earlier writes.

    Returns:
        whether the resume is safe from a failover, as far as qctl knows; and the number of seconds
        for which the watchdog must still run.
    """
    has_sentinel = context.address.mode == "sentinel"
    resumed = sorted(context.tracker.pauses.resumed)
    if not resumed or not (has_sentinel or can_lose_writes(context.client)):
        return True, 0.0
    # From here on, only the watchdog can repair what a failover undoes, and it may have died.
    context.leases.keep_watchdog()
    # Sentinel may promote a replica that the master does not see. So at least one replica must
    # acknowledge, even if the master sees none.
    confirmed = await_replicas(context.client, CONFIRM_MS, at_least=int(has_sentinel))
    # If a failover has happened by now, the new master may lack the resume, so repeat it.
    for keys in resumed:
        resume(context.client, keys, owner=context.holder.owner)
    if confirmed:
        return True, WATCH_S
    names = ", ".join(map(context.label, resumed))
    doubt = (
        "it is unknown whether every replica has the resume: this Redis user may not run INFO, WAIT"
        if confirmed is None
        else "not every replica has acknowledged the resume"
    )
    context.notes.append(
        f"{names} runs again, but {doubt}. A failover might pause it again; during the next "
        f"{UNCONFIRMED_WATCH_S:.0f} s, the watchdog (pid {context.leases.watchdog_pid}) resumes it"
    )
    return False, UNCONFIRMED_WATCH_S
