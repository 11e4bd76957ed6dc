"""The condition of real servers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import ReplyError
from qctl.wire.read.server import ServerFacts, read_servers
from tests.labs.servers import RedisServer, wait_until


def facts(url: str) -> ServerFacts:
    with contextlib.closing(connect(url)[1]) as client:
        return read_servers(client)[0]


def test_memory_persistence_and_clock(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis(
        *("--appendonly", "yes", "--appendfsync", "always", "--save", "900", "1"),
        *("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"),
    )
    found = facts(server.url)
    assert (found.maxmemory_bytes, found.eviction_policy) == (104_857_600, "allkeys-lru")
    assert (found.aof_enabled, found.aof_ok, found.aof_fsync) == (True, True, "always")
    assert (found.rdb_schedule, found.rdb_ok, found.rdb_changes) == ("900 1", True, 0)
    assert found.role == "master"
    assert found.used_memory_bytes
    # The same host has the same clock.
    assert abs(found.clock_ahead_ms) <= found.clock_error_ms


def test_writes_since_the_last_snapshot_and_replicas(
    start_redis: Callable[..., RedisServer],
) -> None:
    master = start_redis()
    replica = start_redis("--replicaof", "127.0.0.1", str(master.port))
    with contextlib.closing(connect(master.url)[1]) as client:
        client.call("SET", "a", "1")
        found = wait_until(
            lambda: next(
                (f for f in read_servers(client) if any(r.online for r in f.replicas)), None
            ),
            "the replica to be online",
        )
    assert found.rdb_changes
    assert found.replicas[0].address == f"127.0.0.1:{replica.port}"
    told = facts(replica.url)
    assert (told.role, told.master) == ("slave", f"127.0.0.1:{master.port}")


def test_replicas_that_writes_need(client: Client) -> None:
    (found,) = read_servers(client)
    assert (found.replicas_needed, found.replicas_good) == (0, None)
    client.call("CONFIG", "SET", "min-replicas-to-write", "1")
    try:
        (found,) = read_servers(client)
        with pytest.raises(ReplyError, match="too few replicas"):
            client.call("SET", "a", "1")
    finally:
        client.call("CONFIG", "SET", "min-replicas-to-write", "0")
    assert (found.replicas_needed, found.replicas_good) == (1, 0)
    assert (found.master, found.rdb_stops_writes) == (None, True)


def test_what_a_user_may_not_see_is_none(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis()
    with contextlib.closing(connect(server.url)[1]) as client:
        client.call("ACL", "SETUSER", "ops", "on", ">x", "~*", "+@all", "-info", "-config")
    found = facts(server.url_for("ops", "x"))
    assert (found.version, found.aof_enabled, found.aof_fsync, found.role) == (None,) * 4
    assert found.replicas == ()
