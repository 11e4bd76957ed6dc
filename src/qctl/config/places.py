"""Whether two URLs lead to one database, however its host is spelled.

Asked only where a guard depends on it: a name may have to be looked up, which takes time.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from qctl.connection.address import EMBEDDED, Address, Client, parse_url
from qctl.errors import QctlError, UsageError

# For all names of one command together. Only a resolver that does not answer takes that long.
TIMEOUT_S = 1.0
# What every address of this machine is taken for.
HERE = "this machine"

Lookup = Callable[[str], list[str]]


@dataclass(slots=True)
class Places:
    """Compares places, and remembers what names stand for.

    Args:
        lookup: all addresses of a name; raises OSError for one that has none.
        timeout_s: for all names together; 0 looks none up. One without an answer is compared as it
            is written.
    """

    lookup: Lookup | None = None
    timeout_s: float = TIMEOUT_S
    _known: dict[str, frozenset[str]] = field(default_factory=dict)
    _spent_s: float = 0.0

    def same(self, url: str, other: str) -> bool:
        """Whether both name the same database, whoever logs in.

        Addresses of this machine count as one: a server listens at all of them, as a rule. So do
        a cluster and any of its nodes. The socket and the port of one server cannot be told to be
        the same without asking it, see ``other_url``; nor can its sentinels and itself.
        """
        try:
            first, second = parse_url(url), parse_url(other)
        except UsageError:
            return url == other or _same_folder(url, other)
        if first.db != second.db or first.master_name != second.master_name:
            return False
        if first.unix_path or second.unix_path:
            return _same_path(first.unix_path, second.unix_path)
        ends, others = _ends(first), _ends(second)
        if not ends.isdisjoint(others):
            return True
        return any(
            port == other_port and not self._addresses(host).isdisjoint(self._addresses(other_host))
            for host, port in ends
            for other_host, other_port in others
        )

    def is_here(self, host: str) -> bool:
        """Whether a host is this machine."""
        return HERE in self._addresses(host)

    def _addresses(self, host: str) -> frozenset[str]:
        if host not in self._known:
            self._known[host] = self._look_up(host)
        return self._known[host]

    def _look_up(self, host: str) -> frozenset[str]:
        if host == "localhost":
            return frozenset([HERE])
        try:
            # 127.1, 0x7f.1, [::1]: no name is looked up for these.
            found = _addresses_of(host, socket.AI_NUMERICHOST)
        except (OSError, ValueError):
            found = self._by_name(host)
        return frozenset(_canonical(address) for address in found) or frozenset([host])

    def _by_name(self, host: str) -> list[str]:
        left_s = self.timeout_s - self._spent_s
        found: list[str] = []
        if left_s <= 0:
            return found
        import threading  # noqa: PLC0415 - only for names

        def look() -> None:
            try:
                found.extend((self.lookup or _addresses_of)(host))
            except (OSError, ValueError):
                # Such a host is not reached either.
                return

        began = time.monotonic()
        # Nothing else can end a lookup; a thread that still waits does not keep qctl from leaving.
        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        thread.join(left_s)
        self._spent_s += time.monotonic() - began
        return [] if thread.is_alive() else found


def other_url(address: Address, client: Client) -> str | None:
    """The port of a server that is reached by its socket, or its socket if by a port of this
    machine; None if it has none or does not tell.
    """
    if address.mode != "standalone":
        return None
    try:
        if address.unix_path:
            port = re.search(r"^tcp_port:([1-9]\d*)", client.call("INFO", "server"), re.MULTILINE)
            return f"redis://127.0.0.1:{port[1]}/{address.db}" if port else None
        if Places().is_here(address.host):
            _, path = client.call("CONFIG", "GET", "unixsocket")
            return f"unix://{quote(path)}?db={address.db}" if path.startswith("/") else None
    except (QctlError, ValueError):
        # A user who may not ask, or a server that is away: the command itself tells of that.
        return None
    return None


def _ends(address: Address) -> set[tuple[str, int]]:
    ends = address.nodes or ((address.host, address.port),)
    return {(_plain(host), port) for host, port in ends}


def _plain(host: str) -> str:
    return host.lower().rstrip(".").partition("%")[0]


def _addresses_of(host: str, flags: int = 0) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags)
    return [str(item[4][0]) for item in found]


def _canonical(text: str) -> str:
    import ipaddress  # noqa: PLC0415 - 3 ms that most commands need not pay

    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    # Connecting to 0.0.0.0 or :: connects to this machine.
    if address.is_loopback or address.is_unspecified or _is_own(str(address)):
        return HERE
    return str(address)


def _is_own(address: str) -> bool:
    """Whether an interface of this machine has the address; nothing is sent to find out."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _same_path(first: str | None, second: str | None) -> bool:
    return bool(first and second) and Path(first or "").resolve() == Path(second or "").resolve()


def _same_folder(url: str, other: str) -> bool:
    """Whether both are the embedded server of one folder."""
    paths = [text.removeprefix(EMBEDDED) for text in (url, other) if text.startswith(EMBEDDED)]
    return len(paths) == 2 and all(paths) and _same_path(*paths)
