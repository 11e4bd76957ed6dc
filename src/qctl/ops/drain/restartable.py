"""Whether a drain can restart a target. ``impact`` asks the same before it recommends a restart."""

from __future__ import annotations

from qctl.errors import RefusedError
from qctl.manage.kinds import words_of
from qctl.manage.protocol import Rollout
from qctl.ops.drain.roll.rollable import require_rollable
from qctl.ops.processes.stopped import remedy
from qctl.ops.processes.targets import Connections, Target


def default_strategy(target: Target) -> str:
    """The strategy of a restart, ``roll`` or ``pause``, if the operator does not choose one."""
    return "roll" if target.manager.kind == "qctl" else "pause"


def require_restartable(
    target: Target, connections: Connections, strategy: str, at_once: int = 1
) -> tuple[str, ...]:
    """Make sure that a drain can restart all processes of a target and can observe the restart.

    Args:
        at_once: how many processes are replaced at the same time.

    Returns:
        the command that replaces all processes together; empty if they are restarted one by one.

    Raises:
        RefusedError: the target cannot be restarted, or its processes run on another host.
        UsageError: the config has no restart command for the target, or the command's program does
            not exist.
        UnreachableError: the manager does not answer.
    """
    manager = target.manager
    away = [each for each in target.processes if each.runs and each.pid is None]
    if away and not isinstance(manager, Rollout):
        raise RefusedError(
            f"the processes of {target.label} cannot be seen from this host",
            why=f"{words_of(manager.kind).title} runs {away[0].name} on another host or in a "
            "virtual machine",
            hint=f"let Redis show the restart: qctl drain QUEUE -- {remedy(away[0], 'restart')}",
        )
    if strategy == "roll":
        require_rollable(target, connections, at_once)
        return ()
    if stuck := next((each for each in target.processes if each.restart_trouble), None):
        raise RefusedError(
            f"{target.label} cannot be restarted",
            why=stuck.restart_trouble,
            hint=f"see {remedy(stuck, 'show')}",
        )
    return manager.restart_command(target.name) if isinstance(manager, Rollout) else ()
