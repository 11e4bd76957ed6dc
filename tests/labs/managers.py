"""A fake process manager with real processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from qctl.manage.protocol import ManagedProcess
from qctl.wire.read.clients import client_name

# A process that connects as a worker of the queue q; with port 0 it only runs.
CHILD = """
import socket, sys, time
port, name = int(sys.argv[1]), sys.argv[2]
if port:
    redis = socket.create_connection(("127.0.0.1", port))
    redis.sendall(f"CLIENT SETNAME {name}\\r\\n".encode())
    redis.recv(64)
print("up", flush=True)
time.sleep(120)
"""


class FakeManager:
    """Manages one process.

    Args:
        port: of the Redis that the process connects to; 0 for none.
        behaviour: what it does when asked for a restart.
        log: its error log.
    """

    kind = "pm2"

    def __init__(self, port: int, behaviour: str, log: Path) -> None:
        self.port = port
        self.log = log
        self.log.write_text("Error: of long ago\n")
        self.behaviour = behaviour
        self.children: list[subprocess.Popen[bytes]] = []
        self.status = "online"
        self.refusal: str | None = None
        self.closed = False
        self.kill_timeout_ms: int | None = 0
        self.spawn(port)

    def spawn(self, port: int) -> None:
        command = [sys.executable, "-S", "-E", "-c", CHILD, str(port), client_name("bull", "q")]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        child.stdout.close()
        self.children.append(child)

    def row(self) -> ManagedProcess:
        return ManagedProcess(
            target="fake:app", key="7", name="app", namespace="", status=self.status,
            pid=self.children[-1].pid, started_at_ms=0, restarts=0, mode="fork",
            stop_signal="SIGINT", kill_timeout_ms=self.kill_timeout_ms, ready_timeout_ms=0,
            cpu_percent=None, rss_bytes=None, error_log=self.log,
        )  # fmt: skip

    def processes(self) -> Sequence[ManagedProcess]:
        if self.behaviour == "delete":
            return []
        if self.behaviour == "crash" and len(self.children) > 1:
            self.end(self.children[-1])
            self.spawn(0)
        return [self.row()]

    def process(self, key: str) -> ManagedProcess | None:
        return next((process for process in self.processes() if process.key == key), None)

    def find(self, name: str) -> Sequence[ManagedProcess]:  # noqa: ARG002 - as in Manager
        return self.processes()

    def targets(self) -> Sequence[str]:
        return ["fake:app"]

    def begin_restart(self, process: ManagedProcess) -> FakeManager:  # noqa: ARG002
        if self.behaviour == "refuse":
            self.refusal = "another restart is under way"
        elif self.behaviour != "stubborn":
            with self.log.open("a") as log:
                log.write("Error: a setting is missing\n    at app.js:1:1\n")
            self.end(self.children[-1])
            self.status = "errored" if self.behaviour == "errored" else "online"
            self.spawn(self.port if self.behaviour in {"good", "slow"} else 0)
        return self

    def error(self) -> str | None:
        return self.refusal

    def close(self) -> None:
        self.closed = True

    @staticmethod
    def end(child: subprocess.Popen[bytes]) -> None:
        child.kill()
        child.wait(10)

    def end_all(self) -> None:
        for child in self.children:
            self.end(child)
