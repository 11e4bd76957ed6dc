"""Flows: a job's parent, its children, and the whole tree from the root. Writes nothing.

A tree may have any number of jobs, so the number of jobs and of levels that are read is limited.
The path from the root to the job in question is always part of the tree.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from qctl.connection.address import Client
from qctl.ops.jobs.missing import not_found
from qctl.ops.jobs.model import FlowNode, JobParent
from qctl.wire.keys import JobKey, QueueKeys
from qctl.wire.read.flows import (
    FlowJob,
    ListedChild,
    list_children,
    parent_of,
    read_flow_jobs,
)

DEFAULT_NODES = 200
DEFAULT_DEPTH = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowTree:
    """A flow.

    Args:
        queue, prefix, id: the job in question.
        nodes: how many jobs are in ``root`` and below it.
        is_cut: whether a job has children that are left out because of a limit.
        above: the key of the parent of ``root``; None if ``root`` has no parent. The tree does not
            include this parent, because the parent is gone, its queue and id are unknown, the
            parents form a loop, or there are too many levels.
    """

    queue: str
    prefix: str
    id: str
    root: FlowNode
    nodes: int
    is_cut: bool
    above: str | None


@dataclass(slots=True)
class _Node:
    key: str
    job: JobKey | None
    found: FlowJob | None
    ended: str | None = None
    children: list[_Node] = field(default_factory=list)

    def result(self) -> FlowNode:
        keys, job_id = self.job or (None, None)
        found = self.found
        return FlowNode(
            key=self.key,
            queue=keys.name if keys else None,
            prefix=keys.prefix if keys else None,
            id=job_id,
            name=found.name if found else None,
            state=found.state if found else self.ended,
            missing=found is None,
            failed_reason=found.failed_reason if found else None,
            children=tuple(child.result() for child in self.children),
            more=self.more,
        )

    @property
    def more(self) -> int:
        return max((self.found.children if self.found else 0) - len(self.children), 0)


def read_parent(
    client: Client, keys: QueueKeys, parent_key: str | None, parent: str | None
) -> JobParent | None:
    """The parent in the fields ``parentKey`` and ``parent`` of a job; None if it has none."""
    if not parent_key:
        return None
    job = parent_of(parent_key, parent, keys.prefix)
    if job is None:
        return JobParent(parent_key, None, None, None, None, missing=False)
    (found,) = read_flow_jobs(client, [job])
    state = found.state if found.exists else None
    return JobParent(
        parent_key, job[0].name, job[1], job[0].prefix, state, missing=not found.exists
    )


def read_children(client: Client, job: JobKey, limit: int) -> tuple[FlowNode, ...]:
    """At most ``limit`` children of a job; completed children come last."""
    return tuple(node.result() for node in _children(client, [job], limit, set(), {})[job])


def read_tree(
    client: Client,
    job: JobKey,
    *,
    max_nodes: int = DEFAULT_NODES,
    max_depth: int = DEFAULT_DEPTH,
) -> FlowTree:
    """The flow that an existing job belongs to, from the root.

    Args:
        max_nodes: how many jobs to read at most. The job in question and its ancestors are read
            even beyond this limit.
        max_depth: how many levels to read at most; if the job is further down, its nearest
            ancestors are read.

    Raises:
        NotFoundError: there is no such job.
    """
    if not read_flow_jobs(client, [job])[0].exists:
        raise not_found(*job, None)
    path, above = _path(client, job, max_depth)
    below = dict(itertools.pairwise(path))
    root_job = path[0]
    (found,) = read_flow_jobs(client, [root_job])
    root = _Node(root_job[0](root_job[1]), root_job, found)
    count, seen, level = 1, {root_job}, [root]
    for _ in range(max_depth - 1):
        parents = {node.job: node for node in level if node.job and node.more}
        # The ancestor of the job in question comes first, so that the limit cuts other branches.
        order = sorted(parents, key=lambda job: job not in below)
        listed = _children(client, order, max_nodes - count, seen, below)
        level = []
        for parent, children in listed.items():
            parents[parent].children = children
            count += len(children)
            level += children
        if not level:
            break
    return FlowTree(
        queue=job[0].name,
        prefix=job[0].prefix,
        id=job[1],
        root=root.result(),
        nodes=count,
        is_cut=_is_cut(root),
        above=above,
    )


def _path(client: Client, job: JobKey, max_depth: int) -> tuple[list[JobKey], str | None]:
    """The path from the root of the tree to the job, and the key of the root's parent.

    The key is None if the root has no parent.
    """
    path = [job]
    while True:
        (found,) = read_flow_jobs(client, [path[0]])
        if not found.exists:
            keys, job_id = path.pop(0)
            return path, keys(job_id)
        if not found.parent_key:
            return path, None
        parent = found.parent
        if parent is None or parent in path or len(path) >= max_depth:
            return path, found.parent_key
        path.insert(0, parent)


def _children(
    client: Client,
    parents: Sequence[JobKey],
    limit: int,
    seen: set[JobKey],
    required: Mapping[JobKey, JobKey],
) -> dict[JobKey, list[_Node]]:
    """The children of each parent, at most ``limit`` in all; jobs in ``seen`` are left out.

    Args:
        seen: the children are added to it.
        required: parent → the child that must be among its children, whatever the limit.
    """
    nodes: dict[JobKey, list[_Node]] = {}
    for parent in parents:
        left = limit - sum(map(len, nodes.values()))
        listed = list_children(client, parent, left) if left > 0 else []
        must = required.get(parent)
        if must is not None and all(child.job != must for child in listed):
            listed = [ListedChild(must[0](must[1]), must, None), *listed[:-1]]
        fresh = [child for child in listed if child.job is None or child.job not in seen]
        seen |= {child.job for child in fresh if child.job is not None}
        nodes[parent] = [_Node(child.key, child.job, None, child.ended) for child in fresh]
    pairs = [
        (node, node.job, parent[0](parent[1]))
        for parent, group in nodes.items()
        for node in group
        if node.job is not None
    ]
    read = read_flow_jobs(client, [job for _, job, _ in pairs])
    for (node, _, parent_key), found in zip(pairs, read, strict=True):
        # If the job names another parent, it is not the job that this parent has listed.
        if found.exists and found.parent_key == parent_key:
            node.found = found
    for group in nodes.values():
        group.sort(key=_order)
    return nodes


def _order(node: _Node) -> tuple[int, str, int, str]:
    """Sort key: children that have not ended, then failed, then completed ones.

    Children in the same state are sorted by queue, then by id. Numeric ids are sorted by value.
    """
    keys, job_id = node.job or (None, node.key)
    number = int(job_id) if job_id.isascii() and job_id.isdecimal() and len(job_id) < 20 else 0
    rank = (None, "failed", "completed").index(node.ended)
    return rank, keys.full_name if keys else "", number, job_id


def _is_cut(node: _Node) -> bool:
    return node.more > 0 or any(map(_is_cut, node.children))
