"""A flow is deleted with all jobs below its parent, from the bottom up.

Whatever ends it at which moment, what is left is a flow: each job can be reached from its parent,
and no parent has gone on without its children, or waits for none. The last child that a parent
waits for goes in one call with the parent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from qctl.ops.bulk.context import WORDS, Means
from qctl.plurals import counted
from qctl.wire.keys import QueueKeys
from qctl.wire.read.children import Child, children
from qctl.wire.write.transitions import remove_jobs

# Of parents and children below each other; as many as one call of the script goes down.
LEVELS = 100
_NAMED = 3

Job = tuple[QueueKeys, str]


@dataclass(slots=True)
class _Stays:
    """Jobs that were left alone."""

    count: int = 0
    named: list[str] = field(default_factory=list)

    def note(self, keys: QueueKeys, job_id: str, answer: str) -> None:
        self.count += 1
        if len(self.named) < _NAMED:
            reason = "it has got children" if answer == "parent" else WORDS.get(answer, answer)
            self.named.append(f"{job_id} of {keys.name} ({reason})")

    @property
    def reason(self) -> str:
        if not self.count:
            return ""
        more = f" and {self.count - _NAMED:,} more" if self.count > _NAMED else ""
        jobs = counted(self.count, "job")
        return f"{jobs} below it could not be deleted: {', '.join(self.named)}{more}"


def look_below(means: Means, top: Job) -> str:
    """Why a job cannot be deleted with all below it; empty when it seems that it can."""
    pending: list[tuple[Job, frozenset[Job]]] = [(top, frozenset([top]))]
    while pending:
        parent, path = pending.pop()
        for window in children(means.client, *parent):
            means.check_stop()
            for child in window:
                if child.is_own and child.is_locked:
                    return "child-locked"
                if child.is_own and child.job is None:
                    return f"a job below it lies under another prefix: {child.key}"
                if (job := _next_parent(child, path)) is not None:
                    if len(path) > LEVELS:
                        return f"jobs below it are nested more than {LEVELS} deep"
                    pending.append((job, path | {job}))
    return ""


def remove_below(means: Means, top: Job) -> tuple[str, int]:
    """Delete all jobs below one, but for those that go in one call with it.

    Returns:
        Why it must stay, or an empty text; and how many jobs go with it. ``means.below`` counts
        those that are gone.
    """
    stays = _Stays()
    with_top = _clear(means, top, frozenset([top]), stays)
    return stays.reason, with_top


def _clear(means: Means, parent: Job, path: frozenset[Job], stays: _Stays) -> int:
    """How many jobs are left that go in one call with the parent."""
    with_parent = 0
    for window in children(means.client, *parent):
        ready: dict[QueueKeys, dict[str, int]] = {}
        for child in window:
            if child.job is None or child.job in path:
                continue
            with_child = 0
            if (job := _next_parent(child, path)) is not None:
                before = stays.count
                with_child = _clear(means, job, path | {job}, stays)
                if stays.count > before:
                    # What is below it must stay within reach.
                    continue
            keys, job_id = child.job
            ready.setdefault(keys, {})[job_id] = 1 + with_child
        for keys, jobs in ready.items():
            for answers in _remove(means, keys, [*jobs], parent):
                with_parent += _note(means, keys, answers, jobs, stays)
    return with_parent


def _note(
    means: Means,
    keys: QueueKeys,
    answers: Mapping[str, str],
    jobs: Mapping[str, int],
    stays: _Stays,
) -> int:
    """Count what is gone, and what stays; answers how many go with the parent."""
    with_parent = 0
    for job_id, answer in answers.items():
        if answer == "removed":
            means.below += jobs[job_id]
        elif answer == "last":
            with_parent += jobs[job_id]
        elif answer != "missing":
            stays.note(keys, job_id, answer)
    return with_parent


def _next_parent(child: Child, path: frozenset[Job]) -> Job | None:
    if not (child.is_own and child.has_children) or child.job in path:
        return None
    return child.job


def _remove(
    means: Means, keys: QueueKeys, ids: Sequence[str], parent: Job
) -> Iterator[Mapping[str, str]]:
    parent_keys, parent_id = parent
    left = ids
    while left:
        means.check_stop()
        chunk, left = left[: means.pace.size], left[means.pace.size :]
        yield remove_jobs(
            means.client,
            keys,
            chunk,
            with_last=True,
            parent_key=parent_keys(parent_id),
            dry_run=means.dry_run,
            pace=means.pace,
        )
