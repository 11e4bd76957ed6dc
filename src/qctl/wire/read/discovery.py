"""Finds queues by their keys (wire format 2.4)."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Collection

from qctl.config.prefixes import EVERY_PREFIX, Prefixes, tokens
from qctl.connection.address import Client
from qctl.errors import ReplyError
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import value_or

# How many keys one SCAN call visits. A key takes Redis about 2 µs (docs/scale.md), a call 1 ms.
SCAN_COUNT = 500
_GLOB = re.compile(r"([*?\[\]\\^-])")
# BullMQ writes at least one of these fields into the ``meta`` of each queue (wire format 2.2).
_META_FIELDS = ("opts.maxLenEvents", "version", "paused", "concurrency", "max")
_MAX_BATCH = 1000


def discover(client: Client, prefix: str) -> list[str]:
    """Names of the queues under ``prefix``, sorted.

    A queue has a ``meta`` hash or, if it is of Bull 3/4 or its ``meta`` was deleted, an ``id``
    counter. One slow scan of all keys finds both. Names with colons are artefacts (trap T6) and not
    returned. A name may be no queue, because other keys can look like a queue's.
    """
    return discover_within(client, prefix, math.inf)[0]


def discover_within(client: Client, prefix: str, within_s: float) -> tuple[list[str], bool]:
    """The names that a scan finds in ``within_s`` seconds, and whether the scan is complete."""
    pattern = f"{literal(prefix)}:*:[mi][ed]*"
    names = set()
    keys, is_complete = _scan(client, pattern, within_s)
    for key in keys:
        name, _, suffix = key[len(prefix) + 1 :].rpartition(":")
        if suffix in {"meta", "id"} and name and ":" not in name:
            names.add(name)
    return sorted(names), is_complete


def literal(text: str) -> str:
    """A pattern for SCAN that matches only this text."""
    return _GLOB.sub(r"\\\1", text)


def discover_queues(
    client: Client, prefixes: Prefixes, within_s: float = math.inf
) -> tuple[list[QueueKeys], bool]:
    """The queues under several prefixes, sorted, by one scan; and whether the scan is complete.

    Under a prefix that ``*`` or ``?`` matches, keys of other programs may look like a queue's. So
    ``meta`` must have a field of BullMQ's there, and an ``id`` counter alone makes a queue only
    under a prefix that has such a ``meta``. What lies within the keys of a queue is its own (trap
    T6), unless it has both ``meta`` and ``id``.
    """
    if (prefix := prefixes.single) is not None:
        names, is_complete = discover_within(client, prefix, within_s)
        return [QueueKeys(prefix, name) for name in names], is_complete
    keys, is_complete = _scan(client, f"{_scan_pattern(prefixes)}:*:[mi][ed]*", within_s)
    found: dict[str, set[QueueKeys]] = {"meta": set(), "id": set()}
    certain = set()
    for key in keys:
        base, _, suffix = key.rpartition(":")
        prefix, _, name = base.rpartition(":")
        if suffix not in found or not prefix or not name or not prefixes.include(prefix, name):
            continue
        if prefix in prefixes.of_queue(name):
            certain.add(QueueKeys(prefix, name))
        else:
            found[suffix].add(QueueKeys(prefix, name))
    likely = _with_queue_meta(client, found["meta"])
    used = {queue.prefix for queue in likely}
    likely |= {queue for queue in found["id"] if queue.prefix in used}
    outer = {above for queue in likely for above in _above(queue)}
    owners = certain | likely | _with_queue_meta(client, outer - certain - likely)
    whole = found["meta"] & found["id"]
    certain |= {q for q in likely if q in whole or not owners.intersection(_above(q))}
    return sorted(certain), is_complete


def prefixes_in_use(client: Client, within_s: float = math.inf) -> tuple[list[str], bool]:
    """Prefixes under which there are queues, sorted, and whether the scan is complete."""
    queues, is_complete = discover_queues(client, EVERY_PREFIX, within_s)
    return sorted({queue.prefix for queue in queues}), is_complete


def _scan_pattern(prefixes: Prefixes) -> str:
    """A pattern for SCAN that matches all these prefixes, and perhaps more."""
    if len(prefixes.patterns) > 1:
        return "*"
    parts = tokens(prefixes.patterns[0])
    return "".join(literal(t) if not special else "?" if t == "?" else "*" for t, special in parts)


def _above(queue: QueueKeys) -> list[QueueKeys]:
    """The queues to which the keys of this queue would belong, if its prefix began with theirs."""
    parts = queue.prefix.split(":")
    return [QueueKeys(":".join(parts[:end]), parts[end]) for end in range(1, len(parts))]


def _with_queue_meta(client: Client, queues: Collection[QueueKeys]) -> set[QueueKeys]:
    """Those whose ``meta`` is a hash with a field of BullMQ's."""
    found, rest = set(), [*queues]
    while rest:
        batch, rest = rest[:_MAX_BATCH], rest[_MAX_BATCH:]
        replies = client.pipeline([("HMGET", queue("meta"), *_META_FIELDS) for queue in batch])
        for queue, reply in zip(batch, replies, strict=True):
            # A ``meta`` that this Redis user may not read counts: the queue is then reported.
            is_denied = isinstance(reply, ReplyError) and reply.code != "WRONGTYPE"
            if is_denied or any(field is not None for field in value_or(reply, [])):
                found.add(queue)
    return found


def _scan(client: Client, pattern: str, within_s: float) -> tuple[list[str], bool]:
    found: list[str] = []
    deadline = time.monotonic() + within_s
    for node in client.masters():
        cursor = "0"
        while True:
            cursor, keys = node.call("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)
            found += keys
            if cursor == "0":
                break
            if time.monotonic() > deadline:
                return found, False
    return found, True
