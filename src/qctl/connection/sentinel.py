"""Redis Sentinel: connects to the server that is the master now.

Each new connection first asks the sentinels. The client connects again if the connection broke or
its server is no longer the master. A command whose connection broke is not sent again.
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
    """The master that sentinels name, as one ``Client``."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._sentinels = address

    def _connect(self) -> socket.socket:
        host, port = find_master(self._sentinels)
        self.address = replace(self._sentinels, mode="standalone", host=host, port=port, nodes=())
        sock = super()._connect()
        # A sentinel cut off from the other sentinels may name the old master: ask that server.
        # If this user may not call ROLE, the first write to an old master fails.
        with contextlib.suppress(ReplyError):
            ((role, *_),) = self._ask(sock, [("ROLE",)])
            if role != "master":
                raise UnreachableError(
                    f"sentinels name a replica as the master of {self._sentinels.master_name}",
                    why=f"a failover is in progress: {host}:{port} is not the master now",
                    hint="try again in a moment",
                )
        return sock


def find_master(address: Address) -> tuple[str, int]:
    """Host and port of the master that sentinels name.

    Uses redis-py, which may send a command twice: harmless here, since all of them only read.

    Raises:
        UnreachableError: no sentinel answers, or none knows the master.
    """
    options: dict[str, Any] = {
        "socket_timeout": REPLY_TIMEOUT_S,
        # A sentinel that does not answer must not delay the others for long.
        "socket_connect_timeout": CONNECT_TIMEOUT_S if len(address.nodes) == 1 else 1.0,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        **({"ssl": True, **address.tls_options} if address.tls else {}),
    }
    # The password in the URL is for the master: sentinels are asked without one.
    sentinels = Sentinel(list(address.nodes), sentinel_kwargs=options)
    try:
        host, port = sentinels.discover_master(address.master_name)
    except RedisError as error:
        raise UnreachableError(
            f"no sentinel names the master of {address}",
            # Only the start: the rest of the text shows the connections with all their settings.
            why=f"{str(error).partition(' : ')[0]}: no sentinel answers, or none knows this master",
            hint="check the sentinels' addresses and the master's name in the URL",
        ) from None
    finally:
        for sentinel in sentinels.sentinels:
            sentinel.close()
    return str(host), int(port)
