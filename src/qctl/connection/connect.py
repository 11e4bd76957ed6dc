"""From a URL to a Redis client: the one file that knows every kind of client."""

from __future__ import annotations

from qctl.connection.address import EMBEDDED, Address, Client, parse_url


def connect(url: str, *, start: bool = True) -> tuple[Address, Client]:
    """A client for ``url``. Nothing is sent before the first command.

    Args:
        start: whether an embedded server may be started. It has answered when this returns, and
            the address names its socket, so that others can reach it by ``address.url``.

    Raises:
        UsageError: the URL cannot be understood.
        UnreachableError: an embedded server does not run and does not, or may not, start.
    """
    if url.startswith(EMBEDDED):
        from qctl.connection.embedded.server import open_embedded  # noqa: PLC0415 - rarely used

        return open_embedded(url, start=start)
    address = parse_url(url)
    if address.mode == "standalone":
        from qctl.connection.socket_client import SocketClient  # noqa: PLC0415 - only the client in use is loaded

        return address, SocketClient(address)
    if address.mode == "cluster":
        from qctl.connection.cluster import ClusterClient  # noqa: PLC0415

        return address, ClusterClient(address)
    from qctl.connection.sentinel import SentinelClient  # noqa: PLC0415 - redis-py costs 110 ms

    return address, SentinelClient(address)
