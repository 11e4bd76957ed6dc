"""Finding queues (wire format 2.4)."""

from __future__ import annotations

import re

from qctl.connect import Client

# Keys looked at per SCAN call: large enough that 10 million keys take a thousand calls, small
# enough that one call stays below 5 ms.
SCAN_COUNT = 10_000
_GLOB = re.compile(r"([*?\[\]\\^-])")


def discover(client: Client, prefix: str) -> list[str]:
    """Names of the queues under ``prefix``, sorted.

    A queue has a ``meta`` hash; a Bull 3/4 queue, and one whose meta was deleted, has an ``id``
    counter. One pass looks for both, since the pass over the key space is what costs. Names with
    colons are artefacts (trap T6) and left out. An empty or wrong-typed hit is told apart when the
    queue is read.
    """
    pattern = f"{literal(prefix)}:*:[mi][ed]*"
    names = set()
    for key in _scan(client, pattern):
        name, _, suffix = key[len(prefix) + 1 :].rpartition(":")
        if suffix in {"meta", "id"} and name and ":" not in name:
            names.add(name)
    return sorted(names)


def literal(text: str) -> str:
    """A pattern for SCAN that means this text and nothing else."""
    return _GLOB.sub(r"\\\1", text)


def prefixes_in_use(client: Client) -> list[str]:
    """Prefixes under which this database holds queues, sorted; for use in an error message."""
    prefixes = set()
    for key in _scan(client, "*:meta", only_hashes=True):
        prefix, _, name = key.removesuffix(":meta").rpartition(":")
        if prefix and name:
            prefixes.add(prefix)
    return sorted(prefixes)


def _scan(client: Client, pattern: str, *, only_hashes: bool = False) -> list[str]:
    found: list[str] = []
    options = ("TYPE", "hash") if only_hashes else ()
    for node in client.masters():
        cursor = "0"
        while True:
            cursor, keys = node.call(
                "SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT, *options
            )
            found += keys
            if cursor == "0":
                break
    return found
