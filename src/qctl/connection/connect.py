"""Makes the Redis client for a URL. The only file that knows every kind of client."""

from __future__ import annotations

from qctl.connection.address import EMBEDDED, Address, Client, parse_url


def connect(url: str, *, start: bool = True) -> tuple[Address, Client]:
    """The address and a client for ``url``. The client sends nothing before its first command.

    Args:
        start: whether to start an embedded server that is not running. On return the server has
            answered, and ``address.url`` is its socket, so other processes can connect to it.

    Raises:
        UsageError: the URL is malformed, or the folder in it cannot be used.
        UnreachableError: an embedded server cannot start, or does not run and ``start`` is False.
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
