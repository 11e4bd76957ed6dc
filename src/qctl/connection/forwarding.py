"""The base class of clients that wrap another client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qctl.connection.address import Arg, Client


class ForwardingClient:
    """Sends every command through ``inner``; a subclass overrides what it changes.

    If ``inner`` has several masters, ``masters()`` returns these, not wrapped. Otherwise it returns
    this client.
    """

    def __init__(self, inner: Client) -> None:
        self.inner = inner

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:
        return self.inner.call(*command, timeout_s=timeout_s)

    def pipeline(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        return self.inner.pipeline(commands)

    def masters(self) -> Sequence[Client]:
        nodes = self.inner.masters()
        return [self] if len(nodes) == 1 else nodes

    def close(self) -> None:
        self.inner.close()
