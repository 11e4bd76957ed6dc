"""Entries deep in a long list, where no command of Redis finds or deletes one quickly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from qctl.connect import Arg, Client
from qctl.wire import scripts

# Entries that one command sends: less than a millisecond of Redis' time.
_SENT = 5_000
# Of these read again, since others may delete so many before them meanwhile.
_OVERLAP = 100


def positions(client: Client, key: str, ids: Iterable[str]) -> Iterator[dict[str, int]]:
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
        start += _SENT - _OVERLAP


@dataclass(frozen=True, slots=True)
class Block:
    """Entries that follow each other in a list; ``at`` is the index of the first, from the head."""

    at: int
    size: int
    first: str
    last: str


def draw(
    client: Client, key: str, block: Block, ids: Sequence[str], steps: int, slack: int
) -> tuple[Block, list[str]] | None:
    """Move a block towards the head; what it passes keeps its order.

    Args:
        ids: those that it takes along if it comes by them.
        steps: entries that it comes by at most.
        slack: how much further in it may be by now.

    Returns:
        It, and those of the ids that are in it now; None when it is not where it should be.
    """
    args: list[Arg] = [block.at, slack, block.size, block.first, block.last, steps, *ids]
    answer = scripts.run(client, "draw", [key], args)
    return (Block(*answer[:4]), answer[4:]) if answer else None
