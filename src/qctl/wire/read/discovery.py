"""Finds queues by their keys (wire format 2.4)."""

from __future__ import annotations

import math
import re
import time

from qctl.connection.address import Client

# How many keys one SCAN call visits. A key takes Redis about 2 µs (docs/scale.md), a call 1 ms.
SCAN_COUNT = 500
_GLOB = re.compile(r"([*?\[\]\\^-])")


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


def prefixes_in_use(client: Client, within_s: float = math.inf) -> tuple[list[str], bool]:
    """Prefixes of the queues that have a ``meta``, sorted, and whether the scan is complete."""
    prefixes = set()
    keys, is_complete = _scan(client, "*:meta", within_s, only_hashes=True)
    for key in keys:
        prefix, _, name = key.removesuffix(":meta").rpartition(":")
        if prefix and name:
            prefixes.add(prefix)
    return sorted(prefixes), is_complete


def _scan(
    client: Client, pattern: str, within_s: float, *, only_hashes: bool = False
) -> tuple[list[str], bool]:
    found: list[str] = []
    options = ("TYPE", "hash") if only_hashes else ()
    deadline = time.monotonic() + within_s
    for node in client.masters():
        cursor = "0"
        while True:
            cursor, keys = node.call(
                "SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT, *options
            )
            found += keys
            if cursor == "0":
                break
            if time.monotonic() > deadline:
                return found, False
    return found, True
