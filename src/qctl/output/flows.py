"""A flow as a tree of lines: queue, id, state and name of each job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qctl.ops.jobs.flows import FlowTree
from qctl.ops.jobs.model import FlowNode, JobParent
from qctl.output.console import styled
from qctl.output.text import cells, shortened, visible
from qctl.plurals import counted
from qctl.wire.keys import QueueKeys

_STYLES = {"failed": "red", "stalled": "red", "active": "cyan", "completed": "green"}


def job_name(
    job: FlowNode | JobParent, prefix: str, max_cells: tuple[int, int] | None = None
) -> str:
    """``QUEUE ID``, or ``QUEUE@PREFIX ID`` under another prefix; the key if these are unknown.

    Args:
        max_cells: the width of the queue and of the id; without it, they may have any length.
    """
    most_queue, most_id = max_cells or (None, None)
    if job.queue is None or job.prefix is None or job.id is None:
        return visible(job.key, most_id)
    queue = QueueKeys(job.prefix, job.queue).label(prefix)
    return f"{visible(queue, most_queue)} {visible(job.id, most_id)}"


def state_text(state: str | None, *, missing: bool) -> str:
    """The state of a job in words."""
    if missing:
        return f"{state}, but gone now" if state else "gone"
    return state or "unknown"


def tree_text(tree: FlowTree, *, width: int, colour: bool) -> str:
    """The tree, one line for each job."""
    lines = _lines(tree, [tree.root], "", "", width=width, colour=colour)
    return "".join(f"{line}\n" for line in lines)


def tree_remarks(tree: FlowTree) -> Iterator[str]:
    """What the tree leaves out."""
    if tree.above is not None:
        yield (
            f"the parent of the first job is not shown: {tree.above} is gone, too far up "
            "or in a circle"
        )
    if tree.is_cut:
        jobs = counted(tree.nodes, "job")
        yield f"{jobs} shown, not the whole flow; --limit N and --depth N show more"


def _lines(
    tree: FlowTree,
    nodes: Sequence[FlowNode],
    before: str,
    more: str,
    *,
    width: int,
    colour: bool,
) -> Iterator[str]:
    """The lines of some siblings and all below them.

    Args:
        before: what stands before the siblings' branches.
        more: the last line, about siblings that are left out; "" for none.
    """
    is_root = nodes and nodes[0] is tree.root
    for index, node in enumerate(nodes):
        is_last = index == len(nodes) - 1 and not more
        branch, below = ("", "") if is_root else ("└─ ", "   ") if is_last else ("├─ ", "│  ")
        yield _line(tree, node, before + branch, width=width, colour=colour)
        left_out = f"… {counted(node.more, 'more child', 'more children')}" if node.more else ""
        yield from _lines(tree, node.children, before + below, left_out, width=width, colour=colour)
    if more:
        yield f"{before}└─ {more}"


def _line(tree: FlowTree, node: FlowNode, before: str, *, width: int, colour: bool) -> str:
    # The id of a job is needed in full more often than the name of its queue.
    name = job_name(node, tree.prefix, (width // 4, width // 2))
    state = state_text(node.state, missing=node.missing)
    is_wanted = (node.queue, node.prefix, node.id) == (tree.queue, tree.prefix, tree.id)
    rest = visible(node.name) if node.name else ""
    if node.failed_reason:
        rest += f": {visible(node.failed_reason)}"
    mark = "  ← this job" if is_wanted else ""
    room = width - cells(before) - cells(name) - len(state) - len(mark) - 4
    rest = shortened(rest, max(room, 0))
    style = "red" if node.missing and node.state is None else _STYLES.get(node.state or "", "")
    text = f"{before}{name}  {styled(state, style, colour=colour)}"
    text += f"  {rest}" if rest else ""
    return text + (styled(mark, "bold", colour=colour) if mark else "")
