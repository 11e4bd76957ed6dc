"""Redis Sentinel: a connection to the server that is the master at the time.

The sentinels are asked each time a connection is made, so that the next command after a failover
goes to the new master. As with every connection here, a command is never sent twice.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import replace

from qctl.connect import Address
from qctl.errors import QctlError, ReplyError, UnreachableError
from qctl.resp import CONNECT_TIMEOUT_S, SocketClient

# A sentinel that does not answer must not keep us from asking the others.
_SENTINEL_TIMEOUT_S = 1.0


class SentinelClient(SocketClient):
    """The master that sentinels name, as one ``Client``."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._sentinels = address

    def _connect(self) -> socket.socket:
        host, port = find_master(self._sentinels)
        self.address = replace(self._sentinels, mode="standalone", host=host, port=port, nodes=())
        sock = super()._connect()
        # A sentinel that was cut off from the others still names the old master. A user may lack
        # the right to ask; then a write finds out.
        with contextlib.suppress(ReplyError):
            (role, *_) = self._ask(sock, ("ROLE",))
            if role != "master":
                raise UnreachableError(
                    f"the server that sentinels name as {self._sentinels.master_name} is a replica",
                    why=f"{host}:{port} is not, or not yet, the master: a failover is under way",
                    hint="try again in a moment",
                )
        return sock


def find_master(address: Address) -> tuple[str, int]:
    """Host and port of the master that sentinels name.

    Raises:
        UnreachableError: no sentinel answers, or none knows it.
    """
    timeout_s = CONNECT_TIMEOUT_S if len(address.nodes) == 1 else _SENTINEL_TIMEOUT_S
    reasons: list[str] = []
    for host, port in address.nodes:
        # The sentinels themselves are asked without a password.
        node = replace(address, mode="standalone", host=host, port=port, nodes=())
        own = replace(node, db=0, username=None, password=None)
        client = SocketClient(own, connect_timeout_s=timeout_s)
        try:
            found = client.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.master_name)
        except QctlError as error:
            reasons.append(f"{host}:{port}: {error.why or error.what}")
            continue
        finally:
            client.close()
        if found:
            return str(found[0]), int(found[1])
        reasons.append(f"{host}:{port} knows no master {address.master_name!r}")
    raise UnreachableError(
        f"no sentinel names the master of {address}",
        why="\n".join(reasons),
        hint="check the sentinels' addresses and the master's name in the URL",
    )
