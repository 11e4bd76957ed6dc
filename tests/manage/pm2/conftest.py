"""PM2 for these tests: real daemons, and a stand-in socket for answers that no PM2 gives."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.labs.node import install_node_modules
from tests.labs.pm2 import Pm2 as RealPm2

# Written at once by an app that does nothing else.
IDLE_APP = "console.error('first word'); console.error('last word'); setInterval(() => {}, 1000);"


@pytest.fixture
def real_pm2() -> Iterator[RealPm2]:
    """A PM2 daemon of the test's own, with ``idle.js`` in its home."""
    yield from _real_pm2()


@pytest.fixture(scope="module")
def shared_pm2() -> Iterator[RealPm2]:
    """A PM2 daemon for all tests of a module, which only look at it."""
    yield from _real_pm2()


def _real_pm2() -> Iterator[RealPm2]:
    install_node_modules()
    manager = RealPm2()
    (manager.home / "idle.js").write_text(IDLE_APP)
    try:
        yield manager
    finally:
        manager.kill()


@pytest.fixture
def short_home() -> Iterator[Path]:
    """An empty PM2_HOME with a path short enough for a unix socket."""
    home = Path(tempfile.mkdtemp(prefix="qpm2-", dir="/tmp"))
    yield home
    shutil.rmtree(home, ignore_errors=True)


class FakeDaemon:
    """Listens on ``rpc.sock`` and does what it is told; no PM2, no protocol of its own.

    Args:
        home: the PM2_HOME to pretend in.
        serve: what to do with each connection, which it may leave open.
    """

    def __init__(self, home: Path, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(home / "rpc.sock"))
        self._listener.listen()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            self._open.append(connection)
            with contextlib.suppress(OSError):
                self._serve(connection)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        for connection in self._open:
            connection.close()


@pytest.fixture
def fake_daemon(short_home: Path) -> Iterator[Callable[[Callable[[socket.socket], None]], Path]]:
    """Starts a fake daemon: ``fake_daemon(serve)`` → the home that it pretends in."""
    daemons: list[FakeDaemon] = []

    def start(serve: Callable[[socket.socket], None]) -> Path:
        daemons.append(FakeDaemon(short_home, serve))
        return short_home

    yield start
    for daemon in daemons:
        daemon.close()
