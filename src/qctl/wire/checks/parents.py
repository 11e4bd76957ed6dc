"""Flow parents that wait for ever for their children (wire format 5.8, traps T16 and T18)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from qctl.connection.address import Arg, Client
from qctl.wire.keys import JobKey, QueueKeys, job_of
from qctl.wire.read.snapshot import QueueSnapshot
from qctl.wire.replies import checked, read_groups, value_or

# About how many parents are checked in all queues together.
MAX_PARENTS = 2000
# The upper and the lower limit for the number of parents that are checked in each queue.
_MAX_PER_QUEUE, _MIN_PER_QUEUE = 200, 5
# At most this many children of each parent are checked.
_CHILDREN = 20

Reason = Literal["failed", "gone", "none"]


@dataclass(frozen=True, slots=True, order=True)
class StuckParent:
    """A parent that waits for ever, with the first reason that was found.

    Args:
        reason: ``failed``: ``child`` has failed, and no option says what its parent does then;
            ``gone``: the child does not exist; ``none``: no child is left to wait for.
        child: queue and id of the child; None if it is under another prefix, or if the reason is
            ``none``.
    """

    keys: QueueKeys
    id: str
    reason: Reason
    child: JobKey | None


def stuck_parents(
    client: Client, queues: Sequence[QueueSnapshot], *, full: bool = False
) -> tuple[list[StuckParent], int, int]:
    """The stuck parents, the number of parents checked, and the number of all parents.

    For each parent, up to 20 random pending children are checked. A child that completes is no
    longer pending, so in the end only failed and deleted children are left.

    Args:
        full: check all parents. If False, check the parents that have waited longest, in a few
            round trips.
    """
    parents = {queue.keys: queue.counts.waiting_children for queue in queues}
    parents = {keys: count for keys, count in parents.items() if count}
    window = min(max(MAX_PARENTS // max(len(parents), 1), _MIN_PER_QUEUE), _MAX_PER_QUEUE)
    found: list[StuckParent] = []
    examined = start = 0
    pending = list(parents)
    while pending:
        windows = client.pipeline(
            [("ZRANGE", keys("waiting-children"), start, start + window - 1) for keys in pending]
        )
        ids = [
            (k, i) for k, reply in zip(pending, windows, strict=True) for i in value_or(reply, [])
        ]
        examined += len(ids)
        if stuck := _stuck_among(client, ids):
            # Check twice: a parent may look stuck if it or a child has moved between two reads.
            again = _stuck_among(client, [(parent.keys, parent.id) for parent in stuck])
            scores = client.pipeline([("ZSCORE", p.keys("waiting-children"), p.id) for p in again])
            pairs = zip(again, scores, strict=True)
            found += [parent for parent, score in pairs if checked(score) is not None]
        start += window
        pending = [keys for keys in pending if full and parents[keys] > start]
    return sorted(found), examined, sum(parents.values())


def _stuck_among(client: Client, parents: Sequence[JobKey]) -> list[StuckParent]:
    pending = [keys(f"{parent}:dependencies") for keys, parent in parents]
    reads = [(("SCARD", key), ("SRANDMEMBER", key, _CHILDREN)) for key in pending]
    rows = read_groups(client, reads)
    children = [
        [(child, job_of(child, keys.prefix)) for child in value_or(reply, [])]
        for (keys, _), (_, reply) in zip(parents, rows, strict=True)
    ]
    commands: list[tuple[Arg, ...]] = []
    for own in children:
        for key, child in own:
            commands.append(("EXISTS", key))
            # If the child is under another prefix, only its hash is checked.
            commands.append(("ZSCORE", child[0]("failed"), child[1]) if child else ("EXISTS", key))
    answers = iter(client.pipeline(commands))
    found = []
    for (keys, parent), (count, _), own in zip(parents, rows, children, strict=True):
        stuck = [StuckParent(keys, parent, "none", None)] if value_or(count, 1) == 0 else []
        for _, child in own:
            exists, failed = checked(next(answers)), value_or(next(answers), None)
            if child is not None and failed is not None:
                stuck.append(StuckParent(keys, parent, "failed", child))
            elif not exists:
                stuck.append(StuckParent(keys, parent, "gone", child))
        found += stuck[:1]
    return found
