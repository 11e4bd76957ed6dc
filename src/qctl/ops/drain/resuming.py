"""The resume at the end of a drain: of what is its own, and so that it lasts."""

from __future__ import annotations

from collections.abc import Iterator

from qctl.errors import ReplyError, is_outage
from qctl.ops.drain.state import DrainState
from qctl.ops.drain.steps import Resumed, Step
from qctl.ops.drain.watchdog import WATCH_S
from qctl.ops.processes.suggest import command
from qctl.wire.events import past_events
from qctl.wire.keys import QueueKeys
from qctl.wire.read.replication import await_replicas, can_lose_writes
from qctl.wire.read.snapshot import are_paused
from qctl.wire.write.pausing import Resume, resume

# How long replicas get to acknowledge the resume.
CONFIRM_MS = 1000
# How long the watchdog looks again when they did not.
UNCONFIRMED_WATCH_S = 60.0


def resume_own(state: DrainState) -> Iterator[Step]:
    """Resume what this drain has paused, or may have: a pause whose reply was lost is among it.

    The note says whose a pause is: every queue is tried, and somebody else's pause left alone.

    Raises:
        QctlError: Redis is away for too long, or refuses; queues may still be paused by us.
    """
    # Somebody else may have paused it meanwhile, and means it.
    state.follow()
    for keys in sorted(state.queues):
        outages = state.client.outages
        done = _resume(state, keys)
        if not done.changed and keys not in state.paused_here:
            continue
        if not done.changed and _is_paused(state, keys):
            state.notes.append(
                f"{keys.name} was paused by somebody else meanwhile, so it stays paused; when "
                f"they are done: {command(keys.prefix, 'resume', keys.name)}"
            )
            continue
        state.paused_here.discard(keys)
        event_id = done.event_id
        if not done.owned and state.client.outages > outages:
            # The call was repeated, and found its own work done.
            event_id = _resumed_event(state, keys)
        if done.changed or event_id:
            state.resumed_here.add(keys)
            state.resumes.add(event_id)
            state.resumed_at_ms = int(event_id.partition("-")[0] or 0) or state.redis_now_ms()
            yield Resumed(keys.name, done.moved)
        elif keys in state.cursors:
            state.resumed_by_others.add(keys)
    state.ledger.resumed()


def _resume(state: DrainState, keys: QueueKeys) -> Resume:
    try:
        return resume(state.client, keys, owner=state.holder.owner)
    except ReplyError as error:
        if is_outage(error) or _is_paused(state, keys):
            raise
        # It failed half way, behind the point from which on workers take jobs.
        state.notes.append(f"{keys.name} runs again, but its resume failed half way: {error.why}")
        return Resume(changed=True, moved=0, owned=True, event_id="")


def _resumed_event(state: DrainState, keys: QueueKeys) -> str:
    """The id of the last ``resumed`` event since we paused the queue; empty if there is none."""
    events = past_events(state.client, keys, since=state.cursors.get(keys, "-"))
    return next((event.id for event in events if event.name == "resumed"), "")


def _is_paused(state: DrainState, keys: QueueKeys) -> bool:
    return are_paused(state.client, [keys])[0]


def confirm(state: DrainState) -> float:
    """See whether the resume outlives a failover.

    To be called behind the last write, which is what replicas are asked to acknowledge.

    Returns:
        For how many seconds the watchdog should look again; 0 when nothing can undo the resume.
    """
    has_sentinel = state.address.mode == "sentinel"
    if not state.resumed_here or not (has_sentinel or can_lose_writes(state.client)):
        state.is_confirmed = True
        return 0.0
    confirmed = await_replicas(state.client, CONFIRM_MS, at_least=int(has_sentinel))
    # Another master may answer by now, which has not heard of it.
    for keys in sorted(state.resumed_here):
        resume(state.client, keys, owner=state.holder.owner)
    if confirmed:
        state.is_confirmed = True
        return WATCH_S
    names = ", ".join(keys.name for keys in sorted(state.resumed_here))
    doubt = (
        "this Redis user may not ask (INFO, WAIT) whether its replicas have acknowledged that"
        if confirmed is None
        else "not every replica has acknowledged that"
    )
    state.notes.append(
        f"{names} runs again, but {doubt}: a failover now might pause it again. The watchdog (pid "
        f"{state.guard.watchdog_pid}) resumes it then; it looks for {UNCONFIRMED_WATCH_S:.0f} s"
    )
    return UNCONFIRMED_WATCH_S
