"""Whether a Redis user may run all commands of an operation, checked before it begins."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from qctl.connection.address import Client
from qctl.errors import ReplyError
from qctl.wire import scripts
from qctl.wire.keys import QueueKeys

# The scripts that drains and pauses run on the queue's keys, and those for qctl's own keys.
DRAIN = ("pause", "resume", "retry_stalled", "census")
PAUSE = ("pause", "resume")
_OWN = ("hold_lease", "disown")
# The commands with which a drain reads, besides those in scripts; ``$1`` is a key of the queue.
_READS = (
    *("EXISTS $1", "GET $1", "HEXISTS $1", "HGET $1", "HMGET $1", "LINDEX $1", "LLEN $1"),
    *("LPOS $1 x", "LRANGE $1", "PTTL $1", "XRANGE $1", "XREAD STREAMS $1 0", "XREVRANGE $1"),
    *("ZCARD $1", "ZCOUNT $1", "ZRANGE $1", "ZREVRANGE $1", "ZSCORE $1 x"),
)
_CALL = re.compile(r'redis\.p?call\(\s*"([A-Z]+)"')
# Commands that the scripts in ``DRAIN`` and ``PAUSE`` run only on qctl's own keys.
_OWN_ONLY = {"SET"}


@dataclass(frozen=True, slots=True)
class MissingRights:
    """Commands in lower case that a user may not run on the queue's keys or on qctl's own keys."""

    on_queue: tuple[str, ...] = ()
    on_own: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.on_queue or self.on_own)


@cache
def script_commands(name: str) -> frozenset[str]:
    """The commands that one of qctl's scripts runs, from its source."""
    return frozenset(_CALL.findall(scripts.source(name)))


def required_commands(names: Sequence[str]) -> list[str]:
    """All commands that an operation runs, in the form that ``rights.lua`` reads.

    Args:
        names: the scripts that the operation runs on the queue's keys: ``DRAIN`` or ``PAUSE``.
    """
    on_queue = frozenset[str]().union(*map(script_commands, names)) - _OWN_ONLY
    on_own = frozenset[str]().union(*map(script_commands, _OWN))
    found = {_on_key(name, 1) for name in on_queue}
    # Keys 2 and 3 are the pause note and the lease.
    found |= {_on_key(name, number) for name in on_own for number in (2, 3)}
    return sorted(found | {*_READS} if names == DRAIN else found)


def read_missing_rights(
    client: Client, keys: QueueKeys, names: Sequence[str]
) -> MissingRights | None:
    """Those of ``required_commands`` that the user may not run.

    Args:
        names: ``DRAIN`` or ``PAUSE``.

    Returns:
        None if Redis is older than 7 and cannot check rights.

    Raises:
        ReplyError: Redis is away, or cannot run scripts at present.
    """
    try:
        args = [keys.pause_note, keys.lease, *required_commands(names)]
        refused = scripts.run(client, "rights", [keys("meta")], args)
    except ReplyError as error:
        if error.code != "NOPERM":
            raise
        # The user may not even run this script.
        return MissingRights(on_queue=("eval", "evalsha"))
    if refused is None:
        return None
    return MissingRights(
        on_queue=tuple(sorted({_name(text) for text in refused if "$1" in text.split()})),
        on_own=tuple(sorted({_name(text) for text in refused if "$1" not in text.split()})),
    )


def _on_key(name: str, number: int) -> str:
    # TIME has no key.
    return name if name == "TIME" else f"{name} ${number}"


def _name(command: str) -> str:
    return command.partition(" ")[0].lower()
