"""Which jobs an action is meant for, and what has to be confirmed first."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from qctl.ops.bulk.actions import Action
from qctl.ops.jobs.where import Filter, Where
from qctl.wire.jobs import LARGE_FIELDS

# Up to FEW named jobs are run again without a question. For more than MANY jobs the queue's name
# has to be typed.
FEW = 10
MANY = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which jobs an action is meant for.

    Args:
        state: one of ``wire.states.STATES``; None for the jobs in ``ids``, wherever they are.
        ids: the jobs, if there is no state.
        only: a filter on the jobs of the state.
        limit: how many jobs are changed at most.
    """

    state: str | None = None
    ids: tuple[str, ...] = ()
    only: Filter = field(default_factory=Filter)
    limit: int | None = None

    @property
    def named_count(self) -> int:
        """How many jobs are named by their ids; 0 if none is."""
        return len(self.ids or self.only.ids)

    @property
    def heavy_fields(self) -> tuple[str, ...]:
        """Fields of a job that the filter reads and that may be long."""
        where = self.only.where
        read = where.fields if isinstance(where, Where) else LARGE_FIELDS if where else frozenset()
        # The allowed attempts are in the job's options.
        more = {"opts"} if "attempts_max" in read else set()
        return tuple(sorted((read & LARGE_FIELDS) | more))


class Confirmation(Enum):
    """What the operator has to type first."""

    NONE = "nothing"
    YES = "a yes"
    QUEUE_NAME = "the queue's name"


def required_confirmation(action: Action, selection: Selection, total: int) -> Confirmation:
    """What the operator has to type, by how many jobs may change and whether that can be undone.

    How many jobs match a filter is unknown until all have been read, so all that may match count.
    """
    count = max_changed(selection, total)
    if count and (action.name == "purge" or count > MANY):
        return Confirmation.QUEUE_NAME
    if not count or (
        selection.named_count and count <= FEW and action.name in {"retry", "promote"}
    ):
        return Confirmation.NONE
    return Confirmation.YES


def max_changed(selection: Selection, total: int) -> int:
    """How many jobs are changed at most; ``total`` are in the state."""
    count = selection.named_count or total
    return count if selection.limit is None else min(count, selection.limit)
