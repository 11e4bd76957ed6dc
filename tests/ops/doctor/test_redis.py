"""Doctor: Redis itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from qctl.connection.address import Client, parse_url
from qctl.connection.connect import connect
from qctl.ops.doctor import examination
from qctl.ops.doctor.run import examine
from qctl.wire.read.server import ServerFacts
from tests.labs.build import put
from tests.labs.doctor import SETTINGS, diagnose, found, of
from tests.labs.servers import RedisServer, limited_user, wait_until

REDIS = ("eviction", "persistence", "memory", "redis-version", "clock", "replica")


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has Redis say other things of itself than it does."""
    real = examination.read_servers

    def install(**facts: object) -> None:
        def read(client: Client) -> tuple[ServerFacts, ...]:
            return tuple(replace(each, **facts) for each in real(client))  # type: ignore[arg-type]

        monkeypatch.setattr(examination, "read_servers", read)

    return install


def test_a_redis_as_it_should_be(start_redis: Callable[..., RedisServer]) -> None:
    redis = start_redis("--appendonly", "yes", "--maxmemory", "100mb")
    with contextlib.closing(connect(redis.url)[1]) as client:
        put(client, "1", "completed")
        for check in REDIS:
            assert found(client, check) == [], check


def test_eviction(client: Client) -> None:
    put(client, "1", "completed")
    client.call("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    try:
        (finding,) = found(client, "eviction")
        assert finding.severity == "warning"
        client.call("CONFIG", "SET", "maxmemory", "1gb")
        (finding,) = found(client, "eviction")
    finally:
        client.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
        client.call("CONFIG", "SET", "maxmemory", "0")
    assert finding.severity == "error"
    assert "volatile-lru" in finding.what
    assert finding.commands == ("redis-cli config set maxmemory-policy noeviction",)


def test_without_persistence(client: Client) -> None:
    put(client, "1", "completed")
    (finding,) = found(client, "persistence")
    assert finding.severity == "warning"
    assert "a restart of Redis loses all jobs" in finding.what
    client.call("CONFIG", "SET", "save", "3600 1")
    try:
        (finding,) = found(client, "persistence")
    finally:
        client.call("CONFIG", "SET", "save", "")
    assert finding.severity == "info"
    assert finding.what.startswith("snapshots only")


def test_a_save_that_failed(start_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    # A folder stands where the snapshot is to go.
    (tmp_path / "dump.rdb").mkdir()
    redis = start_redis("--dir", str(tmp_path), "--appendonly", "yes")
    with contextlib.closing(connect(redis.url)[1]) as client:
        put(client, "1", "completed")
        client.call("BGSAVE")
        wait_until(
            lambda: "rdb_last_bgsave_status:err" in client.call("INFO", "persistence"),
            "the save to fail",
        )
        (finding,) = found(client, "persistence")
    assert finding.severity == "error"
    assert "could not write its snapshot" in finding.what


def test_snapshots_that_cannot_be_asked_for(client: Client, says: Callable[..., None]) -> None:
    put(client, "1", "completed")
    says(rdb_schedule=None)
    (finding,) = found(client, "persistence")
    assert finding.severity == "info"
    assert "unknown whether snapshots are made" in finding.what
    says(rdb_schedule=None, rdb_saved_at_ms=2**45)
    (finding,) = found(client, "persistence")
    assert finding.what.startswith("snapshots only")


def test_memory_near_its_limit_names_what_holds_it(
    client: Client, redis_url: str, says: Callable[..., None]
) -> None:
    for number in range(100):
        put(client, str(number), "completed", data="x" * 5000)
    put(client, "w")
    says(used_memory_bytes=90, maxmemory_bytes=100)
    (finding,) = found(client, "memory")
    assert finding.severity == "warning"
    assert "90% of its maxmemory" in finding.what
    first = finding.evidence["largest"][0]
    assert (first["queue"], first["holds"], first["count"]) == ("q", "100 completed jobs", 100)
    assert 500_000 < first["estimated_bytes"] < 1_000_000
    with limited_user(client, redis_url, "~*", "+@all", "-memory") as (url, lowly):
        (finding,) = of(diagnose(lowly, url), "memory")
    assert finding.evidence["largest"] is None
    assert "of these queues: unknown" in finding.what
    says(used_memory_bytes=99, maxmemory_bytes=100)
    assert found(client, "memory")[0].severity == "error"
    says(used_memory_bytes=79, maxmemory_bytes=100)
    assert found(client, "memory") == []


@pytest.mark.parametrize(
    ("version", "severity"),
    [("4.0.9", "error"), ("6.0.16", "warning"), ("6.2.0", None), ("10.0.1", None)],
)
def test_version(
    client: Client, says: Callable[..., None], version: str, severity: str | None
) -> None:
    put(client, "1", "completed")
    says(version=version)
    assert [f.severity for f in found(client, "redis-version")] == ([severity] if severity else [])


def test_the_version_of_another_product(client: Client, says: Callable[..., None]) -> None:
    put(client, "1", "completed")
    says(version="6.0.16")
    assert found(client, "redis-version")[0].what.startswith("Redis 6.0.16 is older than the 6.2")
    says(version="6.0.16", product="Dragonfly", product_version="0.9.1")
    (finding,) = found(client, "redis-version")
    assert finding.what.startswith(
        "Dragonfly 0.9.1 is compatible with Redis 6.0.16, which is older"
    )
    assert finding.evidence == {
        "version": "6.0.16", "server": "Dragonfly", "server_version": "0.9.1",
    }  # fmt: skip
    assert finding.remedy.startswith("update Dragonfly")


@pytest.mark.parametrize(
    ("ahead_ms", "error_ms", "side"),
    [(2500, 10, "behind"), (-2500, 10, "ahead of"), (900, 0, None), (2500, 2000, None)],
)
def test_clock(
    client: Client, says: Callable[..., None], ahead_ms: int, error_ms: int, side: str | None
) -> None:
    put(client, "1", "completed")
    says(clock_ahead_ms=ahead_ms, clock_error_ms=error_ms)
    findings = found(client, "clock")
    assert bool(findings) == (side is not None)
    if side:
        assert findings[0].what == f"this host's clock is 2.5 s {side} that of Redis"


def test_a_replica(start_redis: Callable[..., RedisServer]) -> None:
    master = start_redis("--repl-diskless-sync-delay", "0")
    with contextlib.closing(connect(master.url)[1]) as client:
        put(client, "1", "completed")
    other = start_redis("--replicaof", "127.0.0.1", str(master.port))
    with contextlib.closing(connect(other.url)[1]) as replica:
        wait_until(lambda: replica.call("EXISTS", "bull:q:meta"), "the replica to follow")
        (finding,) = found(replica, "replica")
    assert finding.severity == "error"


def test_a_cluster_needs_a_hash_tag(client: Client) -> None:
    put(client, "1", "completed")
    address = parse_url("redis+cluster://localhost:1")
    diagnosis = examine(client, address, SETTINGS)
    (finding,) = [f for f in diagnosis.findings if f.check == "cluster-prefix"]
    assert finding.severity == "error"
    assert "{bull}" in finding.remedy
    for key in client.call("KEYS", "*"):
        client.call("RENAME", key, key.replace("bull:", "{bull}:"))
    diagnosis = examine(client, address, SETTINGS.under("{bull}"))
    assert not [f for f in diagnosis.findings if f.check == "cluster-prefix"]
