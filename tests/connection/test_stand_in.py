"""The stand-in for Redis that an app's own tests use: fakeredis on a unix socket."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.connection.stand_in import StandIn
from qctl.errors import ReplyError
from tests.labs.servers import wait_until


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[str]:
    """The URL of one."""
    server = StandIn(tmp_path / "redis.sock")
    yield f"unix://{tmp_path}/redis.sock"
    server.stop()


@pytest.fixture
def connected(stand_in: str) -> Iterator[Callable[[], Client]]:
    clients: list[Client] = []

    def open_one() -> Client:
        clients.append(connect(stand_in)[1])
        return clients[-1]

    yield open_one
    for client in clients:
        client.close()


def test_the_stand_in_answers_like_redis(connected: Callable[[], Client]) -> None:
    client, other = connected(), connected()
    with pytest.raises(ReplyError) as raised:
        client.call("EVALSHA", "0" * 40, 0)
    assert raised.value.code == "NOSCRIPT"
    # The connection has survived the error, and what follows is in order.
    binary = "\udcff\n\r\x00é"
    replies = client.pipeline(
        [
            ("HSET", "h", "f", binary),
            ("EVAL", "return {redis.call('HGETALL', KEYS[1]), 7, false}", 1, "h"),
            ("LPUSH", "h", "x"),
            ("EVAL", "return redis.error_reply('MINE said so')", 0),
            ("GET", "none"),
            ("ZADD", "z", "1.5", "m"),
            ("ZSCORE", "z", "m"),
        ]
    )
    assert replies[:2] == [1, [["f", binary], 7, None]]
    assert [reply.code for reply in replies[2:4]] == ["WRONGTYPE", "MINE"]
    assert replies[4:] == [None, 1, "1.5"]
    assert client.pipeline([("MULTI",), ("INCR", "n"), ("EXEC",)]) == ["OK", "QUEUED", [1]]
    assert other.call("GET", "n") == "1"
    assert other.call("SELECT", 1) == "OK"
    assert other.call("GET", "n") is None


def test_the_stand_in_wakes_the_blocked(stand_in: str, connected: Callable[[], Client]) -> None:
    script = (
        "import sys; from qctl.connection.connect import connect; _, c = connect(sys.argv[1]);"
        "print(c.call('BZPOPMIN', 'marker', 20, timeout_s=20))"
    )
    blocked = subprocess.Popen(
        [sys.executable, "-c", script, stand_in], stdout=subprocess.PIPE, text=True
    )
    client = connected()
    wait_until(lambda: str(client.call("CLIENT", "LIST")).count("\n") == 2, "it to connect")
    client.call("ZADD", "marker", "0", "0")
    assert blocked.communicate(timeout=30)[0].strip() == "['marker', '0', '0']"
