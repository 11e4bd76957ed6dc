"""Processes of this host and their connections, with real processes and a real Redis."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.manage.host import (
    is_running,
    local_endpoints,
    namespace_addresses,
    process_tree,
    read_birth_s,
)
from tests.labs.servers import RedisServer, wait_until

# Connects to Redis, names its connection, and stays.
CONNECT = """
import socket, sys, time
host, port, name = sys.argv[1:]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
connection = socket.socket(family)
connection.connect((host, int(port)))
connection.sendall(f"CLIENT SETNAME {name}\\r\\n".encode())
print("ready", flush=True)
time.sleep(600)
"""
Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts a process in a group of its own, and ends the group afterwards."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait(10)
        if process.stdout:
            process.stdout.close()


def connected(spawn: Spawn, host: str, port: int, name: str, *, wrapped: bool = False) -> int:
    """The pid of a process that holds a connection named ``name`` (or of the shell around it)."""
    command = [sys.executable, "-c", CONNECT, host, str(port), name]
    if wrapped:
        # The second command keeps the shell from replacing itself with the first.
        command = ["/bin/sh", "-c", '"$@"; true', "sh", *command]
    process = spawn(*command)
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    return process.pid


def address(client: Client, name: str) -> str:
    """The ``addr`` that Redis shows for a connection."""

    def find() -> str:
        for line in str(client.call("CLIENT", "LIST")).splitlines():
            fields = dict(field.partition("=")[::2] for field in line.split())
            if fields["name"] == name:
                return fields["addr"]
        return ""

    return wait_until(find, f"{name} in CLIENT LIST")


def test_connections_of_a_process_and_of_a_child(
    spawn: Spawn, client: Client, redis_server: RedisServer
) -> None:
    plain = connected(spawn, "127.0.0.1", redis_server.port, "plain")
    shell = connected(spawn, "127.0.0.1", redis_server.port, "wrapped", wrapped=True)
    assert len(process_tree(shell)) == 2
    found = local_endpoints([plain, shell])
    assert found == {address(client, "plain"): plain, address(client, "wrapped"): shell}
    # Our own connection to Redis belongs to neither of them.
    assert len(found) == 2


def test_a_child_that_is_asked_for_itself_keeps_its_connections(
    spawn: Spawn, client: Client, redis_server: RedisServer
) -> None:
    shell = connected(spawn, "127.0.0.1", redis_server.port, "inner", wrapped=True)
    child = process_tree(shell)[1]
    assert local_endpoints([shell, child]) == {address(client, "inner"): child}


def test_an_ipv4_address_on_an_ipv6_socket(
    spawn: Spawn, client: Client, redis_server: RedisServer
) -> None:
    pid = connected(spawn, "::ffff:127.0.0.1", redis_server.port, "mapped")
    assert address(client, "mapped").startswith("127.0.0.1:")
    assert local_endpoints([pid]) == {address(client, "mapped"): pid}


def test_an_ipv6_connection(spawn: Spawn, start_redis: Callable[..., RedisServer]) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this host has no IPv6")
    server = start_redis("--bind", "127.0.0.1", "::1")
    pid = connected(spawn, "::1", server.port, "six")
    with contextlib.closing(connect(server.url)[1]) as client:
        assert address(client, "six").startswith("[::1]:")
        assert local_endpoints([pid]) == {address(client, "six"): pid}


def test_no_processes_and_processes_that_are_gone(spawn: Spawn) -> None:
    process = spawn("true")
    process.wait(10)
    assert local_endpoints([]) == {}
    assert local_endpoints([process.pid, -5, 2**40]) == {}
    assert process_tree(process.pid) == [process.pid]


def test_listening_sockets_are_no_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert f"127.0.0.1:{port}" not in local_endpoints([os.getpid()])


def test_a_running_process(spawn: Spawn) -> None:
    process = spawn("sleep", "600")
    start = read_birth_s(process.pid)
    assert start is not None
    assert is_running(process.pid, start)
    process.kill()
    process.wait(10)
    assert read_birth_s(process.pid) is None
    assert not is_running(process.pid, start)


def test_a_pid_used_again_is_another_process(spawn: Spawn) -> None:
    process = spawn("sleep", "600")
    start = read_birth_s(process.pid)
    assert start is not None
    assert not is_running(process.pid, start - 60)
    # The clock was set a little meanwhile.
    assert is_running(process.pid, start + 1)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is only the clock's time")
def test_a_start_does_not_move_with_the_clock(spawn: Spawn) -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    start = read_birth_s(spawn("sleep", "600").pid)
    assert start is not None
    # Ticks of 10 ms, in seconds since the boot.
    assert before - 0.1 < start < time.clock_gettime(time.CLOCK_BOOTTIME) + 0.1


def test_a_zombie_is_gone(spawn: Spawn) -> None:
    process = spawn("sleep", "600")
    start = read_birth_s(process.pid)
    assert start is not None
    os.kill(process.pid, 9)
    # Nobody waits for it, so it stays in the table.
    wait_until(lambda: read_birth_s(process.pid) is None, "the process to end")
    assert "Z" in _state(process.pid)
    assert not is_running(process.pid, start)


def _state(pid: int) -> str:
    command = ["ps", "-o", "stat=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("pid", [-1, 2**40])
def test_a_pid_that_cannot_be(pid: int) -> None:
    assert read_birth_s(pid) is None
    assert not is_running(pid, 0)


def test_psutil_is_not_imported_before_it_is_needed(tmp_path: Path) -> None:
    code = "import sys, qctl.manage.host, qctl.manage.pm2; print('psutil' in sys.modules)"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


ISOLATED = """
import socket, subprocess, sys, time
subprocess.run("ip link set lo up; ip address add 10.99.0.1/32 dev lo", shell=True, check=True)
listeners = [socket.create_server((host, 0)) for host in ("10.99.0.1", "127.0.0.1")]
held = [socket.create_connection(listener.getsockname()) for listener in listeners]
print(*(connection.getsockname()[1] for connection in held), flush=True)
time.sleep(600)
"""


def test_connections_in_another_network_namespace(spawn: Spawn) -> None:
    """As in a container; a loopback address there is not this host's."""
    process = spawn("unshare", "--net", sys.executable, "-c", ISOLATED)
    assert process.stdout
    ports = process.stdout.readline().split()
    if not ports:
        pytest.skip("a network namespace needs root")
    address = f"10.99.0.1:{int(ports[0])}"
    owners = local_endpoints([process.pid])
    assert owners[address] == process.pid
    assert address in namespace_addresses(process.pid)
    assert not any(each.startswith("127.") for each in owners)
