"""The actions on many jobs: which jobs an action applies to, and how the operator confirms it.

The Lua script of an action answers with one word for each job, such as ``retried`` or ``locked``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial

from qctl.connection.address import Client
from qctl.ops.bulk.family import remove_with_children
from qctl.ops.bulk.model import REASONS, BulkContext
from qctl.ops.jobs.where import Filter, Where
from qctl.wire.jobs import LARGE_FIELDS
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import this_process
from qctl.wire.write.cancelling import CANCELLED, cancel_jobs
from qctl.wire.write.cancelling import REASONS as CANCEL_REASONS
from qctl.wire.write.transitions import promote, remove_jobs, report_cleaned, retry_finished

# Changes jobs in parts. After each part, yields job id → the script's word, so that a report after
# an interruption is correct.
Act = Callable[[BulkContext, Sequence[str]], Iterable[Mapping[str, str]]]


@dataclass(frozen=True, slots=True)
class Action:
    """An action on many jobs.

    Args:
        name: the action's name in commands and JSON.
        done: the script's word for a job that was changed; also shown to people.
        states: the action can be applied to jobs in these states.
        act: changes jobs; see ``Act``.
        reasons: the script's word → why a job was left alone; overrides ``REASONS``.
        with_children: whether all jobs below the chosen jobs are also deleted.
        moved_on: the script's words for a job that has left its state.
        report: writes one event for many changed jobs; None if each job has its own event.
    """

    name: str
    done: str
    states: tuple[str, ...]
    act: Act
    reasons: Mapping[str, str] = field(default_factory=dict)
    with_children: bool = False
    moved_on: frozenset[str] = frozenset({"inactive"})
    report: Callable[[Client, QueueKeys, int], None] | None = None

    def reason(self, answer: str) -> str:
        """Why a job was left alone, from the script's word."""
        return self.reasons.get(answer) or REASONS.get(answer, answer)


def retrying(state: str = "", *, reset_attempts: bool = False) -> Action:
    """Run finished jobs again. If ``state`` is empty, also put back lost jobs (jobs in no state).

    Args:
        state: ``failed`` or ``completed``, if the jobs must be in this state; empty for all
            finished and lost jobs.
        reset_attempts: reset the counts of attempts and stalls; otherwise a job that has used all
            its attempts gets one more run.
    """
    forget = "attempts" if reset_attempts else ""

    def act(context: BulkContext, ids: Sequence[str]) -> Iterator[Mapping[str, str]]:
        yield retry_finished(
            context.client,
            context.keys,
            ids,
            source=state,
            forget=forget,
            dry_run=context.dry_run,
            pace=context.pace,
            foresight=context.foresight,
        )

    reasons = {
        "inactive": f"it is not {state or 'finished'}",
        "ended": "it has ended and is in no state: only `qctl jobs remove` applies to it",
        "ghost": "it is in no state and lacks a name or a timestamp, so it cannot run",
        "children": "it is in no state, and its children have not ended",
    }
    return Action("retry", "retried", ("failed", "completed"), act, reasons)


def promoting() -> Action:
    """Run delayed jobs now."""

    def act(context: BulkContext, ids: Sequence[str]) -> Iterator[Mapping[str, str]]:
        yield promote(context.client, context.keys, ids, dry_run=context.dry_run, pace=context.pace)

    return Action("promote", "promoted", ("delayed",), act, {"inactive": "it is not delayed"})


def removing(*, with_children: bool = False) -> Action:
    """Delete jobs, and with ``with_children`` all jobs below them in their flows."""
    act = remove_with_children if with_children else partial(_remove, silent=False)
    return Action(
        "remove", "removed", _REMOVABLE, act, with_children=with_children, moved_on=_MOVED_ON
    )


def cancelling() -> Action:
    """Delete jobs that have not started, and ask the workers to cancel those that run."""

    def act(context: BulkContext, ids: Sequence[str]) -> Iterator[Mapping[str, str]]:
        yield cancel_jobs(
            context.client,
            context.keys,
            ids,
            reason=str(this_process("jobs cancel")),
            dry_run=context.dry_run,
            check_stop=context.check_stop,
        )

    return Action("cancel", CANCELLED, (), act, CANCEL_REASONS)


def purging() -> Action:
    """Delete the jobs of a state; one event reports up to 10,000 deleted jobs."""
    act = partial(_remove, silent=True)
    return Action("purge", "removed", _REMOVABLE, act, moved_on=_MOVED_ON, report=report_cleaned)


# "locked": a worker took the waiting job. "missing": somebody removed the finished job.
_MOVED_ON = frozenset({"inactive", "locked", "missing"})
# ``active`` is left out, because workers have these jobs.
_REMOVABLE = (
    *("waiting", "stalled", "delayed", "prioritized", "waiting-children"),
    *("completed", "failed"),
)


def _remove(
    context: BulkContext, ids: Sequence[str], *, silent: bool
) -> Iterator[Mapping[str, str]]:
    yield remove_jobs(
        context.client,
        context.keys,
        ids,
        state=context.state,
        silent=silent,
        dry_run=context.dry_run,
        just_seen=context.just_seen,
        pace=context.pace,
        foresight=context.foresight,
    )


# Up to FEW named jobs are retried or promoted without a confirmation. For more than MANY jobs, the
# operator has to type the queue's name, or for several queues the number of jobs.
FEW = 10
MANY = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which jobs an action applies to.

    Args:
        state: one of ``wire.states.STATES``; None selects the jobs in ``ids``, in any state.
        ids: the ids of the jobs, if ``state`` is None.
        only: a filter on the jobs in ``state``.
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
        """The fields that the filter reads and that may be large."""
        where = self.only.where
        read = where.fields if isinstance(where, Where) else LARGE_FIELDS if where else frozenset()
        # ``attempts_max`` is read from the job's options.
        more = {"opts"} if "attempts_max" in read else set()
        return tuple(sorted((read & LARGE_FIELDS) | more))


class Confirmation(Enum):
    """What the operator has to type before an action."""

    NONE = "nothing"
    YES = "a yes"
    NAME = "the queue's name, or for several queues the number of jobs"


def required_confirmation(action: Action, selection: Selection, most: int) -> Confirmation:
    """What the operator has to type before an action that changes at most ``most`` jobs."""
    if most and (action.name == "purge" or most > MANY):
        return Confirmation.NAME
    if not most or (selection.named_count and most <= FEW and action.name in {"retry", "promote"}):
        return Confirmation.NONE
    return Confirmation.YES


def max_changed(selection: Selection, total: int) -> int:
    """How many jobs are changed at most; ``total`` is how many jobs are in the state."""
    count = selection.named_count or total
    return count if selection.limit is None else min(count, selection.limit)
