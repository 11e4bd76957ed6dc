"""The plan of a drain as one block for a terminal."""

from __future__ import annotations

from qctl.ops.drain.steps import Planned, ProcessPlan
from qctl.ops.processes.suggest import quoted
from qctl.output.block import INDENT, LABEL_WIDTH, MAX_NAME, Block
from qctl.output.drain.facts import kill_text, order_of
from qctl.output.drain.running import MAX_JOBS, running_jobs
from qctl.output.text import duration, visible
from qctl.plurals import counted


def plan_block(plan: Planned, *, width: int, colour: bool, with_jobs: bool = False) -> list[str]:
    """What the drain will do, with the current numbers of jobs.

    Args:
        with_jobs: whether to list the running jobs. A checklist lists them, too, so False is enough
            if a checklist follows.
    """
    block = Block(width=width, colour=colour)
    room = block.width - len(INDENT) - LABEL_WIDTH
    lines = [*block.labelled("queues", block.names(plan.queues, room), "bold")]
    running = counted(len(plan.active), "job")
    if plan.active and plan.estimate_s is None:
        running += ", for an unknown time (too few recent runs)"
    elif plan.estimate_s is not None and plan.active:
        running += f", for about {duration(plan.estimate_s)} by recent runs"
    running += f"; {plan.backlog:,} waiting"
    if plan.orphans:
        running += f"; {counted(len(plan.orphans), 'stalled job')} (no lock)"
    lines += block.labelled("running", running)
    if with_jobs:
        lines += running_jobs(block, plan.active, " " * (len(INDENT) + LABEL_WIDTH))
    for label, order in order_of(plan):
        lines += block.labelled(label, order)
    for process in plan.processes[:MAX_JOBS]:
        starts = process.pid is None and process.status != "online"
        lines += block.labelled(
            "start" if starts else "restart", _process_text(block, process, plan)
        )
    if len(plan.processes) > MAX_JOBS:
        more = len(plan.processes) - MAX_JOBS
        lines += block.labelled("", f"and {counted(more, 'more process', 'more processes')}")
    if plan.command:
        lines += block.labelled("command", visible(" ".join(map(quoted, plan.command))))
    for warning in plan.warnings:
        lines += block.labelled("note", visible(warning), "bold")
    return lines


def _process_text(block: Block, process: ProcessPlan, plan: Planned) -> str:
    name = f"{visible(process.target, MAX_NAME)} id {process.key}"
    serves = block.names(process.queues, 30) or "unknown"
    if process.pid is None and process.status != "online":
        return f"{name}, which is {process.status}; serves {serves}"
    # A process on another host has no pid here.
    pid = f", pid {process.pid}" if process.pid is not None else ""
    stop = f"{process.stop_signal or 'unknown stop signal'}, {kill_text(process, plan.strategy)}"
    return f"{name}{pid}: {stop}; serves {serves}"
