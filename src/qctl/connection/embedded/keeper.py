"""The keeper of an embedded Redis: a process that starts the server, watches it and cleans up.

``python -m qctl.connection.embedded.keeper CONFIG``, where CONFIG is JSON: ``folder``, ``lock`` (an
inherited descriptor) and ``idle_s``. The keeper prints one line of JSON: the server (``url``,
``pid``, ``kind``, ``description``), or the failure (``what``, ``why``, ``hint``).

If ``idle_s`` is a number, the server is kept: the keeper goes into the background, writes the state
file, and ends the server after that many seconds without a client. If ``idle_s`` is null, the
server is private: the keeper ends the server when standard input closes, and removes the folder.
SIGTERM, SIGINT and SIGHUP always end the server and the keeper. If the keeper is killed on Linux,
the kernel kills the server. On other systems, the server then runs on and keeps the lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qctl.connection.address import parse_url
from qctl.connection.embedded.launch import LOG_FILE, Server, start_server
from qctl.connection.embedded.server import LOCK_FILE, START_TIMEOUT_S, STATE_FILE
from qctl.connection.info import parse_info, product
from qctl.connection.socket_client import SocketClient
from qctl.errors import QctlError, UnreachableError
from qctl.private import open_file

# The path of a unix socket may have 104 bytes on macOS, 108 on Linux.
_MAX_SOCKET_PATH_BYTES = 100
_CHECK_INTERVAL_S = 2.0


def socket_path(folder: Path) -> Path:
    """``redis.sock`` in ``folder``.

    The socket is in a new folder if that path is too long, or if a URL must write a character of
    the path as %XX.
    """
    path = folder / "redis.sock"
    # Most Redis clients do not decode %XX in a socket's URL.
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH_BYTES and quote(str(path)) == str(path):
        return path
    base = tempfile.gettempdir()
    # Leave half of the bytes for the names of the new folder and the socket.
    if len(os.fsencode(base)) > _MAX_SOCKET_PATH_BYTES / 2:
        base = "/tmp"  # noqa: S108 - mkdtemp makes a private folder
    return Path(tempfile.mkdtemp(prefix="qctl-", dir=base)) / "redis.sock"


class Keeper:
    """Runs one server from start to end; the module's docstring explains the arguments."""

    def __init__(self, folder: Path, lock: int, idle_s: float | None) -> None:
        self._folder = folder
        self._lock = lock
        self._idle_s = idle_s
        self._socket = socket_path(folder)
        self._client = SocketClient(parse_url(f"unix://{self._socket}"))
        self._record: dict[str, Any] = {}
        self._signal_fd = _wake_up_descriptor()

    def run(self) -> None:
        """Start the server, report it, watch it and clean up."""
        server: Server | None = None
        ending = signal.SIGTERM
        try:
            server = start_server(
                self._folder, self._socket, self._lock, appendonly=self._idle_s is not None
            )
            self._await_answer(server)
            info = self._info()
            _, version = product(info)
            self._record = {
                "url": self._client.address.url,
                "pid": server.pid,
                "kind": server.kind,
                "description": server.describe(version or ""),
            }
            if self._idle_s is not None:
                self._publish()
            report(self._record)
            ending = self._watch(server)
        finally:
            self._client.close()
            # SIGKILL means that another server may use this folder now: keep its state file.
            if ending == signal.SIGTERM:
                (self._folder / STATE_FILE).unlink(missing_ok=True)
            if server is not None:
                server.stop(ending)
            if self._socket.parent != self._folder:
                shutil.rmtree(self._socket.parent, ignore_errors=True)
            if self._idle_s is None:
                shutil.rmtree(self._folder, ignore_errors=True)

    def _await_answer(self, server: Server) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and not self._must_end(0.005):
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
            f"{server.kind} did not start in {self._folder}",
            why="\n".join(lines[-5:]),
            hint="" if self._idle_s is None else f"see {log}",
        )

    def _watch(self, server: Server) -> signal.Signals:
        """Wait until the server has ended or must end; returns the signal to end it with."""
        if self._idle_s is None:
            while not self._must_end(None) and server.alive():
                pass
            return signal.SIGTERM
        used_at, seen = time.monotonic(), self._connections()
        # A short ``idle_s`` needs shorter intervals, or the server would end much too late.
        while not self._must_end(min(_CHECK_INTERVAL_S, self._idle_s / 4)) and server.alive():
            if self._is_displaced():
                # Another server may use this path now. On SIGTERM our server would remove that
                # server's socket, so kill our server.
                return signal.SIGKILL
            connections = self._connections()
            if connections != seen or connections[0] > 1:
                used_at, seen = time.monotonic(), connections
            elif time.monotonic() - used_at >= self._idle_s:
                # Count the clients after the state file is removed. A client that found the file is
                # counted. A later client finds no file, and starts a new server.
                (self._folder / STATE_FILE).unlink(missing_ok=True)
                if self._connections() == seen:
                    break
                self._publish()
        return signal.SIGTERM

    def _is_displaced(self) -> bool:
        """Whether the folder was removed or moved."""
        try:
            lock_file = (self._folder / LOCK_FILE).stat()
        except OSError:
            return True
        return not os.path.samestat(os.fstat(self._lock), lock_file)

    def _connections(self) -> tuple[int, int]:
        """The number of open connections, and the number of all connections since the start.

        Both numbers include the keeper's connection. Both are 0 if unknown.
        """
        info = self._info()
        return int(info.get("connected_clients", 0)), int(info.get("total_connections_received", 0))

    def _info(self) -> dict[str, str]:
        try:
            text = str(self._client.call("INFO"))
        except QctlError:
            # The server is busy with a script, or has ended.
            return {}
        return parse_info(text)

    def _publish(self) -> None:
        draft = self._folder / f"{STATE_FILE}.new"
        descriptor = open_file(draft, os.O_TRUNC | os.O_WRONLY)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(self._record, file)
        draft.replace(self._folder / STATE_FILE)

    def _must_end(self, timeout_s: float | None) -> bool:
        """Wait; returns whether a signal (not SIGCHLD) or the end of standard input has come."""
        watched = [self._signal_fd] if self._idle_s is not None else [self._signal_fd, 0]
        ready, _, _ = select.select(watched, [], [], timeout_s)
        if self._signal_fd in ready and set(os.read(self._signal_fd, 64)) - {signal.SIGCHLD}:
            return True
        return 0 in ready and not os.read(0, 64)


def _wake_up_descriptor() -> int:
    """A descriptor from which the number of each signal can be read, as one byte."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return readable


def report(record: dict[str, Any]) -> None:
    """Print one line for the process that started the keeper, then close standard output."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(record).encode() + b"\n")
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 1)
    os.close(devnull)


def main() -> None:
    """Run a keeper with CONFIG, the program's argument, and report a failure."""
    config = json.loads(sys.argv[1])
    folder, lock, idle_s = Path(config["folder"]), config["lock"], config["idle_s"]
    if idle_s is not None and os.fork():
        # The child continues in the background.
        os._exit(0)
    os.umask(0o077)
    os.chdir("/")
    failure: dict[str, str] | None = None
    try:
        Keeper(folder, lock, idle_s).run()
    except QctlError as error:
        failure = {"what": error.what, "why": error.why, "hint": error.hint}
    except OSError as error:
        failure = {"what": "the embedded Redis did not start", "why": str(error)}
    if failure is not None:
        # Release the lock before the report, so that the starter can try again at once.
        os.close(lock)
        report(failure)


if __name__ == "__main__":
    main()
