"""Readings of the live view."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qctl.config.prefixes import parse_prefixes
from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.connection.connect import connect
from qctl.connection.socket_client import SocketClient
from qctl.errors import NotFoundError, UnreachableError
from qctl.ops.live import events as live_events
from qctl.ops.live import view as live
from qctl.ops.live.view import LiveReader, View
from qctl.ops.queues.status import RedisInfo
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import LIST_CLIENTS, client_name
from tests.labs.build import Q, put
from tests.labs.servers import RedisServer


def reader(client: Client, *names: str) -> LiveReader:
    named = [QueueKeys("bull", name) for name in names]
    return LiveReader(client, Address(), Settings(), named)


def happens(client: Client, name: str, job_id: str = "1", keys: QueueKeys = Q, **more: str) -> None:
    fields = [word for item in more.items() for word in item]
    client.call("XADD", keys("events"), "*", "event", name, "jobId", job_id, *fields)


def test_no_queue_at_all(client: Client) -> None:
    reading = reader(client).read(View())
    assert (reading.names, reading.queues, reading.chosen) == ((), (), None)
    assert reading.workers is None


def test_a_named_queue_must_exist(client: Client) -> None:
    put(client, "1")
    with pytest.raises(NotFoundError):
        reader(client, "other").check()
    reader(client, "q").check()


def test_only_what_is_in_sight_is_read(client: Client) -> None:
    for number in range(100):
        put(client, "1", keys=QueueKeys("bull", f"q{number:03}"))
    live_reader = reader(client)
    reading = live_reader.read(View())
    assert len(reading.names) == 100
    assert reading.queues == ()
    reading = live_reader.read(View(("q001", "q002"), "q001", 5))
    assert [queue.name for queue in reading.queues] == ["q001", "q002"]
    # Of the others one question each: whether something has failed.
    assert reading.commands < 98 + 100


def test_active_jobs_stalled_ones_first(client: Client) -> None:
    put(client, "1", "active", lock="t", progress="45", processedOn=1)
    put(client, "2", "active")
    reading = reader(client).read(View(("q",), "q", 5))
    assert reading.jobs is not None
    assert [(job.id, job.state, job.progress) for job in reading.jobs] == [
        ("2", "stalled", None),
        ("1", "active", 45),
    ]
    assert reading.jobs_total == 2


def test_workers_are_looked_for_once_in_a_reading(
    client: Client, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, "1", "active", lock="t", pb="w")
    client.call("CLIENT", "SETNAME", client_name("bull", "q", "w"))
    own = connect(redis_url)[1]
    said = []

    def call(*command: Any, timeout_s: float = 0.0) -> Any:
        said.append(command)
        return SocketClient.call(own, *command, timeout_s=timeout_s)  # type: ignore[arg-type]

    monkeypatch.setattr(own, "call", call)
    with contextlib.closing(own):
        reading = reader(own).read(View(("q",), "q", 5))
    assert said.count(LIST_CLIENTS) == 1
    assert [(w.name, w.jobs) for w in reading.workers or ()] == [("w", ("1",))]
    assert reading.queues[0].status is not None
    assert reading.queues[0].status.workers == 1
    client.call("CLIENT", "SETNAME", "")


def test_very_many_active_jobs_cost_two_commands_each(
    client: Client, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(200):
        put(client, str(number), "active", lock="t", pb="w")
    address, own = connect(redis_url)
    with contextlib.closing(own):
        own.call("CLIENT", "SETNAME", client_name("bull", "q", "w"))
        live_reader = LiveReader(own, address, Settings(pm2_home=Path("/nonexistent")))
        view = View(("q",), "q", 5)
        reading = live_reader.read(view)
        assert reading.workers is not None
        assert [len(worker.jobs or ()) for worker in reading.workers] == [200]
        monkeypatch.setattr(live, "MAX_JOBS_OF_WORKERS", 199)
        reading = live_reader.read(view)
        assert reading.workers is not None
        assert [worker.jobs for worker in reading.workers] == [None]
        assert 400 <= reading.commands <= 400 + 150
        assert reading.pause_s == reading.commands / live.MAX_COMMANDS_PER_S


def test_jobs_that_have_ended_since_are_not_counted(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        put(client, str(number), "active", lock="t")
    reading = reader(client).read(View(("q",), "q", 5))
    assert (reading.jobs_total, len(reading.jobs or ())) == (30, 20)
    own = live.list_jobs

    def later(client: Client, *words: Any, **how: Any) -> Any:
        client.call("LTRIM", Q("active"), 0, 2)
        return own(client, *words, **how)

    monkeypatch.setattr(live, "list_jobs", later)
    reading = reader(client).read(View(("q",), "q", 5))
    assert (reading.jobs_total, len(reading.jobs or ())) == (3, 3)


def test_rates_and_failures_are_counted_from_events(client: Client) -> None:
    put(client, "1")
    happens(client, "completed")
    happens(client, "failed", failedReason="long ago")
    live_reader = reader(client)
    view = View(("q",), "q", 5)
    (queue,) = live_reader.read(view).queues
    assert (queue.rates, queue.trend) == (None, (None,))
    began = time.monotonic()
    for _ in range(10):
        # The job itself is gone: removeOnComplete.
        happens(client, "completed")
    happens(client, "failed", "7", failedReason="bang")
    happens(client, "waiting")
    reading = live_reader.read(view)
    elapsed_s = time.monotonic() - began
    (queue,) = reading.queues
    assert queue.rates is not None
    assert queue.rates.completed_per_s >= 10 / (elapsed_s + 1)
    assert queue.rates.completed_per_s == pytest.approx(queue.rates.failed_per_s * 10)
    assert not queue.rates.sampled
    assert queue.trend == (None, queue.rates.completed_per_s)
    assert [(f.queue, f.id, f.reason) for f in reading.failures] == [("q", "7", "bang")]
    (queue,) = live_reader.read(view).queues
    assert queue.rates == live_events.Rates(0.0, 0.0)


def test_more_events_than_are_read_is_a_sample_and_leaves_no_backlog(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_events, "MAX_EVENTS", 4)
    put(client, "1")
    live_reader = reader(client)
    view = View(("q",), "q", 5)
    live_reader.read(view)
    for milliseconds in (1000, 2000, 3000, 4000, 5000, 6000):
        at = int(time.time() * 1000) + milliseconds
        client.call("XADD", Q("events"), f"{at}-0", "event", "completed", "jobId", "1")
    (queue,) = live_reader.read(view).queues
    assert queue.rates is not None
    assert queue.rates.sampled
    # Four events in three seconds, by their own times.
    assert queue.rates.completed_per_s == pytest.approx(4 / 3, rel=0.1)
    (queue,) = live_reader.read(view).queues
    assert queue.rates == live_events.Rates(0.0, 0.0)


def test_events_that_were_cut_off_before_they_were_read(client: Client) -> None:
    put(client, "1")
    happens(client, "added")
    live_reader = reader(client)
    view = View(("q",), "q", 5)
    live_reader.read(view)

    def rates() -> live_events.Rates:
        (queue,) = live_reader.read(view).queues
        assert queue.rates is not None
        return queue.rates

    for _ in range(5):
        happens(client, "completed")
    assert not rates().at_least
    for _ in range(5):
        happens(client, "completed")
    # An app with a very small streams.events.maxLen.
    client.call("XTRIM", Q("events"), "MAXLEN", 2)
    told = rates()
    assert told.at_least
    assert not told.sampled
    assert told.completed_per_s > 0
    assert rates() == live_events.Rates(0.0, 0.0)
    # All of them, which is said once.
    client.call("DEL", Q("events"))
    assert rates().at_least
    assert rates() == live_events.Rates(0.0, 0.0)
    happens(client, "completed")
    assert not rates().at_least


def test_failures_of_queues_out_of_sight(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_events, "MAX_OTHER_QUEUES", 2)
    keys = [QueueKeys("bull", f"q{number}") for number in range(5)]
    for each in keys:
        put(client, "1", keys=each)
        put(client, "old", "failed", keys=each, score=1_700_000_000_000, failedReason="long ago")
    client.call("DEL", keys[4]("failed"))
    client.call("SET", keys[4]("failed"), "no set")
    live_reader = reader(client)
    view = View(("q0",), "q0", 5)
    assert live_reader.read(view).failures == ()
    for number, each in enumerate(keys[:4]):
        now_ms = int(time.time() * 1000) + number
        put(client, "new", "failed", keys=each, score=now_ms, failedReason=f"bang {number}")
    # q0 is in sight: its failures come by events. Of the others two have their turn at a time.
    for _ in range(2):
        reading = live_reader.read(view)
    assert [(f.queue, f.id, f.reason) for f in reading.failures] == [
        ("q3", "new", "bang 3"),
        ("q2", "new", "bang 2"),
        ("q1", "new", "bang 1"),
    ]
    for _ in range(6):
        assert len(live_reader.read(view).failures) == 3
    # Nothing that was seen in sight is told again out of sight.
    live_reader.read(View(("q1",), "q1", 5))
    put(client, "seen", "failed", keys=keys[1], score=int(time.time() * 1000) - 5)
    live_reader.read(View(("q1",), "q1", 5))
    for _ in range(6):
        assert len(live_reader.read(view).failures) == 3


def test_a_queue_that_is_gone_or_broken_hides_no_other(client: Client) -> None:
    put(client, "1")
    client.call("HSET", "bull:odd:meta", "version", "bullmq:6.7.0")
    client.call("SET", "bull:odd:wait", "no list")
    reading = reader(client).read(View(("gone", "odd", "q"), "gone", 5))
    told = {queue.name: queue for queue in reading.queues}
    assert told["gone"].trouble == "is gone"
    assert told["odd"].status is None
    assert told["odd"].trouble
    assert told["q"].status is not None
    assert reading.jobs is None


def test_a_stream_that_is_none_costs_only_the_rates(client: Client) -> None:
    put(client, "1")
    live_reader = reader(client)
    view = View(("q",), "q", 5)
    live_reader.read(view)
    client.call("SET", Q("events"), "no stream")
    reading = live_reader.read(view)
    assert reading.queues[0].rates is None
    assert any("rates" in remark for remark in reading.remarks)


def test_names_are_scanned_for_seldom(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    put(client, "1")
    live_reader = reader(client)
    live_reader.read(View())
    put(client, "1", keys=QueueKeys("bull", "new"))
    assert live_reader.read(View()).names == ("q",)
    monkeypatch.setattr(live, "MIN_SCAN_PAUSE_S", 0.0)
    monkeypatch.setattr(live_reader, "_scan_due", 0.0)
    assert live_reader.read(View()).names == ("new", "q")


def test_redis_away_and_back(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis()
    address, client = connect(server.url)
    put(client, "1")
    live_reader = LiveReader(client, address, Settings(), ())
    assert live_reader.read(View()).names == ("q",)
    server.stop()
    with pytest.raises(UnreachableError):
        live_reader.read(View(("q",)))
    # Also where there is nothing to read.
    nothing = LiveReader(client, address, Settings(), ())
    nothing._redis, nothing._scan_due = RedisInfo("", None, "standalone"), float("inf")
    with pytest.raises(UnreachableError):
        nothing.read(View())
    server.start()
    put(client, "1")
    assert live_reader.read(View(("q",))).queues[0].status is not None
    client.close()


def test_queues_of_several_prefixes(client: Client) -> None:
    settings = Settings(prefixes=parse_prefixes(["a", "{$QUEUE}"]))
    first, second = QueueKeys("a", "mail"), QueueKeys("{mail}", "mail")
    for keys in (first, second):
        put(client, "1", "active", keys=keys)
    live_reader = LiveReader(client, Address(), settings)
    labels = ("mail@a", "mail@{mail}")
    assert live_reader.read(View()).names == labels
    live_reader.read(View(("mail@a",)))
    client.call("CLIENT", "SETNAME", client_name("{mail}", "mail", "w"))
    happens(client, "failed", keys=first, failedReason="here")
    failed = int(time.time() * 1000) + 10
    client.call("ZADD", second("failed"), failed, "9")
    client.call("HSET", second("9"), "failedReason", "there", "finishedOn", failed)
    reading = live_reader.read(View(("mail@a",), "mail@{mail}"))
    assert [q.name for q in reading.queues] == list(labels)
    statuses = [queue.status for queue in reading.queues]
    assert [s.workers for s in statuses if s is not None] == [0, 1]
    assert [(w.prefix, w.name) for w in reading.workers or ()] == [("{mail}", "w")]
    assert [job.id for job in reading.jobs or ()] == ["1"]
    assert ("mail@a", "here") in {(f.queue, f.reason) for f in reading.failures}
    assert list(map(live_reader.keys_of, labels)) == [first, second]
    alone = LiveReader(client, Address(), Settings(), [second])
    assert alone.read(View(("mail@{mail}",))).names == ("mail@{mail}",)
