"""From a URL to a Redis client. The only file that knows every kind of client."""

from __future__ import annotations

from qctl.connection.address import EMBEDDED, Address, Client, parse_url


def connect(url: str, *, start: bool = True) -> tuple[Address, Client]:
    """A client for ``url``. It sends nothing before the first command.

    Args:
        start: whether to start an embedded server that does not run. It has answered when this
            returns; the address is that of its socket, so others can use ``address.url``.

    Raises:
        UsageError: the URL is malformed.
        UnreachableError: an embedded server does not run, and may not or does not start.
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
