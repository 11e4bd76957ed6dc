"""Recognize processes that somebody stopped or deleted during a drain; qctl starts none of them."""

from __future__ import annotations

import time
from collections.abc import Callable

from qctl.errors import FailedError
from qctl.manage.kinds import words_of
from qctl.manage.protocol import ManagedProcess, Manager, Restarter
from qctl.ops.processes.suggest import kube_context, quoted

# The longest wait for somebody else's stop or restart to end.
MAX_STOP_S = 60.0
# How long a manager may take to report that a process has ended, on top of the kill timeout.
STOPPED_S = 2.0


class StoppedError(FailedError):
    """Somebody stopped or deleted a process, so qctl does not start it again."""


def current_process(
    manager: Restarter, planned: ManagedProcess, rest: Callable[[], object]
) -> ManagedProcess:
    """The process as it is now, with a new pid after a crash or somebody else's restart.

    Args:
        rest: waits a short time. It is called again and again while somebody else is stopping or
            restarting the process. If it raises an exception, the wait ends with that exception.

    Raises:
        StoppedError: somebody has stopped or is stopping it, or its manager no longer lists it.
    """
    process = manager.process(planned.key)
    until = time.monotonic() + min(planned.max_stop_s + STOPPED_S, MAX_STOP_S)
    while process is not None and process.status == "stopping" and time.monotonic() < until:
        rest()
        process = manager.process(planned.key)
    if process is None:
        raise deleted(manager, planned)
    if process.status in {"stopped", "stopping"}:
        raise stopped_by_somebody(process)
    return process


def deleted(manager: Manager, process: ManagedProcess) -> StoppedError:
    """The error for a process that its manager no longer lists."""
    if manager.kind == "qctl":
        return StoppedError(
            f"{label(process)} is gone",
            why="its master has ended: somebody stopped it during the drain",
            hint=f"ask them, or start it again: {remedy(process, 'start')}",
        )
    return StoppedError(
        f"{label(process)} is no longer under its manager",
        why="somebody deleted it, or ended its manager, during the drain",
        hint="ask them, or start it again as it was started before",
    )


def stopped_by_somebody(process: ManagedProcess) -> StoppedError:
    """The error for a process that somebody else stopped."""
    return StoppedError(
        f"{label(process)} was stopped by somebody during the drain",
        why="it was not started again, since they may want it stopped; its workers are gone",
        hint=f"ask them, or start it: {remedy(process, 'start')}",
    )


def label(process: ManagedProcess) -> str:
    """How messages name one process: ``pm2:app (id 3)``."""
    return f"{process.target} (id {process.key})"


def remedy(process: ManagedProcess, verb: str) -> str:
    """The manager's command that does ``verb``: ``show``, ``log``, ``restart`` or ``start``."""
    command: str = getattr(words_of(process.kind), verb)
    context = kube_context()
    return command.format(
        context=f" --context {quoted(context)}" if context else "",
        key=quoted(process.key),
        last=quoted(process.key.rpartition("/")[2]),
        name=quoted(process.name),
        namespace=quoted(process.namespace),
    )
