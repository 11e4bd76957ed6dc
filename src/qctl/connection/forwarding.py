"""A client that sends everything through another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qctl.connection.address import Arg, Client


class ForwardingClient:
    """Passes commands on to ``inner``; a subclass changes what it needs to.

    Where ``inner`` is one server, its master is this client, so that everything passes through it.
    """

    def __init__(self, inner: Client) -> None:
        self.inner = inner

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:
        """As ``Client``."""
        return self.inner.call(*command, timeout_s=timeout_s)

    def pipeline(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        """As ``Client``."""
        return self.inner.pipeline(commands)

    def masters(self) -> Sequence[Client]:
        """As ``Client``."""
        nodes = self.inner.masters()
        return [self] if len(nodes) == 1 else nodes

    def close(self) -> None:
        """As ``Client``."""
        self.inner.close()
