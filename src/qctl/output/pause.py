"""The results of ``qctl pause`` and ``qctl resume`` as text."""

from __future__ import annotations

from qctl.ops.queues.pause import PauseResult
from qctl.output.text import visible
from qctl.plurals import counted


def pause_line(result: PauseResult) -> str:
    """What was done to one queue."""
    name = visible(result.name)
    if result.paused:
        if not result.changed:
            return f"{name} was paused already"
        running = f"; {counted(result.active, 'job')} still running" if result.active else ""
        return f"{name} paused{running}"
    moved = f"; {counted(result.moved, 'job')} moved back from the paused list"
    done = "resumed" if result.changed else "was not paused"
    return f"{name} {done}" + (moved if result.moved else "")


def planned_line(result: PauseResult) -> str:
    """What would be done to one queue."""
    name = visible(result.name)
    if result.paused:
        if not result.changed:
            return f"{name} is paused already, and stays so"
        running = f"; {counted(result.active, 'active job')} will continue" if result.active else ""
        return f"{name} will be paused{running}"
    moved = f"; {counted(result.moved, 'job')} will be moved back from the paused list"
    planned = "will be resumed" if result.changed else "is not paused"
    return f"{name} {planned}" + (moved if result.moved else "")
