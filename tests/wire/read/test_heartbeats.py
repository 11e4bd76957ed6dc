"""Heartbeats of qctl's own workers."""

from __future__ import annotations

from dataclasses import replace

from qctl.connection.address import Client
from qctl.wire.read import heartbeats
from qctl.wire.read.heartbeats import Heartbeat, owner_of, read, read_all

BEAT = Heartbeat(
    owner="3f0e:1",
    host="h",
    pid=42,
    target="qctl:emails",
    prefix="my prefix",
    queue="q",
    name="h-42-0",
    started_ms=1_700_000_000_000,
    concurrency=5,
    busy=2,
    quiet=True,
    completed=10,
    failed=1,
    rss_bytes=30_000_000,
)
NOW_MS = 1_700_000_100_000


def test_what_is_told_is_read_and_expires(store: Client) -> None:
    heartbeats.beat(store, BEAT, NOW_MS)
    assert read_all(store, "my prefix") == [BEAT]
    assert read_all(store, "bull") == []
    assert read(store, [owner_of("3f0e:1:77"), "other", ""]) == {BEAT.owner: BEAT}
    assert 0 < store.call("TTL", "qctl:worker:3f0e:1") <= heartbeats.TTL_S
    # The index names more than there are: the hash alone says who lives.
    store.call("DEL", "qctl:worker:3f0e:1")
    assert read_all(store, "my prefix") == []


def test_those_long_gone_leave_the_index(store: Client) -> None:
    heartbeats.beat(store, replace(BEAT, owner="old"), NOW_MS - 2 * 3_600_000)
    heartbeats.beat(store, BEAT, NOW_MS)
    assert store.call("ZRANGE", "qctl:workers:my prefix", 0, -1) == [BEAT.owner]


def test_who_leaves_is_forgotten(store: Client) -> None:
    heartbeats.beat(store, BEAT, NOW_MS)
    heartbeats.end(store, BEAT.prefix, BEAT.owner)
    assert store.call("EXISTS", "qctl:worker:3f0e:1", "qctl:workers:my prefix") == 0


def test_rubbish_is_no_worker(store: Client) -> None:
    heartbeats.beat(store, BEAT, NOW_MS)
    store.call("ZADD", "qctl:workers:my prefix", NOW_MS, "text", NOW_MS, "partial")
    store.call("SET", "qctl:worker:text", "x")
    store.call("HSET", "qctl:worker:partial", "host", "h", "pid", "no number")
    found = {beat.owner: beat for beat in read_all(store, "my prefix")}
    assert set(found) == {BEAT.owner, "partial"}
    partial = found["partial"]
    assert (partial.host, partial.pid, partial.busy, partial.quiet) == ("h", None, None, None)
    assert partial.jobs_done is None
    store.call("SET", "qctl:workers:bull", "x")
    assert owner_of(None) == owner_of("") == ""
