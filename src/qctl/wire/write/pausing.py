"""Pauses and resumes queues, and holds their leases; each change is one Lua transition."""

from __future__ import annotations

from dataclasses import dataclass

from qctl.connection.address import Arg, Client
from qctl.wire import scripts
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import LEASE_TTL_MS, Holder, parse_holder

# Jobs moved between ``wait`` and ``paused`` by one call; keeps every call well below 5 ms.
MERGE_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Pause:
    """The outcome of a pause.

    Args:
        changed: False if the pause is somebody else's, or was resumed; see ``pause``.
        event_id: of the ``paused`` event, or empty.
        is_resumed: whether somebody resumed the queue through qctl, and nothing was done.
    """

    changed: bool
    event_id: str
    is_resumed: bool


@dataclass(frozen=True, slots=True)
class Resume:
    """The outcome of a resume.

    Args:
        changed: whether the queue was paused before.
        moved: jobs moved over from BullMQ 5's ``paused`` list.
        owned: False if the pause belongs to somebody else and nothing was done.
        event_id: of the ``resumed`` event, or empty.
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
        mode: ``claim`` to make the pause ours even if a drain has paused the queue, so that the
            queue stays paused when that drain ends; ``take over`` to do so with a drain that is
            gone, unless somebody else has paused the queue since; ``again`` to pause a queue again
            that somebody has resumed past our pause, unless that was through qctl, which deletes
            the pause note.
        use_list: put ready jobs into BullMQ 5's ``paused`` list, whatever ``meta.version`` says.
    """
    script_keys = [*keys.whole, keys.pause_note]
    layout = "list" if use_list else ""
    args: list[Arg] = [holder.to_json(), holder.owner, mode, layout, MERGE_CHUNK]
    word = "more"
    while word == "more":
        word, event_id = scripts.run(client, "pause", script_keys, args)
    return Pause(word in {"paused", "ours"}, event_id, is_resumed=word == "resumed")


def resume(client: Client, keys: QueueKeys, *, owner: str = "", force: bool = False) -> Resume:
    """Let workers take jobs again.

    Args:
        owner: resume only if the pause is this owner's and nobody else has paused the queue since;
            empty to resume it whoever paused it.
        force: mark the event, so that a drain at work on the queue stops.
    """
    args: list[Arg] = [owner, MERGE_CHUNK, "force" if force else ""]
    script_keys = [*keys.whole, keys.pause_note]
    moved = None
    while True:
        word, in_paused, event_id = scripts.run(client, "resume", script_keys, args)
        moved = in_paused if moved is None else moved
        if word != "more":
            return Resume(word == "resumed", moved, owned=word != "others", event_id=event_id)


def disown_pause(client: Client, keys: QueueKeys, owner: str) -> None:
    """Delete this owner's pause note, because somebody else wants the queue paused as well."""
    scripts.run(client, "disown", [keys.pause_note], [owner])


def hold_lease(client: Client, keys: QueueKeys, holder: Holder) -> Holder | None:
    """Take or renew a queue's lease.

    Returns:
        None if ``holder`` has it now, else the one who has it.
    """
    args: list[Arg] = [holder.to_json(), holder.owner, LEASE_TTL_MS]
    answer = scripts.run(client, "hold_lease", [keys.lease], args)
    return parse_holder(answer) if answer else None


def free_lease(client: Client, keys: QueueKeys, owner: str) -> None:
    """Give a lease back if it is still this owner's."""
    scripts.run(client, "disown", [keys.lease], [owner])
