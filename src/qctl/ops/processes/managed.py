"""The processes of all managers on this host, and which of them serve a queue."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from qctl.config.settings import Settings
from qctl.manage.protocol import ManagedProcess
from qctl.ops.processes.targets import Connections

# A command that only shows something does not wait longer for a PM2 that hangs.
PM2_TIMEOUT_S = 2.0


def managed_processes(
    settings: Settings, *, pm2_timeout_s: float = PM2_TIMEOUT_S
) -> tuple[Sequence[ManagedProcess], tuple[str, ...]]:
    """What PM2 and qctl run on this host, and remarks on why that is unknown.

    Never starts PM2.
    """
    processes, remarks = _pm2_processes(settings, pm2_timeout_s)
    if not (settings.state_home / "workers").exists():
        return processes, remarks
    from qctl.manage.qctl.manager import Qctl  # noqa: PLC0415 - only where there are some

    return [*processes, *Qctl(settings.state_home).processes()], remarks


def _pm2_processes(
    settings: Settings, timeout_s: float
) -> tuple[Sequence[ManagedProcess], tuple[str, ...]]:
    if not (settings.pm2_home / "rpc.sock").exists():
        return (), ()
    try:
        from qctl.manage.pm2.manager import Pm2  # noqa: PLC0415 - only where PM2 runs

        return Pm2(settings.pm2_home, timeout_s=timeout_s).processes(), ()
    except Exception as error:
        # The queues are in Redis: PM2's troubles must not hide them.
        why = getattr(error, "why", "")
        return (), (f"no processes shown: {error}" + (f" ({why})" if why else ""),)


def targets_serving(
    settings: Settings,
    connections: Connections | None,
    processes: Sequence[ManagedProcess],
    queues: Collection[str],
) -> set[str]:
    """Labels of the targets that serve one of these queues, or any queue when none is named.

    Args:
        connections: who is connected; None when that is unknown, and only the config counts.
    """
    wanted = set(queues)
    labels = {target.process for target in settings.targets if wanted & set(target.queues)}
    for process in processes:
        served = connections.queues_of([process]) if connections else set()
        if served & wanted or (served and not wanted):
            labels.add(process.target)
    return labels
