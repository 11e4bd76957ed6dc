"""Commands that follow a queue, while their connections are cut or another Redis becomes master."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import UnreachableError
from tests.labs.build import Q, put
from tests.labs.drains import Running, cut_connections
from tests.labs.replicas import Pair
from tests.labs.servers import wait_until

COMMANDS = {
    "wait": ("wait", "q", "--for", "idle", "--timeout", "2m", "--output", "ndjson"),
    "wait-job": ("wait", "q", "--for", "job=1", "--timeout", "2m", "--output", "ndjson"),
    "events": ("events", "q", "--follow", "--output", "ndjson"),
    "status": ("status", "q", "--watch", "0.2", "--output", "ndjson"),
    "logs": ("jobs", "logs", "q", "1", "--follow", "--output", "ndjson"),
}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], dict[str, Running]]]:
    """Starts all of them on a Redis."""
    running: dict[str, Running] = {}

    def start(url: str) -> dict[str, Running]:
        env = {**os.environ, "QCTL_REDIS_URL": url, "XDG_CONFIG_HOME": str(tmp_path)}
        for name, words in COMMANDS.items():
            running[name] = Running.qctl(words, env, tmp_path)
        return running

    yield start
    for each in running.values():
        each.close()


def begin(client: Client) -> None:
    """A running job with a line in its log."""
    put(client, "1", "active", lock="w:1")
    client.call("PEXPIRE", Q.lock("1"), 300_000)
    client.call("RPUSH", Q.logs("1"), "first")


def await_all(client: Client, running: dict[str, Running]) -> None:
    """Wait until all of them follow the queue: at its start a command that fails is no follower."""
    for name in ("status", "wait", "wait-job", "logs"):
        wait_until(lambda name=name: running[name].said, f"{name} to be up", timeout_s=60)

    def is_followed() -> bool:
        client.call("XADD", Q("events"), "*", "event", "stirred")
        return "stirred" in running["events"].said

    wait_until(is_followed, "events to be up", timeout_s=60)


def finish(client: Client) -> None:
    client.call("RPUSH", Q.logs("1"), "last")
    client.call("LREM", Q("active"), 1, "1")
    client.call("ZADD", Q("completed"), 1, "1")
    client.call("HSET", Q("1"), "finishedOn", 1, "returnvalue", "7")
    client.call("XADD", Q("events"), "*", "event", "completed", "jobId", "1", "returnvalue", "7")


def prove(running: dict[str, Running]) -> None:
    """All of them saw the end."""
    for name in ("wait", "wait-job", "logs"):
        done = running[name].finish()
        assert done.code == 0, (name, done.err)
    wait_until(lambda: "completed" in running["events"].said, "the event to be told")
    assert not running["events"].is_over
    assert not running["status"].is_over

    def active() -> object:
        return json.loads(running["status"].said.splitlines()[-1])["queues"][0]["counts"]["active"]

    wait_until(lambda: active() == 0, "status to look again")
    assert "last" in running["logs"].said


def test_their_connections_are_cut(
    client: Client, redis_url: str, start: Callable[[str], dict[str, Running]]
) -> None:
    begin(client)
    running = start(redis_url)
    await_all(client, running)
    port = int(redis_url.rpartition(":")[2].partition("/")[0])
    for each in running.values():
        for _ in range(3):
            # Each time it is connected again.
            wait_until(lambda pid=each.pid: cut_connections(client, port, pid), "a connection")
    assert [name for name, each in running.items() if each.is_over] == []
    finish(client)
    prove(running)


def test_a_failover(pair: Pair, start: Callable[[str], dict[str, Running]]) -> None:
    with contextlib.closing(connect(pair.master.url)[1]) as client:
        begin(client)
        running = start(pair.url)
        await_all(client, running)
        client.call("WAIT", 1, 10_000)
    pair.fail_over()
    with contextlib.closing(connect(pair.replica.url)[1]) as client:

        def can_be_written() -> bool:
            with contextlib.suppress(UnreachableError):
                return bool(client.call("ROLE")[0] == "master")
            return False

        wait_until(can_be_written, "the new master", timeout_s=60)
        finish(client)
        prove(running)
