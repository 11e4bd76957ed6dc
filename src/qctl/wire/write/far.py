"""Moving entries deep in a long list, where no command of Redis deletes one quickly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.connection.address import Arg, Client
from qctl.wire import scripts
from qctl.wire.write.pace import Pace


@dataclass(frozen=True, slots=True)
class Block:
    """Entries that follow each other in a list; ``at`` is the index of the first, from the head."""

    at: int
    size: int
    first: str
    last: str


def draw(
    client: Client, key: str, block: Block, ids: Sequence[str], slack: int, pace: Pace
) -> tuple[Block, list[str]] | None:
    """Move a block towards the head; what it passes keeps its order.

    Args:
        ids: those that it takes along if it comes by them.
        slack: how much further in it may be by now.
        pace: how many entries it comes by at most.

    Returns:
        It, and those of the ids that are in it now; None when it is not where it should be.
    """
    steps = pace.size
    args: list[Arg] = [block.at, slack, block.size, block.first, block.last, steps, *ids]
    answer, took_s = scripts.run_timed(client, "draw", [key], args)
    pace.learn(steps, took_s)
    return (Block(*answer[:4]), answer[4:]) if answer else None
