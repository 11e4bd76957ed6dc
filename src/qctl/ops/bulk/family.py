"""Deletes a flow: a parent with all jobs below it, from the bottom up.

After an interruption at any point, the remaining jobs are still a flow. Every job can be reached
from its parent. No parent waits for a deleted child, or runs because its children were deleted.
Therefore the last child that a parent waits for is deleted in the same call as the parent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from qctl.ops.bulk.model import REASONS, BulkContext
from qctl.plurals import counted
from qctl.wire.keys import JobKey, QueueKeys
from qctl.wire.read.children import Child, children
from qctl.wire.write.transitions import remove_jobs

# One call of ``remove_jobs.lua`` can delete this many levels of jobs below a parent.
MAX_LEVELS = 100
_MAX_EXAMPLES = 3


@dataclass(slots=True)
class _LeftAlone:
    """Jobs below the parent that could not be deleted."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, keys: QueueKeys, job_id: str, answer: str) -> None:
        self.count += 1
        if len(self.examples) < _MAX_EXAMPLES:
            # "parent": the job has unfinished children. These are new, since we deleted all others.
            reasons = REASONS | {"parent": "children were added to it"}
            reason = reasons.get(answer, answer)
            self.examples.append(f"{job_id} of {keys.name} ({reason})")

    @property
    def reason(self) -> str:
        if not self.count:
            return ""
        more = f" and {self.count - _MAX_EXAMPLES:,} more" if self.count > _MAX_EXAMPLES else ""
        jobs = counted(self.count, "job")
        return f"{jobs} below it could not be deleted: {', '.join(self.examples)}{more}"


def remove_with_children(context: BulkContext, ids: Sequence[str]) -> Iterator[Mapping[str, str]]:
    """Delete jobs one after another, each with all jobs below it."""
    for job_id in ids:
        context.check_stop()
        yield {job_id: _remove_family(context, job_id)}


def _remove_family(context: BulkContext, job_id: str) -> str:
    """Delete a job with all jobs below it; return the script's word, or why the job stays."""

    def remove_parent(*, dry_run: bool) -> str:
        answers = remove_jobs(
            context.client,
            context.keys,
            [job_id],
            state=context.state,
            with_last=True,
            dry_run=dry_run,
            just_seen=context.just_seen,
            pace=context.pace,
        )
        return answers[job_id]

    # First check that the parent itself can be deleted; this dry run ignores its children.
    answer = remove_parent(dry_run=True)
    if answer != "removed":
        return answer
    top = context.keys, job_id
    if obstacle := _find_obstacle(context, top):
        return obstacle
    left_alone = _LeftAlone()
    with_parent_count = _remove_below(context, top, frozenset([top]), left_alone)
    if left_alone.count:
        return left_alone.reason
    answer = remove_parent(dry_run=context.dry_run)
    if answer == "removed":
        context.below_count += with_parent_count
    return "jobs were added below it in the meantime" if answer == "parent" else answer


def _find_obstacle(context: BulkContext, top: JobKey) -> str:
    """Why a job cannot be deleted with all jobs below it; empty if it can."""
    pending: list[tuple[JobKey, frozenset[JobKey]]] = [(top, frozenset([top]))]
    while pending:
        parent, path = pending.pop()
        for window in children(context.client, *parent):
            context.check_stop()
            for child in window:
                if child.has_this_parent and child.is_locked:
                    return "child-locked"
                if child.has_this_parent and child.job is None:
                    return f"a job below it has another prefix: {child.key}"
                if (job := _as_parent(child, path)) is not None:
                    if len(path) > MAX_LEVELS:
                        return f"jobs below it are nested more than {MAX_LEVELS} deep"
                    pending.append((job, path | {job}))
    return ""


def _remove_below(
    context: BulkContext, parent: JobKey, path: frozenset[JobKey], left_alone: _LeftAlone
) -> int:
    """Delete the jobs below ``parent``; ``path`` has the parent and the jobs above it.

    Returns:
        How many jobs are left. They must be deleted in the same call as the parent.
    """
    with_parent_count = 0
    for window in children(context.client, *parent):
        # Queue → id of a child that can be deleted now → how many jobs its deletion removes.
        ready: dict[QueueKeys, dict[str, int]] = {}
        for child in window:
            if child.job is None or child.job in path:
                # The child's key has another prefix, or the child is among its own ancestors.
                continue
            # The script answers "missing" for a child that is gone or has another parent by now.
            with_child_count = 0
            if (job := _as_parent(child, path)) is not None:
                before = left_alone.count
                with_child_count = _remove_below(context, job, path | {job}, left_alone)
                if left_alone.count > before:
                    # A job below the child could not be deleted, so the child must stay, too.
                    continue
            keys, job_id = child.job
            ready.setdefault(keys, {})[job_id] = 1 + with_child_count
        for keys, jobs in ready.items():
            for job_id, answer in _remove_children(context, keys, [*jobs], parent):
                if answer == "removed":
                    context.below_count += jobs[job_id]
                elif answer == "last":
                    with_parent_count += jobs[job_id]
                elif answer != "missing":
                    left_alone.add(keys, job_id, answer)
    return with_parent_count


def _as_parent(child: Child, path: frozenset[JobKey]) -> JobKey | None:
    """The child if it has children and is not among its own ancestors (``path``); else None."""
    if not (child.has_this_parent and child.has_children) or child.job in path:
        return None
    return child.job


def _remove_children(
    context: BulkContext, keys: QueueKeys, ids: Sequence[str], parent: JobKey
) -> Iterator[tuple[str, str]]:
    parent_keys, parent_id = parent
    left = ids
    while left:
        context.check_stop()
        chunk, left = left[: context.pace.size], left[context.pace.size :]
        answers = remove_jobs(
            context.client,
            keys,
            chunk,
            with_last=True,
            parent_key=parent_keys(parent_id),
            dry_run=context.dry_run,
            pace=context.pace,
        )
        yield from answers.items()
