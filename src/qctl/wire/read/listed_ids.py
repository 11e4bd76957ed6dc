"""Which ids are in the lists of queues: ``active``, ``wait`` and ``paused`` (wire format 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import value_or
from qctl.wire.states import LISTS

JobId = tuple[QueueKeys, str]

_WINDOW = 2500
_OVERLAP = 250


@dataclass(slots=True)
class Listed:
    """Ids in the lists of a queue, and whether these are all."""

    ids: set[str]
    complete: bool = True


def ids_in_lists(
    client: Client, wanted: Mapping[QueueKeys, AbstractSet[str]]
) -> dict[QueueKeys, set[str]]:
    """Those of the wanted ids that stand in a list; reads no further than the last of them."""
    found = read_listed(client, list(wanted), None, wanted)
    return {keys: listed.ids for keys, listed in found.items()}


def read_listed(
    client: Client,
    queues: Sequence[QueueKeys],
    most: int | None,
    wanted: Mapping[QueueKeys, AbstractSet[str]] | None = None,
) -> dict[QueueKeys, Listed]:
    """Ids in the lists of queues, read in windows that overlap: workers take from the same end.

    Args:
        most: stop after about this many ids of all queues together; None for no limit.
        wanted: keep only these ids, and read no further than the last of them.
    """
    found = {keys: Listed(set()) for keys in queues}
    share = None if most is None else max(most // max(len(queues), 1), _OVERLAP * 2)
    window = _WINDOW if share is None else min(share, _WINDOW)
    pending = [(keys, name) for keys in queues for name in LISTS]
    start = 0
    while pending:
        commands = [("LRANGE", k(name), -(start + window), -(start + 1)) for k, name in pending]
        going_on = []
        for place, reply in zip(pending, client.pipeline(commands), strict=True):
            keys = place[0]
            ids = value_or(reply, [])
            found[keys].ids.update(ids if wanted is None else wanted[keys] & set(ids))
            if len(ids) == window:
                going_on.append(place)
        if wanted is not None:
            going_on = [(k, name) for k, name in going_on if len(found[k].ids) < len(wanted[k])]
        start += window - _OVERLAP
        if share is not None and start >= share:
            for keys, _ in going_on:
                found[keys].complete = False
            break
        pending = going_on
    return found
