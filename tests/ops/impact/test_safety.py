"""What Redis would lose, and whether it takes writes at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.ops.impact.safety import DataSafety, data_safety
from qctl.wire.read.server import ReplicaFacts, ServerFacts, read_servers

NOW = 1_700_000_000_000
GOOD = ServerFacts(
    version="7.0.15", product="Redis", product_version="7.0.15",
    role="master", master=None, uptime_s=9, used_memory_bytes=100,
    maxmemory_bytes=0, eviction_policy="noeviction", aof_enabled=True, aof_ok=True,
    aof_fsync="everysec", rdb_saved_at_ms=NOW - 90_000, rdb_changes=7, rdb_ok=True,
    rdb_schedule="3600 1", rdb_stops_writes=True, replicas_needed=0, replicas_good=None,
    replicas=(), clock_ahead_ms=0, clock_error_ms=1,
)  # fmt: skip


def told(**fields: Any) -> DataSafety:
    return data_safety(replace(GOOD, **fields), NOW)


def test_a_good_one() -> None:
    answer = told()
    assert (answer.persistence, answer.loss_s, answer.hazards) == ("aof", 1.0, ())
    assert answer.is_writable is True
    assert answer.replica_of is None


@pytest.mark.parametrize(
    ("fsync", "loss_s"), [("always", 0.0), ("everysec", 1.0), ("no", 30.0), ("other", None)]
)
def test_how_much_each_way_of_writing_loses(fsync: str, loss_s: float | None) -> None:
    assert told(aof_fsync=fsync).loss_s == loss_s


def test_snapshots_lose_what_came_after_them() -> None:
    answer = told(aof_enabled=False, clock_ahead_ms=5000)
    assert (answer.persistence, answer.loss_s, answer.rdb_changes) == ("rdb", 95.0, 7)


def test_what_is_not_told_is_not_taken_for_safe() -> None:
    # Without CONFIG: snapshots may or may not be made.
    answer = told(aof_enabled=False, rdb_schedule=None)
    assert (answer.persistence, answer.loss_s) == (None, None)
    assert told(aof_fsync=None).loss_s is None
    assert told(aof_enabled=None, rdb_schedule=None, aof_ok=None, rdb_ok=None).persistence is None


@pytest.mark.parametrize(
    ("fields", "hazard", "is_writable"),
    [
        ({"role": "slave", "master": "h:1"}, "a replica of h:1: its data may be old", False),
        ({"aof_enabled": False, "rdb_schedule": ""}, "would lose every job", True),
        ({"aof_ok": False}, "append-only file failed", False),
        ({"rdb_ok": False}, "failed, after which Redis refuses writes", False),
        ({"rdb_ok": False, "rdb_stops_writes": False}, "last snapshot failed", True),
        ({"rdb_ok": False, "rdb_schedule": None}, "last snapshot failed", None),
        (
            {"replicas_needed": 2, "replicas_good": 1},
            "fewer than 2 good replicas, and has 1",
            False,
        ),
        ({"eviction_policy": "allkeys-lru"}, "if it gets a memory limit", True),
        ({"eviction_policy": "volatile-lru", "maxmemory_bytes": 900}, "at its memory limit", True),
        ({"maxmemory_bytes": 105}, "95 % of its memory limit", True),
        ({"maxmemory_bytes": 100}, "100 % of its memory limit, so it refuses writes", False),
        (
            {"maxmemory_bytes": 100, "eviction_policy": "volatile-lru"},
            "100 % of its memory limit, so it may refuse writes",
            None,
        ),
        (
            {"maxmemory_bytes": 100, "eviction_policy": "allkeys-lru"},
            "100 % of its memory limit",
            True,
        ),
        (
            {"replicas": (ReplicaFacts(address="h:1", online=False, lag_s=0, behind_bytes=0),)},
            "h:1 is not in sync",
            True,
        ),
        (
            {"replicas": (ReplicaFacts(address="h:1", online=True, lag_s=60, behind_bytes=0),)},
            "60 s ago",
            True,
        ),
    ],
)
def test_hazards(fields: dict[str, Any], hazard: str, is_writable: bool | None) -> None:
    answer = told(**fields)
    assert [text for text in answer.hazards if hazard in text]
    assert answer.is_writable is is_writable


@pytest.mark.parametrize(
    ("fields", "is_writable"),
    [
        # INFO is denied, or leaves it out.
        ({"role": None}, None),
        ({"maxmemory_bytes": None}, None),
        ({"aof_enabled": None}, None),
        ({"aof_enabled": True, "aof_ok": None}, None),
        ({"rdb_ok": None}, None),
        ({"rdb_ok": None, "rdb_schedule": ""}, True),
        ({"maxmemory_bytes": 100, "used_memory_bytes": None}, None),
        # So many are good; without CONFIG nobody knows how many it takes.
        ({"replicas_needed": None, "replicas_good": 1}, None),
        ({"replicas_needed": 1, "replicas_good": None}, None),
        ({"replicas_needed": None}, True),
        ({"replicas_needed": 1, "replicas_good": 1}, True),
        # One that refuses is worse than one that is not known.
        ({"role": None, "aof_ok": False}, False),
    ],
)
def test_whether_it_takes_writes(fields: dict[str, Any], is_writable: bool | None) -> None:
    assert told(**fields).is_writable is is_writable


def test_a_failed_snapshot_that_nobody_makes_any_more_is_no_hazard() -> None:
    assert told(rdb_ok=False, rdb_schedule="").hazards == ()


def test_a_real_server(client: Client) -> None:
    answer = data_safety(read_servers(client)[0], NOW)
    assert (answer.persistence, answer.is_writable) == ("none", True)
