"""The services that processes belong to, by their control groups."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from qctl.manage.systemd.names import SUFFIX

# Services that run other programs: qctl must not restart such a service as if it were an app. PM2,
# supervisord and container engines are process managers, and their programs have targets of their
# own. qctl may lack the rights to ask these managers, so their services are listed here by name.
# Programs started by cron, at or sshd stay in the control groups of these services.
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
    """The only service that can own this control group; None if no service can.

    The caller must check that systemd reports exactly this group for the service. A group further
    down belongs to something that the service manages, such as a container or a user's service.

    Args:
        user: whether to find a user's service. Its group is below the group of the user's systemd,
            and that systemd is itself a service of the system.
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
    # Each line is HIERARCHY:CONTROLLERS:PATH. systemd's own hierarchy has the controllers
    # "name=systemd" or, in version 2 of control groups, "".
    by_controllers = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        by_controllers[controllers] = path
    return by_controllers.get("name=systemd", by_controllers.get(""))
