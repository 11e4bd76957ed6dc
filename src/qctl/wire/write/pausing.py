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
        changed: False if somebody else had already paused the queue.
        event_id: of the ``paused`` event, or empty.
    """

    changed: bool
    event_id: str


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
    client: Client,
    keys: QueueKeys,
    holder: Holder,
    *,
    claim: bool = False,
    take_over: bool = False,
    use_list: bool = False,
) -> Pause:
    """Stop workers from taking jobs; running jobs go on. Repeating the call does no harm.

    Args:
        claim: make the pause ours even if a drain has paused the queue, so that the queue stays
            paused when that drain ends.
        take_over: the same for a drain that is gone, unless somebody else has paused the queue
            since.
        use_list: put ready jobs into BullMQ 5's ``paused`` list, whatever ``meta.version`` says.
    """
    mode = "claim" if claim else "take over" if take_over else ""
    word, event_id = _pause(client, keys, holder, mode, use_list=use_list)
    return Pause(word != "others", event_id)


def pause_again(
    client: Client, keys: QueueKeys, holder: Holder, *, use_list: bool = False
) -> Pause | None:
    """Pause a queue again if somebody has resumed it past this holder's pause.

    It also moves ready jobs to where a pause keeps them.

    Returns:
        ``changed`` if the queue had been resumed and is paused again. None if somebody resumed it
        through qctl, which deletes the pause note: then nothing was done.
    """
    word, event_id = _pause(client, keys, holder, "again", use_list=use_list)
    return None if word == "resumed" else Pause(word == "paused", event_id)


def _pause(
    client: Client, keys: QueueKeys, holder: Holder, mode: str, *, use_list: bool
) -> tuple[str, str]:
    script_keys = [*keys.whole, keys.pause_note]
    args: list[Arg] = [
        holder.to_json(),
        holder.owner,
        mode,
        "list" if use_list else "",
        MERGE_CHUNK,
    ]
    while True:
        word, event_id = scripts.run(client, "pause", script_keys, args)
        if word != "more":
            return word, event_id


def resume(client: Client, keys: QueueKeys, *, owner: str = "", force: bool = False) -> Resume:
    """Let workers take jobs again.

    Args:
        owner: resume only if the pause is this owner's and nobody else has paused the queue since;
            empty to resume it whoever paused it.
        force: mark the event, so that a drain at work on the queue sees that it shall stop.
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
