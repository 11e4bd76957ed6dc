"""The services that processes belong to, by their control groups."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from qctl.manage.systemd.names import SUFFIX

# Services that run programs of others: a restart of them is no restart of an app. PM2, supervisord
# and the engines of containers are process managers with targets of their own; if qctl cannot ask
# one of them, perhaps because it belongs to another user, its whole service is still not the app.
# cron, at and sshd keep what they have started in their own group.
_OTHERS = {
    "atd",
    "containerd",
    "cron",
    "crond",
    "docker",
    "podman",
    "ssh",
    "sshd",
    "supervisor",
    "supervisord",
}
_OTHERS_PREFIX = "pm2-"


def groups_of(pids: Collection[int]) -> set[str]:
    """The control groups of processes, as paths below the root; skips processes that have ended."""
    return {group for pid in pids if (group := _group(pid)) is not None}


def service_of(group: str, *, user: bool) -> str | None:
    """The only service that can own this control group; None if none can.

    It owns the group only if systemd names this group as the service's own. In the groups below its
    own, a service manages processes itself: those of containers, or of a user's own services.

    Args:
        user: whether the service must be one of a user, whose group lies in that of a system
            service, the user's manager.
    """
    services = [part for part in group.split("/") if part.endswith(SUFFIX)]
    if len(services) <= user:
        return None
    unit = services[-1] if user else services[0]
    name = unit.removesuffix(SUFFIX)
    return None if name in _OTHERS or name.startswith(_OTHERS_PREFIX) else unit


def _group(pid: int) -> str | None:
    try:
        text = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # HIERARCHY:CONTROLLERS:PATH; systemd uses the hierarchy with its name, or the one of version 2.
    by_controllers = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        by_controllers[controllers] = path
    return by_controllers.get("name=systemd", by_controllers.get(""))
