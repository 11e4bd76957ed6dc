"""Fixtures for all tests.

Redis: one shared real server, private ones on demand, and an in-process fake. BullMQ, PM2,
Docker and systemd come from ``labs/fixtures.py``.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import hypothesis
import pytest

from qctl.connection.address import Arg, Client
from qctl.connection.connect import connect
from qctl.connection.forwarding import ForwardingClient
from qctl.connection.stand_in import StandIn
from qctl.errors import ReplyError
from tests.labs.clients import leave
from tests.labs.clusters import cluster, nodes, replicated, replicated_nodes
from tests.labs.fixtures import (
    bullmq,
    engine,
    idle_bulls,
    kubernetes,
    lab,
    lab_engine,
    lab_machine,
    lab_pm2,
    machine,
    node_bull,
    node_modules,
    pm2,
    shared_lab,
)
from tests.labs.replicas import pair
from tests.labs.servers import RedisServer

# Some machines forbid bytecode on disk: each of four workers would then compile all tests, and each
# of the thousands of commands under test the package.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How long an example takes is up to the machine.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

# Nothing that the collection of tests makes is garbage before the end; see the hook below.
gc.disable()

__all__ = [
    "bullmq",
    "cluster",
    "engine",
    "idle_bulls",
    "kubernetes",
    "lab",
    "lab_engine",
    "lab_machine",
    "lab_pm2",
    "machine",
    "node_bull",
    "node_modules",
    "nodes",
    "pair",
    "pm2",
    "replicated",
    "replicated_nodes",
    "shared_lab",
]


# Folders whose tests mostly wait, for Node, process managers or time limits.
_WAITING = {"interop", "chaos"}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what UTF-8 cannot hold in captured lines: xdist cannot send it."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the modules that mostly wait over the whole run, between those that mostly compute.

    Several tests at a time then keep two processors busy from the start to the end. The order is
    the same in every worker of xdist, and the tests of a module stay together.
    """
    totals = Counter(item.path.parent.name in _WAITING for item in items)
    seen: Counter[bool] = Counter()
    places: dict[Path, float] = {}
    for item in items:
        is_waiting = item.path.parent.name in _WAITING
        places.setdefault(item.path, seen[is_waiting] / totals[is_waiting])
        seen[is_waiting] += 1
    items.sort(key=lambda item: places[item.path])


def pytest_collection_finish() -> None:
    """Let the garbage collector look at what is made from now on only."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def heard_signals() -> None:
    """Make the commands under test receive signals, however the test run was started.

    A run in the background of a script, or under nohup, passes ignored signals on to all below it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> Random:
    """Random numbers for one test; a failure shows the seed, and ``QCTL_SEED`` repeats it."""
    seed = int(os.environ.get("QCTL_SEED") or Random().randrange(2**32))
    request.node.add_report_section("setup", "seed", f"to repeat it: QCTL_SEED={seed}")
    return Random(seed)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One real server for the whole run. Use ``redis_url``, which empties it first."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """URL of the shared server, emptied of keys and scripts."""
    client = connect(redis_server.url)[1]
    client.call("FLUSHALL")
    client.call("SCRIPT", "FLUSH")
    leave(client)
    return redis_server.url


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    """A connection to the shared server."""
    with contextlib.closing(connect(redis_url)[1]) as client:
        yield client


@pytest.fixture
def start_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RedisServer]]:
    """Starts private servers: ``start_redis("--requirepass", "x")`` → ``RedisServer``."""
    servers: list[RedisServer] = []

    def start(*args: str, sentinel_of: dict[str, tuple[str, int]] | None = None) -> RedisServer:
        folder = tmp_path_factory.mktemp("redis")
        servers.append(RedisServer(folder, *args, sentinel_of=sentinel_of))
        return servers[-1].start()

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def fake_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a fakeredis in this process. Use ``fake``, which empties it first."""
    socket = tmp_path_factory.mktemp("fake") / "redis.sock"
    server = StandIn(socket)
    yield f"unix://{socket}"
    server.stop()


class FakeClient(ForwardingClient):
    """fakeredis, with answers to the few commands that it does not know."""

    info = (
        "# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\nprocess_id:1\r\n"
        "role:master\r\nconnected_slaves:0\r\nmaxmemory:0\r\naof_enabled:0\r\nrdb_last_bgsave_status:ok\r\n"
    )

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:
        match command:
            case ("INFO", *_):
                return self.info
            case ("CONFIG", "GET", *_):
                return []
        return super().call(*command, timeout_s=timeout_s)

    def pipeline(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        if any(command[0] in {"INFO", "CONFIG"} for command in commands):
            return [reply for command in commands for reply in self._reply(command)]
        return super().pipeline(commands)

    def _reply(self, command: Sequence[Arg]) -> list[Any]:
        try:
            return [self.call(*command)]
        except ReplyError as error:
            return [error]


@pytest.fixture
def fake(fake_server: str) -> Iterator[Client]:
    """A Redis inside this process, for tests that need no server; runs the Lua scripts too."""
    with contextlib.closing(FakeClient(connect(fake_server)[1])) as client:
        client.call("FLUSHALL")
        client.call("SCRIPT", "FLUSH")
        yield client


@pytest.fixture(params=["fakeredis", "redis"])
def store(request: pytest.FixtureRequest) -> Client:
    """Each test twice, against the fake and the real server: for scripts and for what writes."""
    client: Client = request.getfixturevalue("fake" if request.param == "fakeredis" else "client")
    return client
