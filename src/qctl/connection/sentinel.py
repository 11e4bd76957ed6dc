"""Redis Sentinel: connects to the server that is the master now.

Before each connection, the client asks the sentinels. It connects again if the connection broke or
the server is no longer the master, but it does not send a command again.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import replace
from typing import Any

from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from qctl.connection.address import Address
from qctl.connection.socket_client import CONNECT_TIMEOUT_S, REPLY_TIMEOUT_S, SocketClient
from qctl.errors import ReplyError, UnreachableError


class SentinelClient(SocketClient):
    """A connection to the master that the sentinels report."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._sentinels = address

    def _connect(self) -> socket.socket:
        host, port = find_master(self._sentinels)
        self.address = replace(self._sentinels, mode="standalone", host=host, port=port, nodes=())
        sock = super()._connect()
        # A sentinel that is cut off from the others may report the old master, so ask the server
        # for its role. If this user may not call ROLE, only the first write reveals an old master.
        with contextlib.suppress(ReplyError):
            ((role, *_),) = self._ask(sock, [("ROLE",)])
            if role != "master":
                raise UnreachableError(
                    f"the sentinels report a replica as master of {self._sentinels.master_name}",
                    why=f"a failover is in progress: {host}:{port} is not the master now",
                    hint="try again in a moment",
                )
        return sock


def find_master(address: Address) -> tuple[str, int]:
    """Host and port of the master that the sentinels report.

    Uses redis-py, which may send a command twice. Here that is harmless: the commands only read.

    Raises:
        UnreachableError: no sentinel answers, or none knows the master.
    """
    options: dict[str, Any] = {
        "socket_timeout": REPLY_TIMEOUT_S,
        # A sentinel that does not answer must not delay the others for long.
        "socket_connect_timeout": CONNECT_TIMEOUT_S if len(address.nodes) == 1 else 1.0,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        # The user and password before the @ of the URL are for the master.
        "username": address.sentinel_username,
        "password": address.sentinel_password,
        **({"ssl": True, **address.tls_options} if address.tls else {}),
    }
    sentinels = Sentinel(list(address.nodes), sentinel_kwargs=options)
    try:
        host, port = sentinels.discover_master(address.master_name)
    except RedisError as error:
        raise UnreachableError(
            f"no sentinel reports the master of {address}",
            # Only the part before " : ": the rest shows all settings of the connections.
            why=f"{str(error).partition(' : ')[0]}: no sentinel answers, or none knows this master",
            hint="check the sentinels' addresses and the master's name in the URL",
        ) from None
    finally:
        for sentinel in sentinels.sentinels:
            sentinel.close()
    return str(host), int(port)
