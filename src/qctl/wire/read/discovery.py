"""Finds queues by their keys (wire format 2.4)."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from qctl.config.prefixes import Prefixes, tokens
from qctl.connection.address import Client
from qctl.errors import ReplyError
from qctl.wire.keys import QueueKeys

# How many keys one SCAN call visits: at about 2 µs for a key (docs/scale.md), a call takes 1 ms.
SCAN_COUNT = 500
_GLOB = re.compile(r"([*?\[\]\\^-])")
# BullMQ writes at least one of these fields into the ``meta`` of each queue (wire format 2.2).
_META_FIELDS = ("opts.maxLenEvents", "version", "paused", "concurrency", "max")
_MAX_BATCH = 1000
# Matches ``meta``, ``id``, and little else that queues have.
_SUFFIXES = "[mi][ed]*"
# After this many keys, a scan does not look beyond the chosen prefixes any more.
_MAX_BEYOND = 2000


@dataclass(frozen=True, slots=True)
class Survey:
    """What a scan has found.

    Args:
        queues: sorted by prefix and name.
        other_prefixes: prefixes of further queues, sorted; empty without ``look_beyond``. Some may
            be missing if more than 2,000 keys in the database look like a ``meta`` or an ``id``.
        is_complete: whether the scan ended in time.
    """

    queues: tuple[QueueKeys, ...]
    other_prefixes: tuple[str, ...]
    is_complete: bool


def literal(text: str) -> str:
    """A pattern for SCAN that matches only this text."""
    return _GLOB.sub(r"\\\1", text)


def survey(
    client: Client, prefixes: Prefixes, within_s: float = math.inf, *, look_beyond: bool = False
) -> Survey:
    """Find the queues under these prefixes, in one slow scan of all keys.

    Every queue has a ``meta`` hash or an ``id`` counter; Bull 3/4 makes only the counter. No
    returned name has a colon. A returned name may belong to no queue, because other keys can look
    like a queue's.

    A prefix that is not named, but matches a pattern with ``*`` or ``?``, may belong to another
    program. So at least one queue under this prefix must have a ``meta`` with a field of BullMQ's.
    The other queues under the prefix then need only an ``id``.

    Keys ``a:b:c:…`` can belong to a queue ``b`` under the prefix ``a``, or to a queue ``c`` under
    the prefix ``a:b``. If the queue ``b`` exists, the queue ``c`` is found only if it has both
    ``a:b:c:meta`` and ``a:b:c:id``.

    Args:
        within_s: end the scan after this time, in seconds.
        look_beyond: also find the prefixes of other queues, without a longer scan.
    """
    pattern = f"{_scan_pattern(prefixes)}:*:{_SUFFIXES}"
    first = f"*:*:{_SUFFIXES}" if look_beyond else pattern
    keys, is_complete = _scan(client, first, pattern, within_s)
    certain: set[QueueKeys] = set()
    found: dict[str, set[QueueKeys]] = {"meta": set(), "id": set()}
    for key in keys:
        base, _, suffix = key.rpartition(":")
        prefix, _, name = base.rpartition(":")
        if suffix not in found or not prefix or not name:
            continue
        if prefix in prefixes.of_queue(name):
            certain.add(QueueKeys(prefix, name))
        elif look_beyond or prefixes.include(prefix, name):
            found[suffix].add(QueueKeys(prefix, name))
    inside = {queue for queue in found["meta"] if prefixes.include(queue.prefix, queue.name)}
    likely = with_queue_meta(client, inside, if_denied=True)
    likely |= _beyond(client, sorted(found["meta"] - inside))
    queues = certain | _likely_queues(client, certain, likely, found["meta"], found["id"])
    chosen = {queue for queue in queues if prefixes.include(queue.prefix, queue.name)}
    used = {queue.prefix for queue in chosen}
    others = {queue.prefix for queue in queues - chosen} - used
    return Survey(tuple(sorted(chosen)), tuple(sorted(others)), is_complete)


def _likely_queues(
    client: Client,
    certain: set[QueueKeys],
    likely: set[QueueKeys],
    with_meta: set[QueueKeys],
    with_id: set[QueueKeys],
) -> set[QueueKeys]:
    """``likely`` plus queues with only an ``id``, minus all whose keys belong to another queue."""
    used = {queue.prefix for queue in likely}
    likely = likely | {queue for queue in with_id if queue.prefix in used}
    outer = {above for queue in likely for above in _above(queue)}
    owners = certain | likely | with_queue_meta(client, outer - certain - likely)
    whole = with_meta & with_id
    return {q for q in likely if q in whole or not owners.intersection(_above(q))}


def _scan_pattern(prefixes: Prefixes) -> str:
    """A pattern for SCAN that matches all these prefixes, and perhaps more."""
    if len(prefixes.patterns) > 1:
        return "*"
    parts = tokens(prefixes.patterns[0])
    return "".join(literal(t) if not special else "?" if t == "?" else "*" for t, special in parts)


def _above(queue: QueueKeys) -> list[QueueKeys]:
    """The queues that may own the keys of this queue: for ``a:b:c``, the queue ``a:b``."""
    parts = queue.prefix.split(":")
    return [QueueKeys(":".join(parts[:end]), parts[end]) for end in range(1, len(parts))]


def _beyond(client: Client, queues: Sequence[QueueKeys]) -> set[QueueKeys]:
    """``with_queue_meta`` for queues that nobody asked for.

    Redis logs each denial, so if this Redis user may not read the first queue, no other is read.
    """
    if not queues:
        return set()
    (reply,) = client.pipeline([("HMGET", queues[0]("meta"), *_META_FIELDS)])
    is_denied = isinstance(reply, ReplyError) and reply.code != "WRONGTYPE"
    return set() if is_denied else with_queue_meta(client, queues)


def with_queue_meta(
    client: Client, queues: Collection[QueueKeys], *, if_denied: bool = False
) -> set[QueueKeys]:
    """The queues whose ``meta`` is a hash with a field of BullMQ's.

    If ``if_denied``, queues that this Redis user may not read are included.
    """
    found, rest = set(), [*queues]
    while rest:
        batch, rest = rest[:_MAX_BATCH], rest[_MAX_BATCH:]
        replies = client.pipeline([("HMGET", queue("meta"), *_META_FIELDS) for queue in batch])
        for queue, reply in zip(batch, replies, strict=True):
            if isinstance(reply, ReplyError):
                is_queue = if_denied and reply.code != "WRONGTYPE"
            else:
                is_queue = any(field is not None for field in reply)
            if is_queue:
                found.add(queue)
    return found


def _scan(client: Client, first: str, then: str, within_s: float) -> tuple[list[str], bool]:
    """Keys that match ``first``. Once there are many, only keys that match ``then`` are added."""
    found: list[str] = []
    deadline = time.monotonic() + within_s
    for node in client.masters():
        cursor = "0"
        while True:
            pattern = first if len(found) <= _MAX_BEYOND else then
            cursor, keys = node.call("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)
            found += keys
            if cursor == "0":
                break
            if time.monotonic() > deadline:
                return found, False
    return found, True
