"""Pauses and resumes queues, and holds their leases (see ``wire.notes``), with Lua scripts."""

from __future__ import annotations

from dataclasses import dataclass

from qctl.connection.address import Arg, Client
from qctl.wire import scripts
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import LEASE_TTL_MS, Holder, parse_holder

# One call moves at most this many jobs between ``wait`` and ``paused``, so it takes less than 5 ms.
MERGE_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Pause:
    """The outcome of a pause.

    Args:
        changed: whether the pause is ours; False if somebody else paused the queue, or if
            ``is_refused``.
        event_id: the id of our ``paused`` event; empty if the pause is not ours.
        is_refused: True if mode ``again`` paused nothing because our pause note was gone: somebody
            had resumed the queue with qctl.
    """

    changed: bool
    event_id: str
    is_refused: bool


@dataclass(frozen=True, slots=True)
class Resume:
    """The outcome of a resume.

    Args:
        changed: whether the queue was paused and has been resumed.
        moved: how many jobs were in BullMQ 5's ``paused`` list and were moved to ``wait``.
        owned: False if the queue was not resumed, because the pause is not the given owner's.
        event_id: the id of the ``resumed`` event; empty if none was written.
    """

    changed: bool
    moved: int
    owned: bool
    event_id: str


def pause(
    client: Client, keys: QueueKeys, holder: Holder, mode: str = "", *, use_list: bool = False
) -> Pause:
    """Stop workers from taking jobs; running jobs go on. Repeating the call does no harm.

    Args:
        mode: what to do if the queue is already paused. ``claim``: make the pause of a drain ours,
            so that the queue stays paused when the drain ends. ``take over``: the same, but only if
            nobody has paused or resumed the queue since the drain paused it. Empty: leave another's
            pause alone. ``again``: the same as empty; but if the queue is not paused, pause it only
            if our pause note is still there. A resume with qctl deletes the note.
        use_list: put ready jobs into BullMQ 5's ``paused`` list, whatever ``meta.version`` says.
    """
    script_keys = [*keys.whole, keys.pause_note]
    layout = "list" if use_list else ""
    args: list[Arg] = [holder.to_json(), holder.owner, mode, layout, MERGE_CHUNK]
    word = "more"
    while word == "more":
        word, event_id = scripts.run(client, "pause", script_keys, args)
    return Pause(word in {"paused", "ours"}, event_id, is_refused=word == "resumed")


def resume(client: Client, keys: QueueKeys, *, owner: str = "", force: bool = False) -> Resume:
    """Let workers take jobs again.

    Args:
        owner: resume only if the pause is this owner's and nobody else has paused the queue since;
            empty to resume the queue no matter who paused it.
        force: mark the ``resumed`` event, so that a drain of the queue stops.
    """
    args: list[Arg] = [owner, MERGE_CHUNK, "force" if force else ""]
    script_keys = [*keys.whole, keys.pause_note]
    moved = None
    while True:
        word, in_paused, event_id = scripts.run(client, "resume", script_keys, args)
        # Later answers count only the jobs that are still in ``paused``.
        moved = in_paused if moved is None else moved
        if word != "more":
            return Resume(word == "resumed", moved, owned=word != "others", event_id=event_id)


def disown_pause(client: Client, keys: QueueKeys, owner: str) -> None:
    """Delete this owner's pause note, so that the pause is no longer this owner's."""
    scripts.run(client, "disown", [keys.pause_note], [owner])


def hold_lease(client: Client, keys: QueueKeys, holder: Holder) -> Holder | None:
    """Take or renew a queue's lease.

    Returns:
        None if ``holder`` has the lease now, else the holder that has it.
    """
    args: list[Arg] = [holder.to_json(), holder.owner, LEASE_TTL_MS]
    answer = scripts.run(client, "hold_lease", [keys.lease], args)
    return parse_holder(answer) if answer else None


def free_lease(client: Client, keys: QueueKeys, owner: str) -> None:
    """Delete a queue's lease if it is still this owner's."""
    scripts.run(client, "disown", [keys.lease], [owner])
