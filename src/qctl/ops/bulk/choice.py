"""Which jobs an action applies to, and how the operator has to confirm it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from qctl.ops.bulk.actions import Action
from qctl.ops.jobs.where import Filter, Where
from qctl.wire.jobs import LARGE_FIELDS

# Up to FEW named jobs are retried or promoted without a confirmation. For more than MANY jobs, the
# operator has to type the queue's name.
FEW = 10
MANY = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which jobs an action applies to.

    Args:
        state: one of ``wire.states.STATES``; None for the jobs in ``ids``, in any state.
        ids: the ids of the jobs, if ``state`` is None.
        only: which jobs of the state.
        limit: how many jobs are changed at most.
    """

    state: str | None = None
    ids: tuple[str, ...] = ()
    only: Filter = field(default_factory=Filter)
    limit: int | None = None

    @property
    def named_count(self) -> int:
        """How many jobs are named by their ids."""
        return len(self.ids or self.only.ids)

    @property
    def large_fields(self) -> tuple[str, ...]:
        """The fields of a job that may be large and that the filter reads."""
        where = self.only.where
        read = where.fields if isinstance(where, Where) else LARGE_FIELDS if where else frozenset()
        # ``attempts_max`` is read from the job's options.
        more = {"opts"} if "attempts_max" in read else set()
        return tuple(sorted((read & LARGE_FIELDS) | more))


class Confirmation(Enum):
    """What the operator has to type before an action."""

    NONE = "nothing"
    YES = "a yes"
    QUEUE_NAME = "the queue's name"


def required_confirmation(action: Action, selection: Selection, total: int) -> Confirmation:
    """What the operator has to type before an action that changes up to ``max_changed`` jobs.

    How many jobs match a filter is unknown before all jobs have been read, so all of them count.
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
    """How many jobs are changed at most; ``total`` is how many jobs are in the state."""
    count = selection.named_count or total
    return count if selection.limit is None else min(count, selection.limit)
