"""Flow parents that wait for children which will never end (wire format 5.8, traps T16 and T18)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from qctl.connection.address import Arg, Client
from qctl.wire.keys import JobRef, QueueKeys, job_of
from qctl.wire.read.snapshot import QueueSnapshot
from qctl.wire.replies import checked, value_or

# Parents looked at over all queues together, of one queue, and unfinished children of one parent.
BUDGET = 2000
_MOST, _LEAST = 200, 5
_CHILDREN = 20

Reason = Literal["failed", "gone", "none"]


@dataclass(frozen=True, slots=True, order=True)
class StuckParent:
    """A parent in ``waiting-children``.

    Args:
        reason: its ``child`` ``failed`` and no option says what then, or is ``gone``; or the parent
            has ``none`` left to wait for.
        child: queue and id of the child; None when it lies under another prefix, or there is none.
    """

    keys: QueueKeys
    id: str
    reason: Reason
    child: JobRef | None


@dataclass(frozen=True, slots=True)
class StuckParents:
    """Those found, of how many parents that were looked at and how many there are."""

    found: tuple[StuckParent, ...]
    examined: int
    total: int


def stuck_parents(
    client: Client, queues: Sequence[QueueSnapshot], *, full: bool = False
) -> StuckParents:
    """The parents that have waited longest, in a few round trips; all of them when ``full``.

    Of a parent's children 20 are looked at, at random: those that have ended leave the set, so that
    in time only the failed ones are left in it.
    """
    parents = {queue.keys: queue.counts.waiting_children for queue in queues}
    parents = {keys: count for keys, count in parents.items() if count}
    most = min(max(BUDGET // max(len(parents), 1), _LEAST), _MOST)
    found: list[StuckParent] = []
    examined = start = 0
    pending = list(parents)
    while pending:
        windows = client.pipeline(
            [("ZRANGE", keys("waiting-children"), start, start + most - 1) for keys in pending]
        )
        ids = [
            (k, i) for k, reply in zip(pending, windows, strict=True) for i in value_or(reply, [])
        ]
        examined += len(ids)
        if stuck := _look(client, ids):
            # What ends between two reads may look stuck once.
            again = _look(client, [(parent.keys, parent.id) for parent in stuck])
            still = _still_waiting(client, again)
            found += [parent for parent in again if (parent.keys, parent.id) in still]
        start += most
        pending = [keys for keys in pending if full and parents[keys] > start]
    return StuckParents(tuple(sorted(found)), examined, sum(parents.values()))


def _look(client: Client, ids: Iterable[JobRef]) -> list[StuckParent]:
    parents = list(ids)
    reads: list[tuple[Arg, ...]] = []
    for keys, parent in parents:
        pending = keys(f"{parent}:dependencies")
        reads += [("SCARD", pending), ("SRANDMEMBER", pending, _CHILDREN)]
    replies = client.pipeline(reads) if reads else []
    children = [value_or(reply, []) for reply in replies[1::2]]
    commands: list[tuple[Arg, ...]] = []
    for (keys, _), own in zip(parents, children, strict=True):
        for child in own:
            home = job_of(child, keys.prefix)
            commands.append(("EXISTS", child))
            # One under another prefix is only looked for.
            commands.append(("ZSCORE", home[0]("failed"), home[1]) if home else ("EXISTS", child))
    answers = iter(client.pipeline(commands) if commands else ())
    found = []
    for (keys, parent), count, own in zip(parents, replies[::2], children, strict=True):
        if value_or(count, 1) == 0:
            found.append(StuckParent(keys, parent, "none", None))
        for child in own:
            exists, failed = checked(next(answers)), value_or(next(answers), None)
            home = job_of(child, keys.prefix)
            reason: Reason | None = "gone" if not exists else None
            if home is not None and failed is not None:
                reason = "failed"
            if reason and (not found or (found[-1].keys, found[-1].id) != (keys, parent)):
                found.append(StuckParent(keys, parent, reason, home))
    return found


def _still_waiting(client: Client, parents: Sequence[StuckParent]) -> frozenset[JobRef]:
    commands = [("ZSCORE", parent.keys("waiting-children"), parent.id) for parent in parents]
    scores = client.pipeline(commands) if commands else []
    return frozenset(
        (parent.keys, parent.id)
        for parent, score in zip(parents, scores, strict=True)
        if checked(score) is not None
    )
