"""Entries deep in a long list, where no command of Redis finds or deletes one quickly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qctl.connect import Client
from qctl.wire import scripts

# Entries that one command sends: less than a millisecond of Redis' time.
_SENT = 5_000


def positions(client: Client, key: str, ids: Sequence[str]) -> Iterator[dict[str, int]]:
    """Where in a list some entries are, from the head; a round trip an item, which may be empty.

    Adds at the head meanwhile move entries away from it: then one may be further in by now.
    """
    wanted, start = set(ids), 0
    while wanted:
        window = client.call("LRANGE", key, start, start + _SENT - 1)
        found = {}
        if not wanted.isdisjoint(window):
            found = {job_id: start + i for i, job_id in enumerate(window) if job_id in wanted}
        yield found
        wanted.difference_update(found)
        if len(window) < _SENT:
            return
        start += _SENT


def draw(client: Client, key: str, ids: Sequence[str], start: int, end: int) -> int:
    """Bring those of the ids that are between two indices to the first of these.

    Entries that are passed keep their order.

    Returns:
        How many of the ids are there.
    """
    return int(scripts.run(client, "draw", [key], [start, end - start, *ids]))
