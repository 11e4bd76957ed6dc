"""PM2, systemd and health checks learn when a master is ready, and when it is not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from qctl.errors import FailedError
from qctl.runtime.processes import health
from qctl.runtime.processes.readiness import Notifier
from tests.labs import masters as labs
from tests.labs.masters import MasterLab
from tests.labs.servers import free_port, wait_until

master_lab = labs.master_lab


class Systemd:
    """The socket of a service manager, read all the time.

    The kernel queues only a few messages for one that does not read (net.unix.max_dgram_qlen), and
    the watchdog's alone would fill that queue.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self.heard: list[str] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while message := self._socket.recv(4096):
            self.heard += message.decode().split("\n")

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"", str(self.path))
        self._thread.join(10)
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    systemd = Systemd(tmp_path / "notify")
    yield systemd
    systemd.close()


def test_pm2_and_systemd_are_notified(master_lab: MasterLab, systemd: Systemd) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(60)
    (job_id,) = master_lab.add(1, s=0.5)
    master = master_lab.run(
        pass_fds=(theirs.fileno(),),
        ready=False,
        NODE_CHANNEL_FD=str(theirs.fileno()),
        NOTIFY_SOCKET=str(systemd.path),
        WATCHDOG_USEC="200000",
    )
    theirs.close()
    # In PM2's own form, and only once a worker takes jobs.
    assert ours.recv(100) == b'"ready"\n'
    assert master_lab.counts()[job_id] == 1
    wait_until(lambda: "READY=1" in systemd.heard, "READY")
    wait_until(lambda: systemd.heard.count("WATCHDOG=1") > 2, "WATCHDOG")
    # None of that is for the app's processes.
    (pid,) = master.pids
    names = psutil.Process(pid).environ().keys()
    assert not names & {"NODE_CHANNEL_FD", "NOTIFY_SOCKET", "WATCHDOG_USEC"}

    systemd.heard.clear()
    master.signal(signal.SIGHUP)
    master.wait_log("replaced")
    wait_until(lambda: "READY=1" in systemd.heard, "READY after the replacement")
    assert "RELOADING=1" in systemd.heard
    assert any(row.startswith("MONOTONIC_USEC=") for row in systemd.heard)

    # PM2's shutdown_with_message.
    ours.sendall(b'"shut')
    ours.sendall(b'down"\n')
    assert master.wait_end() == 0
    wait_until(lambda: "STOPPING=1" in systemd.heard, "STOPPING")
    ours.close()


def test_without_pm2_and_systemd_nothing_is_sent() -> None:
    environ = {"NODE_CHANNEL_FD": "none", "NOTIFY_SOCKET": "", "HOME": "/"}
    notifier = Notifier(environ)
    notifier.ready()
    notifier.notify_systemd("STOPPING=1")
    assert (environ, notifier.watchdog_every_s) == ({"HOME": "/"}, None)


def test_a_watchdog_for_another_process_is_not_ours() -> None:
    def every_s(pid: str) -> float | None:
        return Notifier({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": pid}).watchdog_every_s

    assert every_s(str(os.getpid())) == every_s("") == 1.5
    assert every_s("1") is None


def get(port: int, path: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_health_of_a_master(master_lab: MasterLab) -> None:
    port = free_port()
    master = master_lab.run("--health-port", str(port))
    assert get(port, "/livez") == (200, {"live": True})
    assert get(port, "/readyz?verbose=1") == (200, {"ready": True, "why": None})
    assert get(port, "/")[0] == 404
    (job_id,) = master_lab.add(1, s=60)
    master_lab.wait_started(job_id)
    master.signal()
    master.wait_log("stopping")
    # Still alive, so that nobody kills it, but nothing new is for it.
    assert get(port, "/livez")[0] == 200
    assert get(port, "/readyz") == (503, {"ready": False, "why": "stopping"})
    master.signal()
    assert master.wait_end() == 0


def test_a_port_that_is_taken_is_an_error(master_lab: MasterLab) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        master = master_lab.run("--health-port", f"127.0.0.1:{port}", ready=False)
        assert master.wait_end() == 1
    assert f"the health port 127.0.0.1:{port} cannot be used" in master.text
    assert "--health-port PORT" in master.text


def test_health_speaks_enough_http() -> None:
    async def ask(request: bytes, why: str = "") -> bytes:
        server = await health.serve("127.0.0.1", 0, lambda: why)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        server.close()
        return answer

    assert asyncio.run(ask(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 200")
    refused = asyncio.run(ask(b"GET /readyz HTTP/1.1\r\n\r\n", "no fetch"))
    assert refused.startswith(b"HTTP/1.1 503")
    assert refused.endswith(b'{"ready": false, "why": "no fetch"}\n')
    assert asyncio.run(ask(b"HEAD /livez HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")
    assert asyncio.run(ask(b"POST /livez HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 405")
    assert asyncio.run(ask(b"\r\n\r\n")).startswith(b"HTTP/1.1 405")


def test_health_says_which_port_is_taken() -> None:
    async def twice() -> None:
        server = await health.serve("127.0.0.1", 0, str)
        port = server.sockets[0].getsockname()[1]
        try:
            await health.serve("127.0.0.1", port, str)
        finally:
            server.close()

    with pytest.raises(FailedError, match="cannot be used"):
        asyncio.run(twice())
