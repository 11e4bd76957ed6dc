"""Processes of this host: whether one runs, its children, its TCP connections.

On Linux, /proc is read directly, for two reasons. Processes in the same network namespace share one
table of connections, so the table is read only once. And importing psutil takes as long as reading
all that `qctl status` shows.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

# Two readings of one start time differ by less than this. The start times of two processes with the
# same pid differ by more, because the kernel reuses a pid only after it has used all others.
_START_TOLERANCE_S = 2.0
_HAS_PROC = Path("/proc/self/stat").exists()
# Indices of fields in /proc/PID/stat after the name; the start is in ticks since boot.
_STATE, _PARENT, _START = 0, 1, 19
# Columns in /proc/PID/net/tcp, and the code there for an established connection.
_TCP_LOCAL, _TCP_STATE, _TCP_INODE = 1, 3, 9
_ESTABLISHED = "01"
_MAPPED = "::ffff:"  # the prefix that an IPv6 socket puts before an IPv4 address


def read_birth_s(pid: int) -> float | None:
    """The start time of a process, in seconds; None if it is gone, a zombie or unreadable.

    On Linux, the time counts from boot and does not change when the clock is set; elsewhere it is
    epoch time. Do not show it: it serves only to distinguish processes that had the same pid.
    """
    if _HAS_PROC:
        fields = _stat(pid)
        if not fields or fields[_STATE] == "Z":
            return None
        return int(fields[_START]) / os.sysconf("SC_CLK_TCK")
    import psutil  # noqa: PLC0415

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (psutil.Error, ValueError):
        return None


def _stat(pid: int | str) -> list[str]:
    """The fields of /proc/PID/stat after the name; empty if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            # The name may contain blanks and brackets.
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def is_running(pid: int, birth_s: float) -> bool:
    """Whether the process with this pid and start time still runs.

    Args:
        pid: may belong to another process by now.
        birth_s: from ``read_birth_s``.
    """
    found_s = read_birth_s(pid)
    return found_s is not None and abs(found_s - birth_s) <= _START_TOLERANCE_S


def process_tree(pid: int) -> list[int]:
    """``pid`` and the pids of all its descendants, parents first; only ``pid`` if it has ended."""
    return _descendants(pid, _children(), set())


def local_endpoints(pids: Iterable[int]) -> dict[str, int]:
    """Established TCP connections of processes: local address → the owner, one of ``pids``.

    Addresses have the form of ``addr`` in CLIENT LIST: ``10.0.0.1:5012`` or ``[::1]:5012``. The
    owner of a descendant's connection is the nearest ancestor in ``pids``. Processes that have
    ended or that this user may not inspect are left out. Redis sees other addresses than these if
    the process is behind a proxy or NAT. If a process has another network namespace (for example,
    in a container), its connections from a loopback address are left out.
    """
    roots = list(dict.fromkeys(pids))
    if not roots:
        return {}
    children = _children()
    tables: dict[str, dict[str, str]] = {}
    endpoints: dict[str, int] = {}
    for root in roots:
        other_roots = {pid for pid in roots if pid != root}
        for pid in _descendants(root, children, other_roots):
            found = _endpoints(pid, tables) if _HAS_PROC else _endpoints_without_proc(pid)
            for local in found:
                endpoints.setdefault(local, root)
    return endpoints


def _endpoints(pid: int, tables: dict[str, dict[str, str]]) -> list[str]:
    """Local addresses of a process's connections; adds its namespace's table to ``tables``."""
    namespace = _namespace(pid)
    if namespace not in tables:
        tables[namespace] = _namespace_table(pid)
    table = tables[namespace]
    return [table[inode] for inode in _sockets(pid) if inode in table]


def _endpoints_without_proc(pid: int) -> list[str]:
    import psutil  # noqa: PLC0415 - not needed on Linux

    with contextlib.suppress(psutil.Error, OSError, ValueError):
        return [
            _endpoint(connection.laddr.ip, connection.laddr.port)
            for connection in psutil.Process(pid).net_connections(kind="tcp")
            if connection.status == psutil.CONN_ESTABLISHED
        ]
    return []


def namespace_addresses(pid: int) -> Collection[str]:
    """The local addresses of all established connections in the network namespace of a process.

    Addresses are as in ``local_endpoints``, without loopback addresses. Any user may read them.
    """
    return set(_namespace_table(pid, loopback=False).values())


def _namespace(pid: int | str) -> str:
    """The network namespace of a process; "" if this user may not see it."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")  # noqa: PTH115 - a Path takes five times as long
    except OSError:
        return ""


def _namespace_table(pid: int, *, loopback: bool | None = None) -> dict[str, str]:
    """Inode → local address of the established sockets in the network namespace of a process.

    Args:
        loopback: whether to include loopback addresses; None to include them only in qctl's own
            namespace, because each namespace has its own loopback interface.
    """
    if loopback is None:
        loopback = _namespace(pid) == _namespace("self")
    found = {}
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[_TCP_STATE] == _ESTABLISHED:
                ip, port = _decoded(fields[_TCP_LOCAL])
                if loopback or not ip.is_loopback:
                    found[fields[_TCP_INODE]] = _endpoint(str(ip), port)
    return found


def _sockets(pid: int) -> list[str]:
    """The inodes of the sockets that a process has open; empty if this user may not see them."""
    inodes = []
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(folder):  # noqa: PTH208 - see ``_namespace``
            with contextlib.suppress(OSError):
                target = os.readlink(f"{folder}/{descriptor}")  # noqa: PTH115
                kind, _, rest = target.partition(":[")
                if kind == "socket":
                    inodes.append(rest.removesuffix("]"))
    return inodes


def _decoded(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    """Decode an address and a port from /proc/net/tcp.

    There, an address is hexadecimal: 32-bit words in this machine's byte order.
    """
    host, _, port = text.partition(":")
    words = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
    ip = ipaddress.ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return mapped or ip, int(port, 16)


def pids_by_endpoint() -> dict[str, int]:
    """Established TCP connections of this host: local address → pid of the owner.

    Addresses are as in ``local_endpoints``. Processes that this user may not inspect are left out;
    on macOS, only root may list connections, so the dict is empty for other users.
    """
    import psutil  # noqa: PLC0415

    found: dict[str, int] = {}
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_ESTABLISHED and connection.pid and connection.laddr:
                found[_endpoint(connection.laddr.ip, connection.laddr.port)] = connection.pid
    return found


def _endpoint(ip: str, port: int) -> str:
    # For an IPv6 socket connected to an IPv4 address, the server sees IPv4.
    if ip.startswith(_MAPPED) and "." in ip:
        ip = ip.removeprefix(_MAPPED)
    ip = ip.partition("%")[0]
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _children() -> dict[int, list[int]]:
    """Parent pid → pids of its children, for all processes of the host."""
    children: dict[int, list[int]] = {}
    if _HAS_PROC:
        for pid in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - see ``_namespace``
            if fields := _stat(pid):
                children.setdefault(int(fields[_PARENT]), []).append(int(pid))
        return children
    import psutil  # noqa: PLC0415 - not needed on Linux

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            children.setdefault(process.ppid(), []).append(process.pid)
    return children


def _descendants(root: int, children: dict[int, list[int]], excluded: set[int]) -> list[int]:
    """``root`` and its descendants, without the pids in ``excluded`` and their descendants."""
    tree = [root]
    seen = {root}
    # The list grows during the loop.
    for pid in tree:
        fresh = [child for child in children.get(pid, ()) if child not in seen | excluded]
        seen.update(fresh)
        tree.extend(fresh)
    return tree
