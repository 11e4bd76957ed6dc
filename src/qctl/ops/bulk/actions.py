"""What can be done to jobs in bulk: run them again, promote them, delete them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from qctl.connection.address import Client
from qctl.ops.bulk.context import WORDS, Means
from qctl.ops.bulk.family import look_below, remove_below
from qctl.wire.keys import QueueKeys
from qctl.wire.states import STATES
from qctl.wire.write.transitions import promote, remove_jobs, report_cleaned, retry_finished

# What an action does to some jobs: id → the script's word, or why the job was left alone. In parts,
# as they are done: what is told of them must be true when it is interrupted behind any of them.
Act = Callable[[Means, Sequence[str]], Iterable[Mapping[str, str]]]


@dataclass(frozen=True, slots=True)
class Action:
    """An action.

    Args:
        name: as commands and JSON call it.
        done: the script's word for a job to which it was done; also the one for people.
        states: those it applies to.
        words: why a job was left alone, by the script's other words.
        below: whether jobs below them go, too, however many.
        moved_on: those words that say that it has left its state.
        report: writes one event for so many jobs to which it was done; None if each has its own.
    """

    name: str
    done: str
    states: tuple[str, ...]
    act: Act
    words: Mapping[str, str] = field(default_factory=dict)
    below: bool = False
    moved_on: frozenset[str] = frozenset({"inactive"})
    report: Callable[[Client, QueueKeys, int], None] | None = None

    def reason(self, answer: str) -> str:
        """Why a job was left alone."""
        return self.words.get(answer) or WORDS.get(answer, answer)


def retrying(state: str = "", *, reset_attempts: bool = False) -> Action:
    """Run finished jobs again; without a state also put lost ones back.

    Args:
        state: where they must be: ``failed`` or ``completed``; empty for either, or for nowhere.
        reset_attempts: forget attempts and stalls; else a job that used all its attempts gets one
            more run.
    """
    forget = "attempts" if reset_attempts else ""

    def act(means: Means, ids: Sequence[str]) -> Iterator[Mapping[str, str]]:
        yield retry_finished(
            means.client,
            means.keys,
            ids,
            source=state,
            forget=forget,
            dry_run=means.dry_run,
            pace=means.pace,
        )

    words = {
        "inactive": f"it is not {state or 'finished'}",
        "ended": "it has ended and is in no state: only `qctl jobs remove` applies to it",
        "ghost": "it is in no state and lacks a name or a timestamp, so it cannot run",
        "children": "it is in no state, and its children have not ended",
    }
    return Action("retry", "retried", ("failed", "completed"), act, words)


def promoting() -> Action:
    """Run delayed jobs now."""

    def act(means: Means, ids: Sequence[str]) -> Iterator[Mapping[str, str]]:
        yield promote(means.client, means.keys, ids, dry_run=means.dry_run, pace=means.pace)

    return Action("promote", "promoted", ("delayed",), act, {"inactive": "it is not delayed"})


def removing(*, with_children: bool = False) -> Action:
    """Delete jobs.

    Args:
        with_children: also all jobs below them in their flows.
    """
    act = _remove_with_children if with_children else partial(_remove, silent=False)
    return Action("remove", "removed", _REMOVABLE, act, below=with_children, moved_on=_LEFT)


def purging() -> Action:
    """Delete the jobs of a state, reported in one event for up to 10,000."""
    act = partial(_remove, silent=True)
    return Action("purge", "removed", _REMOVABLE, act, moved_on=_LEFT, report=report_cleaned)


_LEFT = frozenset({"inactive", "locked", "missing", "gone"})
_REMOVABLE = tuple(state for state in STATES if state != "active")


def _remove(means: Means, ids: Sequence[str], *, silent: bool) -> Iterator[Mapping[str, str]]:
    yield remove_jobs(
        means.client,
        means.keys,
        ids,
        state=means.state,
        silent=silent,
        dry_run=means.dry_run,
        seen=means.seen,
        pace=means.pace,
    )


def _remove_with_children(means: Means, ids: Sequence[str]) -> Iterator[Mapping[str, str]]:
    for job_id in ids:
        means.check_stop()
        yield {job_id: _remove_family(means, job_id)}


def _remove_family(means: Means, job_id: str) -> str:
    def remove(*, dry_run: bool) -> str:
        answers = remove_jobs(
            means.client,
            means.keys,
            [job_id],
            state=means.state,
            with_last=True,
            dry_run=dry_run,
            seen=means.seen,
            pace=means.pace,
        )
        return answers[job_id]

    # Before anything below it is touched.
    answer = remove(dry_run=True)
    if answer != "removed":
        return answer
    top = means.keys, job_id
    if reason := look_below(means, top):
        return reason
    reason, with_it = remove_below(means, top)
    if reason:
        return reason
    answer = remove(dry_run=means.dry_run)
    if answer == "removed":
        means.below += with_it
    return "jobs came below it meanwhile" if answer == "parent" else answer
