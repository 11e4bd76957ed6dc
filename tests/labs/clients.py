"""Clients that record or count what is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qctl.connection.address import Arg, Client
from qctl.connection.forwarding import ForwardingClient


def leave(client: Client) -> None:
    """Closes a connection so that ``CLIENT LIST`` no longer has it when this returns.

    After a mere close, Redis may still list it to the next command.
    """
    client.call("QUIT")
    client.close()


class Spy(ForwardingClient):
    """A client that records what is sent, and can act before the n-th command."""

    def __init__(self, inner: Client) -> None:
        super().__init__(inner)
        self.sent: list[Sequence[Arg]] = []
        self.before: dict[int, Any] = {}

    def _note(self, command: Sequence[Arg]) -> None:
        if action := self.before.get(len(self.sent)):
            action()
        self.sent.append(command)

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:
        self._note(command)
        return super().call(*command, timeout_s=timeout_s)

    def pipeline(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        for command in commands:
            self._note(command)
        return super().pipeline(commands)

    def count(self, name: str) -> int:
        return sum(command[0] == name for command in self.sent)


class Counting(ForwardingClient):
    """A client that counts its round trips."""

    def __init__(self, inner: Client) -> None:
        super().__init__(inner)
        self.trips: list[str] = []

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:
        self.trips.append(str(command[0]))
        return super().call(*command, timeout_s=timeout_s)

    def pipeline(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        self.trips.append("pipeline")
        return super().pipeline(commands)
