"""Finds a queue's keys whose type is not the type that BullMQ uses (wire format 2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.connection.address import Client
from qctl.errors import ReplyError
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import read_groups
from qctl.wire.states import LISTS, SORTED_SETS

# Keys whose names do not depend on a job.
_TYPES = {
    "id": "string",
    "meta": "hash",
    **dict.fromkeys(LISTS, "list"),
    **dict.fromkeys(SORTED_SETS, "zset"),
    "stalled": "set",
    "stalled-check": "string",
    "marker": "zset",
    "events": "stream",
    "pc": "string",
    "limiter": "string",
    "repeat": "zset",
    "metrics:completed": "hash",
    "metrics:completed:data": "list",
    "metrics:failed": "hash",
    "metrics:failed:data": "list",
}


@dataclass(frozen=True, slots=True)
class WrongKey:
    """A key of the wrong type. ``name`` is the key's suffix; BullMQ uses the type ``expected``."""

    keys: QueueKeys
    name: str
    type: str
    expected: str

    @property
    def key(self) -> str:
        return self.keys(self.name)


def wrong_keys(client: Client, queues: Sequence[QueueKeys]) -> list[list[WrongKey] | ReplyError]:
    """For each queue, its keys of the wrong type, in one round trip.

    A missing key is not wrong. If this user may not run TYPE, an error replaces the list.
    """
    rows = read_groups(client, [[("TYPE", keys(name)) for name in _TYPES] for keys in queues])
    found: list[list[WrongKey] | ReplyError] = []
    for keys, types in zip(queues, rows, strict=True):
        error = next((each for each in types if isinstance(each, ReplyError)), None)
        wrong = [
            WrongKey(keys, name, str(each), expected)
            for (name, expected), each in zip(_TYPES.items(), types, strict=True)
            if each not in {"none", expected}
        ]
        found.append(wrong if error is None else error)
    return found
