"""Stand-ins and sample answers for the tests of this folder."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from qctl.manage.kubernetes.manager import Kubernetes

WORKLOAD = (
    "ns",
    "uid",
    "3",
    "3",
    "2",
    "",
    "RollingUpdate",
    "25%",
    "25%",
    "",
    "600",
    "",
    "",
    "a=b,",
)
POD = ("pod", "w-1", "uid", "rev", "", "Running", "True", "", "10.0.0.1 ", "30", "5 ", "[['node']]",
       "", "main|1|2026-01-01T00:00:00Z||137 OOMKilled 2026-01-01T00:00:00Z|;")  # fmt: skip


def kubernetes_with(*answers: str) -> Kubernetes:
    """Kubernetes, where kubectl prints these answers, one after another."""
    found, rest = Kubernetes(), iter(answers)
    found._kubectl.run = lambda *_: next(rest)  # type: ignore[method-assign]
    return found


class Scripted:
    """A client whose answers come from a function of the command."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self._answer = answer

    def call(self, *command: Any, timeout_s: float = 0.0) -> Any:  # noqa: ARG002
        return self._answer(*command)

    def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        return [self._answer(*command) for command in commands]

    def masters(self) -> Sequence[Scripted]:
        return [self]

    def close(self) -> None:
        pass


class Reader:
    """A stream with one line."""

    def __init__(self, line: bytes) -> None:
        self._line = line

    async def readline(self) -> bytes:
        return self._line


class Writer:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    async def drain(self) -> None:
        pass

    def close(self) -> None:
        pass


class Master:
    """A master with one process."""

    def __init__(self) -> None:
        self.slots = [SimpleNamespace(number=0, current=None, is_ready=True, restarts=0)]
        self.children: set[Any] = set()
        self.started_at_ms = 1
        self.is_stopping = False
        self.options = SimpleNamespace(grace_s=30.0)
        self.replaced: list[Any] = []

    def why_not_ready(self) -> str:
        return ""

    def stop(self) -> None:
        self.is_stopping = True

    async def replace(self, slots: list[Any], reason: str) -> list[Any]:  # noqa: ARG002
        self.replaced += slots
        return []


@contextlib.contextmanager
def answering(path: Path, data: bytes) -> Iterator[None]:
    """A unix socket that sends the same bytes to each client, and ends the connection."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.sendall(data)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65_536):
                        pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
