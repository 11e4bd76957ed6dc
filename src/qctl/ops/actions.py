"""What can be done to jobs in bulk: run them again, promote them, delete them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from qctl.connect import Client
from qctl.wire.children import any_locked, descendants
from qctl.wire.keys import QueueKeys
from qctl.wire.transitions import promote, remove_jobs, retry_finished

# Jobs of one flow that are deleted with their parent.
MOST_CHILDREN = 10_000
_CHUNK = 100

# What an action does to some jobs of a state ("" for any): id → the script's word.
Act = Callable[[Client, QueueKeys, Sequence[str], str], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Action:
    """An action.

    Args:
        name: as commands and JSON call it.
        done: the script's word for a job to which it was done; also the one for people.
        states: those it applies to.
        words: why a job was left alone, by the script's other words.
    """

    name: str
    done: str
    states: tuple[str, ...]
    act: Act
    words: Mapping[str, str] = field(default_factory=dict)

    def reason(self, answer: str) -> str:
        """Why a job was left alone."""
        return self.words.get(answer) or _WORDS.get(answer, answer)


_WORDS = {
    "inactive": "it is in another state",
    "missing": "it does not exist, or its data is gone",
    "locked": "a worker has it",
    "duplicate": "another job that is still to end has its deduplication id",
    "scheduled": "it is the next run of a scheduler; `qctl schedules remove` ends that",
    "parent": "its children have not ended; --with-children deletes them as well",
    "children": f"more than {MOST_CHILDREN:,} jobs are below it",
    "child-locked": "a worker has one of its children",
    "deep": "it stands far from both ends of a long list: finding it would hold Redis up",
}


def retrying(state: str = "", *, reset_attempts: bool = False) -> Action:
    """Run finished jobs again.

    Args:
        state: where they must be: ``failed`` or ``completed``; empty for either.
        reset_attempts: forget attempts and stalls; else a job that used all its attempts gets one
            more run.
    """
    forget = "attempts" if reset_attempts else ""

    def act(client: Client, keys: QueueKeys, ids: Sequence[str], _: str) -> Mapping[str, str]:
        return retry_finished(client, keys, ids, source=state, forget=forget)

    words = {"inactive": f"it is not {state or 'finished'}"}
    return Action("retry", "retried", ("failed", "completed"), act, words)


def promoting() -> Action:
    """Run delayed jobs now."""

    def act(client: Client, keys: QueueKeys, ids: Sequence[str], _: str) -> Mapping[str, str]:
        return promote(client, keys, ids)

    return Action("promote", "promoted", ("delayed",), act, {"inactive": "it is not delayed"})


def removing(*, with_children: bool = False) -> Action:
    """Delete jobs.

    Args:
        with_children: also all jobs below them in their flows.
    """
    act = _remove_with_children if with_children else partial(_remove, as_one=False)
    return Action("remove", "removed", _REMOVABLE, act)


def purging() -> Action:
    """Delete the jobs of a state; one event tells of many."""
    return Action("purge", "removed", _REMOVABLE, partial(_remove, as_one=True))


_REMOVABLE = (
    *("waiting", "stalled", "delayed", "prioritized", "waiting-children"),
    *("completed", "failed"),
)


def _remove(
    client: Client, keys: QueueKeys, ids: Sequence[str], state: str, *, as_one: bool
) -> Mapping[str, str]:
    return remove_jobs(client, keys, ids, state=state, as_one=as_one)


def _remove_with_children(
    client: Client, keys: QueueKeys, ids: Sequence[str], state: str
) -> Mapping[str, str]:
    answers = {}
    for job_id in ids:
        below = descendants(client, keys, job_id, most=MOST_CHILDREN)
        if below is None:
            answers[job_id] = "children"
        elif any_locked(client, below):
            answers[job_id] = "child-locked"
        else:
            # The parent first: it must not go on when its last child is deleted.
            answers |= remove_jobs(client, keys, [job_id], state=state, parents=True)
            if answers[job_id] == "removed":
                _remove_all(client, below)
    return answers


def _remove_all(client: Client, jobs: Sequence[tuple[QueueKeys, str]]) -> None:
    for keys in dict.fromkeys(keys for keys, _ in jobs):
        ids = [job_id for of, job_id in jobs if of == keys]
        for start in range(0, len(ids), _CHUNK):
            remove_jobs(client, keys, ids[start : start + _CHUNK], parents=True)
