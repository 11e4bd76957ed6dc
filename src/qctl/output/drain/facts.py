"""Facts of a drain in words, for plain lines and for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from qctl.ops.drain.steps import CommandDone, DrainReport, Planned, ProcessPlan
from qctl.output.text import duration
from qctl.plurals import counted


def order_of(plan: Planned) -> Iterator[tuple[str, str]]:
    """A label, and how many processes are replaced at a time.

    Without a roll, yields nothing if the processes are replaced one after another.
    """
    at_once = plan.max_unavailable or 1
    order = "one process after another" if at_once == 1 else f"{at_once} processes at a time"
    if plan.strategy == "roll":
        yield "roll", f"{order}, each when its jobs have ended; no queue is paused"
    elif at_once > 1:
        yield "order", order


def kill_text(process: ProcessPlan, strategy: str) -> str:
    """What follows if the process does not end after its stop signal."""
    if process.target.startswith("qctl:"):
        return "however long its jobs take"
    if strategy == "roll" or process.is_never_killed:
        return "no SIGKILL"
    if process.kill_timeout_ms is None:
        return "SIGKILL after an unknown time"
    return f"SIGKILL after {duration(process.kill_timeout_ms / 1000)}"


def replaced(done: CommandDone | DrainReport) -> str:
    """How many workers a command has replaced, counted by their connections to Redis."""
    if done.rule == "not checked":
        return "it was not checked whether new workers are up"
    old = sum(row.before for row in done.workers)
    new = sum(row.new for row in done.workers)
    return (
        f"{counted(old, 'old worker', 'old workers')} gone, {counted(new, 'new one', 'new ones')} "
        f"connected ({done.rule})"
    )
