"""Jobs deep in a long list are deleted in steps none of which holds Redis up.

A list can be changed quickly at its ends only. So such jobs are first moved towards the head,
where jobs are added, a few hundred places a step; all others keep their order. If that is
interrupted they have lost their turn, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

from qctl.ops.bulk.context import Means
from qctl.wire.keys import QueueKeys
from qctl.wire.read.lists import positions
from qctl.wire.write.far import Block, draw

# What is among so many entries from the head, or a few more, a script finds.
_NEAR = 200
# Moved together: so many may lose their turn.
GROUP = 10_000
# Adds at once by which entries may be further in than at the last look.
_SLACK = 2_000
# Others may have taken some from between, by which entries are nearer to each other than they were.
_CLOSER = 100
# How often jobs are looked for that more adds have left behind.
_TRIES = 10
_LISTS = {"waiting": ("paused", "wait"), "stalled": ("active",), "": ("wait", "paused", "active")}


def remove_far(
    means: Means,
    keys: QueueKeys,
    ids: Sequence[str],
    remove: Callable[[Sequence[str]], Mapping[str, str]],
    state: str = "",
) -> Iterator[Mapping[str, str]]:
    """Delete jobs that the script has found too ``deep``.

    Args:
        remove: the call of the script: ids → its words.
        state: where the jobs must be.

    Yields:
        What it says of them, as they are done; ``gone`` of those that are in none of the lists.
    """
    for start in range(0, len(ids), GROUP):
        left = ids[start : start + GROUP]
        for name in _LISTS.get(state, ()):
            for answers in _remove_from(means, keys(name), left, remove):
                yield answers
                left = [job_id for job_id in left if job_id not in answers]
        means.moving = 0
        yield dict.fromkeys(left, "gone")


def _remove_from(
    means: Means,
    key: str,
    ids: Sequence[str],
    remove: Callable[[Sequence[str]], Mapping[str, str]],
) -> Iterator[Mapping[str, str]]:
    """Delete those of the ids that are in a list."""
    left = set(ids)
    for _ in range(_TRIES):
        found = _positions(means, key, left)
        if means.dry_run:
            yield dict.fromkeys(found, "removed")
            return
        left &= found.keys()
        end = _sweep(means, key, found) if found else 0
        while near := _near(means, key, left, end):
            answers = remove(near)
            told = {job_id: answer for job_id, answer in answers.items() if answer != "deep"}
            yield told
            left -= told.keys()
            means.moving = max(means.moving - len(told), 0)
            if not told:
                break
        if not left:
            return
    yield dict.fromkeys(left, "deep")


def _positions(means: Means, key: str, ids: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for some in positions(means.client, key, ids):
        means.check_stop()
        found |= some
    return found


def _near(means: Means, key: str, ids: Container[str], end: int) -> list[str]:
    """Those that are near to the head by now, the first first: so they are found soonest."""
    means.check_stop()
    window = means.client.call("LRANGE", key, 0, end + _SLACK)
    return [job_id for job_id in window if job_id in ids][: means.pace.size]


def _sweep(means: Means, key: str, found: Mapping[str, int]) -> int:
    """Take along all that is come by, from the deepest on towards the head; how far it came."""
    order = sorted(found, key=lambda job_id: found[job_id])
    first = order.pop()
    block = Block(found[first], 1, first, first)
    # Adds at the head move all of them alike, but for what was there when they were looked for.
    moved = 0
    while block.at > _NEAR:
        means.check_stop()
        steps = means.hops.size
        lowest = block.at - moved - steps - _CLOSER
        start = len(order)
        while start and found[order[start - 1]] >= lowest:
            start -= 1
        drawn = draw(means.client, key, block, order[start:], _SLACK, means.hops)
        if drawn is None:
            # Others took some of it, or have added more than the slack.
            break
        expected = max(block.at - steps, 0)
        block, come = drawn
        means.moving = block.size
        moved += block.at - expected
        # What was not come by is gone, or will be found when they are looked for again.
        taken, passed = set(come), block.at - moved + _CLOSER
        order[start:] = [i for i in order[start:] if i not in taken and found[i] < passed]
    return block.at
