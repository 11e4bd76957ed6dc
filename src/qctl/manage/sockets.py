"""What the operating system knows of a process: whether it lives, its children, its connections.

psutil is imported inside the functions: it costs 30 ms, and most commands never come here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

# A pid does not come round again within this time: the kernel hands out all others first.
_START_TOLERANCE_S = 2.0
# Of /proc/PID/stat behind the name: the state, and the start in clock ticks since the boot.
_STATE, _START = 0, 19
_MAPPED = "::ffff:"


def started_at(pid: int) -> float | None:
    """When the process was started; None if there is none, or it is a zombie.

    In seconds since the boot on Linux, where that is the only measure that does not move when
    somebody sets the clock; elsewhere in epoch seconds. Good for telling one process from another
    of the same pid, and for nothing else.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            # The name may hold anything, blanks and brackets too.
            fields = file.read().rpartition(")")[2].split()
        return None if fields[_STATE] == "Z" else int(fields[_START]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    return _created_at(pid)


def _created_at(pid: int) -> float | None:
    import psutil  # noqa: PLC0415

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.create_time()
    except (psutil.Error, ValueError):
        return None


def is_running(pid: int, started_at_s: float) -> bool:
    """Whether the process that had this pid and started then still runs.

    Args:
        pid: its process id; another process may have it by now.
        started_at_s: what ``started_at`` said.
    """
    start = started_at(pid)
    return start is not None and abs(start - started_at_s) <= _START_TOLERANCE_S


def process_tree(pid: int) -> list[int]:
    """The process and all its descendants, parents first; only itself when it has none or ended."""
    return _descendants(pid, _children(), set())


def local_endpoints(pids: Iterable[int]) -> dict[str, int]:
    """Whose connections are whose: local address → the one of ``pids`` that it belongs to.

    The local end is written as Redis writes ``addr`` in CLIENT LIST: ``10.0.0.1:5012`` or
    ``[::1]:5012``. A descendant's connections count for the nearest of ``pids`` above it. Only
    established TCP connections are listed. Processes that have ended, or that we may not look
    into, are left out; so nothing matches through a proxy, NAT or another network namespace.
    """
    import psutil  # noqa: PLC0415

    roots = list(dict.fromkeys(pids))
    if not roots:
        return {}
    children = _children()
    endpoints: dict[str, int] = {}
    for root in roots:
        others = {pid for pid in roots if pid != root}
        for pid in _descendants(root, children, others):
            with contextlib.suppress(psutil.Error, OSError, ValueError):
                for connection in psutil.Process(pid).net_connections(kind="tcp"):
                    if connection.status == psutil.CONN_ESTABLISHED:
                        local = _endpoint(connection.laddr.ip, connection.laddr.port)
                        endpoints.setdefault(local, root)
    return endpoints


def _endpoint(ip: str, port: int) -> str:
    # An IPv6 socket to an IPv4 address: the server sees IPv4.
    if ip.startswith(_MAPPED) and "." in ip:
        ip = ip.removeprefix(_MAPPED)
    ip = ip.partition("%")[0]
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _children() -> dict[int, list[int]]:
    """Pids by their parent, from one look over the host; reads no descriptors."""
    import psutil  # noqa: PLC0415

    children: dict[int, list[int]] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            children.setdefault(process.ppid(), []).append(process.pid)
    return children


def _descendants(root: int, children: dict[int, list[int]], others: set[int]) -> list[int]:
    """``root`` and all below it, without the trees of ``others``."""
    tree = [root]
    seen = {root}
    # The list grows while it is walked.
    for pid in tree:
        fresh = [child for child in children.get(pid, ()) if child not in seen | others]
        seen.update(fresh)
        tree.extend(fresh)
    return tree
