"""Which jobs an action on many is meant for, and how firmly to ask before."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from qctl.ops.bulk.actions import Action
from qctl.ops.jobs.where import Filter, Where
from qctl.wire.jobs import HEAVY

# Named jobs that are run again without a question, and jobs from which on the name is asked for.
FEW = 10
MANY = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which jobs.

    Args:
        state: one of ``wire.states.STATES``; None for the jobs named, wherever they are.
        ids: those, without a state.
        only: which of the state.
        limit: how many are changed at most.
    """

    state: str | None = None
    ids: tuple[str, ...] = ()
    only: Filter = field(default_factory=Filter)
    limit: int | None = None

    @property
    def named(self) -> int:
        """How many jobs are named; 0 when none is."""
        return len(self.ids or self.only.ids)

    @property
    def heavy(self) -> tuple[str, ...]:
        """Long fields that the filter looks at."""
        where = self.only.where
        looked_at = where.fields if isinstance(where, Where) else HEAVY if where else frozenset()
        # How many attempts a job has stands in its options.
        more = {"opts"} if "attempts_max" in looked_at else set()
        return tuple(sorted((looked_at & HEAVY) | more))


class Firmness(Enum):
    """How firmly to ask before."""

    NOT = "not at all"
    YES = "a yes"
    NAME = "the queue's name"


def firmness(action: Action, selection: Selection, total: int) -> Firmness:
    """The more jobs it may touch, and the less can be undone, the firmer.

    With a filter only a look at all of them could tell how many there are: the question is about
    all that may be meant, at most ``selection.limit``.
    """
    most = most_meant(selection, total)
    if most and (action.name == "purge" or most > MANY):
        return Firmness.NAME
    if not most or (selection.named and most <= FEW and action.name in {"retry", "promote"}):
        return Firmness.NOT
    return Firmness.YES


def most_meant(selection: Selection, total: int) -> int:
    """How many jobs it can be at most; ``total`` are in the state."""
    most = selection.named or total
    return most if selection.limit is None else min(most, selection.limit)
