"""Whether the processes of a target can be replaced one after another.

qctl's own processes always can, because their parent process starts a new one before it stops the
old one. PM2 stops the old process first, so another process must take the jobs meanwhile. A restart
by PM2 also kills a process that takes long to stop. So qctl does not request a restart. Instead, it
has PM2 send the stop signal alone, and PM2 then kills nothing. This works only if the signal
reaches the workers.
"""

from __future__ import annotations

from qctl.errors import RefusedError
from qctl.manage.kinds import words_of
from qctl.manage.protocol import ManagedProcess, Rollout, Signaller
from qctl.ops.processes.attribution import children_holding
from qctl.ops.processes.targets import Connections, Target


def require_rollable(target: Target, connections: Connections, at_once: int = 1) -> None:
    """Make sure that a target can be rolled without idle time and without interrupted jobs.

    Args:
        at_once: how many processes are to be replaced at the same time.

    Raises:
        RefusedError: the target cannot be rolled.
    """
    manager = target.manager
    if manager.kind == "qctl":
        return
    why = ""
    online = [process for process in target.processes if process.status == "online"]
    if isinstance(manager, Rollout):
        why = "all of its processes are replaced together"
    elif not isinstance(manager, Signaller):
        name = words_of(manager.kind).title
        why = f"{name} kills each process that does not exit soon after its stop signal"
    elif len(online) <= at_once:
        why = (
            f"fewer than {at_once + 1} processes are online, so none would take jobs while "
            f"{'one restarts' if at_once == 1 else f'{at_once} restart'}"
        )
    elif reasons := [reason for p in online if (reason := manager.why_not_rollable(p))]:
        why = reasons[0]
    elif any(_has_workers_in_child(connections, p) for p in online if not p.signals_children):
        why = "its workers run in a child of its process, and the signal would not reach them"
    if why:
        fewer = "" if at_once == 1 else "choose a smaller --max-unavailable, or "
        raise RefusedError(
            f"{target.label} cannot be rolled",
            why=why,
            hint=f"{fewer}use --strategy pause, which has no such limit",
        )


def _has_workers_in_child(connections: Connections, process: ManagedProcess) -> bool:
    """Whether descendants of this process hold connections of its workers."""
    workers = connections.owned.get(process.identity, ())
    return bool(workers and process.pid and children_holding(workers, process.pid))
