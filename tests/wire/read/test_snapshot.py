"""Counts and condition of queues, read without writing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.errors import ReplyError
from qctl.wire.keys import QueueKeys
from qctl.wire.read.active import read_active
from qctl.wire.read.snapshot import Counts, QueueSnapshot, are_paused, read_snapshots
from qctl.wire.write.pausing import hold_lease, pause
from tests.labs.build import CLASS, Q, holder, put
from tests.labs.clients import Counting


def snapshot(client: Client, keys: QueueKeys = Q) -> QueueSnapshot:
    (found,) = read_snapshots(client, [keys])
    assert isinstance(found, QueueSnapshot), found
    return found


def test_one_job_in_every_place(store: Client) -> None:
    put(store, "w1", timestamp=1_700_000_000_300)
    put(store, "w2", timestamp=1_700_000_000_400)
    put(store, "p", "paused", timestamp=1_700_000_000_200)
    put(store, "a1", "active", lock="t:1")
    put(store, "a2", "active")
    put(store, "d", "delayed", score=1)
    put(store, "pr", "prioritized", score=CLASS, timestamp=1_700_000_000_250)
    put(store, "wc", "waiting-children", score=1)
    for n in range(3):
        put(store, f"c{n}", "completed", score=n)
    put(store, "f", "failed", score=1)
    store.call("ZADD", Q("repeat"), 1, "nightly", 2, "hourly")
    found = snapshot(store)
    assert found.counts == Counts(
        waiting=3,
        active=2,
        stalled=1,
        delayed=1,
        prioritized=1,
        waiting_children=1,
        completed=3,
        failed=1,
    )
    assert found.legacy_paused == 1
    assert found.backlog == 4
    assert sorted(found.active_ids) == ["a1", "a2"]
    assert found.stalled_ids == ("a2",)
    assert found.schedulers == 2
    assert found.oldest_waiting_ms == 1_700_000_000_200
    assert (found.format, found.client_version, found.paused) == ("bullmq", "6.7.0", False)
    assert (found.pause_note, found.lease, found.rate_limit) == (None, None, None)


def test_it_writes_nothing(store: Client) -> None:
    put(store, "a", "active")
    store.call("RPUSH", Q("wait"), "1", "0:0")
    before = sorted(store.call("KEYS", "*"))
    snapshot(store)
    assert sorted(store.call("KEYS", "*")) == before
    assert store.call("LRANGE", Q("wait"), 0, -1) == ["1", "0:0"]


def test_two_round_trips_for_any_number_of_queues(store: Client) -> None:
    queues = [QueueKeys("bull", f"q{n}") for n in range(40)]
    for keys in queues:
        put(store, "a", "active", keys=keys)
        put(store, "w", keys=keys)
    counting = Counting(store)
    found = read_snapshots(counting, queues)
    assert len(counting.trips) == 2
    assert [snapshot.keys for snapshot in found if isinstance(snapshot, QueueSnapshot)] == queues


@pytest.mark.parametrize("place", ["wait", "paused"])
def test_a_marker_of_old_versions_is_no_job(store: Client, place: str) -> None:
    put(store, "a", place)
    store.call("RPUSH", Q(place), "0:1700000000000")
    assert snapshot(store).counts.waiting == 1


def test_a_marker_alone_is_an_empty_queue(store: Client) -> None:
    put(store, "a", "completed", score=1)
    store.call("RPUSH", Q("wait"), "0:0")
    store.call("RPUSH", Q("active"), "0:0")
    found = snapshot(store)
    assert (found.counts.waiting, found.counts.active, found.counts.stalled) == (0, 0, 0)
    assert found.oldest_waiting_ms is None


def test_who_paused_and_who_drains(store: Client) -> None:
    put(store, "a")
    pause(store, Q, holder("me"))
    hold_lease(store, Q, holder("you", "drain"))
    found = snapshot(store)
    assert found.paused
    assert found.pause_note == holder("me")
    assert found.lease == holder("you", "drain")


def test_a_rate_limit_and_a_concurrency_limit(store: Client) -> None:
    put(store, "a")
    store.call("SET", Q("limiter"), "5", "PX", 20_000)
    store.call("HSET", Q("meta"), "concurrency", "7")
    found = snapshot(store)
    # The maximum of the workers' own limiter is not in Redis.
    assert found.rate_limit is not None
    assert (found.rate_limit.holds, found.rate_limited_ms) == (None, 0)
    assert (found.concurrency, found.is_maxed) == (7, False)
    store.call("HSET", Q("meta"), "max", "6", "concurrency", "0")
    found = snapshot(store)
    assert found.rate_limit is not None
    assert (found.rate_limit.holds, found.is_maxed) == (False, True)
    store.call("SET", Q("limiter"), "6", "KEEPTTL")
    assert 0 < snapshot(store).rate_limited_ms <= 20_000
    # Without a TTL BullMQ takes no notice of it.
    store.call("PERSIST", Q("limiter"))
    assert snapshot(store).rate_limit is None


@pytest.mark.parametrize("odd", ["x", None])
def test_a_counter_that_is_none_is_unknown(store: Client, odd: str | None) -> None:
    put(store, "a")
    if odd is None:
        store.call("LPUSH", Q("limiter"), "1")
    else:
        store.call("SET", Q("limiter"), odd)
    store.call("PEXPIRE", Q("limiter"), 20_000)
    found = snapshot(store)
    assert found.rate_limit is not None
    assert (found.rate_limit.used, found.rate_limit.holds) == (None, None)


def test_a_queue_that_does_not_exist_is_none(store: Client) -> None:
    put(store, "a")
    missing, found = read_snapshots(store, [QueueKeys("bull", "nope"), Q])
    assert missing is None
    assert isinstance(found, QueueSnapshot)


def test_an_empty_queue_exists(store: Client) -> None:
    store.call("HSET", Q("meta"), "opts.maxLenEvents", "10000", "version", "bullmq:5.81.5")
    found = snapshot(store)
    assert found.counts == Counts(0, 0, 0, 0, 0, 0, 0, 0)
    assert found.client_version == "5.81.5"


def test_a_queue_whose_meta_was_deleted_exists(store: Client) -> None:
    put(store, "a")
    store.call("DEL", Q("meta"))
    assert snapshot(store).counts.waiting == 1


@pytest.mark.parametrize("suffix", ["wait", "active", "delayed", "meta", "pause-note"])
def test_one_broken_queue_does_not_hide_the_others(store: Client, suffix: str) -> None:
    other = QueueKeys("bull", "other")
    put(store, "a", keys=other)
    put(store, "a", "completed", score=1)
    key = Q.pause_note if suffix == "pause-note" else Q(suffix)
    store.call("DEL", key)
    store.call("SADD", key, "x")
    broken, fine = read_snapshots(store, [Q, other])
    assert isinstance(fine, QueueSnapshot)
    if suffix == "pause-note":
        assert isinstance(broken, QueueSnapshot)
        assert broken.pause_note is None
    else:
        assert isinstance(broken, ReplyError)
        assert broken.code == "WRONGTYPE"


def test_a_queue_of_bull(store: Client) -> None:
    store.call("SET", Q("id"), 3)
    store.call("HSET", Q("1"), "name", "__default__", "attemptsMade", "1")
    store.call("LPUSH", Q("wait"), "1")
    assert snapshot(store).format == "bull"
    store.call("RENAME", Q("wait"), Q("paused"))
    store.call("SET", Q("meta-paused"), 1)
    store.call("HSET", Q("meta"), "paused", "1")
    found = snapshot(store)
    assert (found.format, found.paused, found.counts.waiting) == ("bull", True, 1)


def test_no_queues_no_trips(store: Client) -> None:
    assert read_snapshots(store, []) == []


class Finishing(Counting):
    """Between the first trip and the second, a worker finishes the job ``a``."""

    def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        replies = super().pipeline(commands)
        if len(self.trips) == 1:
            self.inner.call("LREM", Q("active"), 1, "a")
            self.inner.call("DEL", Q.lock("a"))
        return replies


def test_a_job_that_finishes_meanwhile_has_not_stalled(store: Client) -> None:
    put(store, "s", "active")
    put(store, "a", "active")
    store.call("SET", Q.lock("a"), "token")
    (found,) = read_snapshots(Finishing(store), [Q])
    assert isinstance(found, QueueSnapshot)
    assert found.stalled_ids == ("s",)
    assert (found.counts.active, found.counts.stalled) == (2, 1)


def test_nor_is_it_an_orphan(store: Client) -> None:
    put(store, "s", "active")
    put(store, "a", "active")
    store.call("SET", Q.lock("a"), "token")
    counting = Finishing(store)
    assert [(job.id, job.is_orphan) for job in read_active(counting, [Q])] == [("s", True)]
    assert len(counting.trips) == 2


def test_paused_or_not(store: Client) -> None:
    other = QueueKeys("bull", "other")
    pause(store, Q, holder("me"))
    assert are_paused(store, [Q, other]) == [True, False]


class Moving(Counting):
    """Others are served between two commands of a pipeline: ``move`` comes before the nth."""

    def __init__(self, client: Client, nth: int, move: Sequence[Sequence[Any]]) -> None:
        super().__init__(client)
        self._nth = nth
        self._move = move

    def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        self.trips.append("pipeline")
        if len(self.trips) > 1:
            return self.inner.pipeline(commands)
        before = self.inner.pipeline(commands[: self._nth]) if self._nth else []
        self.inner.pipeline(self._move)
        return before + self.inner.pipeline(commands[self._nth :])


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("waiting-children", "delayed"),
        ("waiting-children", "wait"),
        ("delayed", "prioritized"),
        ("delayed", "paused"),
        ("paused", "wait"),
        ("wait", "paused"),
        ("wait", "active"),
        ("prioritized", "active"),
        ("active", "delayed"),
        ("active", "wait"),
        ("active", "waiting-children"),
    ],
)
def test_a_job_that_moves_on_meanwhile_is_never_nowhere(
    store: Client, start: str, end: str
) -> None:
    leave = {"ZADD": ("ZREM", Q(start), "1"), "LPUSH": ("LREM", Q(start), 1, "1")}
    enter = {"ZADD": ("ZADD", Q(end), 1, "1"), "LPUSH": ("LPUSH", Q(end), "1")}
    lists = {"wait", "paused", "active"}
    move = [
        leave["LPUSH" if start in lists else "ZADD"],
        enter["LPUSH" if end in lists else "ZADD"],
    ]
    for nth in range(30):
        store.call("FLUSHALL")
        put(store, "1", start, score=1)
        (found,) = read_snapshots(Moving(store, nth, move), [Q])
        assert isinstance(found, QueueSnapshot)
        counts = found.counts
        places = counts.waiting + counts.prioritized + counts.delayed + counts.waiting_children
        assert places or found.active_ids, f"before command {nth}"
