"""Counting jobs as they finish, from the event streams."""

from __future__ import annotations

import threading

import pytest

from qctl.connection.address import Client
from qctl.errors import UnreachableError
from qctl.ops.metrics import finished as module
from qctl.ops.metrics.finished import BUCKETS_S, FinishedFigures, FinishedJobs
from qctl.ops.metrics.reading import OTHER, QueueLabels
from qctl.wire.keys import QueueKeys
from tests.labs.build import Q
from tests.labs.servers import wait_until

QUEUES = [QueueKeys("bull", name) for name in ("a", "b", "c")]


def named(*names: str) -> list[QueueKeys]:
    return [QueueKeys("bull", name) for name in names]


def tell(client: Client, name: str, job: str = "", *, keys: QueueKeys = Q, entry: str = "*") -> str:
    fields = ("jobId", job) if job else ()
    return str(client.call("XADD", keys("events"), entry, "event", name, *fields, "prev", "active"))


def now_ms(client: Client) -> int:
    seconds, micros = client.call("TIME")
    return int(seconds) * 1000 + int(micros) // 1000


def follow(client: Client, labels: QueueLabels | None = None) -> FinishedJobs:
    found = FinishedJobs(client, labels or QueueLabels())
    found.begin()
    return found


def only(finished: FinishedJobs) -> FinishedFigures:
    (figures,) = finished.figures()
    return figures


def test_only_what_finishes_from_now_on_is_counted(client: Client) -> None:
    tell(client, "completed", "old", entry=f"{now_ms(client) - 1000}-0")
    finished = follow(client)
    finished.poll(named("q"))
    assert only(finished) == FinishedFigures(
        "q", "bull", 0, 0, 0, 0, [0] * (len(BUCKETS_S) + 1), 0.0
    )
    for name in ("completed", "completed", "failed", "stalled", "drained", "progress", "retries-x"):
        tell(client, name, "1")
    finished.poll(named("q"))
    finished.poll(named("q"))
    row = only(finished)
    assert (row.completed, row.failed, row.stalls, row.gaps) == (2, 1, 1, 0)


def test_durations_are_those_of_the_last_attempt(client: Client) -> None:
    finished = follow(client)
    at = now_ms(client) + 10

    def step(offset_ms: int, name: str, job: str) -> None:
        tell(client, name, job, entry=f"{at + offset_ms}-0")

    step(0, "active", "retried")
    step(1, "active", "given back")
    step(1000, "delayed", "retried")
    step(2000, "waiting", "given back")
    step(3000, "active", "retried")
    step(3001, "progress", "retried")
    step(3002, "deduplicated", "retried")
    step(3700, "completed", "retried")
    # Nobody saw these two begin.
    step(4000, "completed", "given back")
    step(4001, "failed", "older")
    step(5000, "active", "long")
    step(5000 + 86_400_000, "failed", "long")
    finished.poll(named("q"))
    row = only(finished)
    assert (row.completed, row.failed) == (2, 2)
    assert row.duration_sum_s == pytest.approx(86_400.7)
    assert dict(zip((*BUCKETS_S, "more"), row.buckets, strict=True)) == {
        **dict.fromkeys(BUCKETS_S, 0),
        1.0: 1,
        "more": 1,
    }


def test_a_queue_that_becomes_known_later_is_counted_from_the_start(client: Client) -> None:
    finished = follow(client)
    finished.poll(named())
    tell(client, "completed", "1")
    finished.poll(named("q"))
    assert only(finished).completed == 1


def test_a_queue_that_is_gone_is_forgotten_but_not_in_the_sum(client: Client) -> None:
    labels = QueueLabels(1)
    finished = follow(client, labels)
    finished.poll(named("a", "b", "c"))
    for keys in QUEUES:
        tell(client, "completed", "1", keys=keys)
    finished.poll(named("a", "b", "c"))
    labels.keep_only(named("c"))
    for keys in QUEUES[:2]:
        client.call("DEL", keys("events"))
    finished.poll(named("c"))
    assert [(row.queue, row.completed) for row in finished.figures()] == [(OTHER.name, 2)]
    finished.poll(named("c", "d"))
    assert [(row.queue, row.completed) for row in finished.figures()] == [(OTHER.name, 2), ("d", 0)]


def test_what_is_remembered_does_not_grow_with_queues_that_come_and_go(client: Client) -> None:
    labels = QueueLabels(2)
    finished = follow(client, labels)
    for number in range(50):
        labels.keep_only(named(f"q{number}"))
        finished.poll(named(f"q{number}"))
    sizes = len(labels.labels), len(finished._cursors), len(finished.figures())
    assert sizes == (1, 1, 1)


def test_more_events_than_one_read_takes(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_EVENTS", 7)
    monkeypatch.setattr(module, "_BATCH", 2)
    finished = follow(client)
    for keys, count in zip(QUEUES, (50, 1, 9), strict=True):
        for number in range(count):
            tell(client, "completed", str(number), keys=keys)
    finished.poll(QUEUES)
    assert [(row.queue, row.completed) for row in finished.figures()] == [
        *(("a", 50), ("b", 1), ("c", 9)),
    ]


def test_one_busy_queue_cannot_hold_a_poll_for_ever(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_EVENTS", 2)
    monkeypatch.setattr(module, "_MAX_READS", 3)
    finished = follow(client)
    for number in range(20):
        tell(client, "completed", str(number))
    finished.poll(named("q"))
    assert only(finished).completed == 6
    finished.poll(named("q"))
    assert only(finished).completed == 12


def test_events_cut_off_before_they_were_read_are_told(client: Client) -> None:
    finished = follow(client)
    tell(client, "completed", "1")
    finished.poll(named("q"))
    tell(client, "completed", "2")
    finished.poll(named("q"))
    assert only(finished).gaps == 0
    tell(client, "completed", "3")
    tell(client, "completed", "4")
    client.call("XTRIM", Q("events"), "MAXLEN", 1)
    finished.poll(named("q"))
    assert (only(finished).completed, only(finished).gaps) == (3, 1)
    finished.poll(named("q"))
    assert only(finished).gaps == 1


def test_a_broken_stream_does_not_hide_the_others(client: Client) -> None:
    client.call("SET", QUEUES[1]("events"), "x")
    finished = follow(client)
    for _ in range(2):
        for keys in (QUEUES[0], QUEUES[2]):
            tell(client, "failed", "1", keys=keys)
        finished.poll(QUEUES)
    assert [(row.queue, row.failed, row.gaps) for row in finished.figures()] == [
        *(("a", 2, 0), ("b", 0, 1), ("c", 2, 0)),
    ]


def test_queues_beyond_the_limit_are_counted_together(client: Client) -> None:
    finished = follow(client, QueueLabels(1))
    for keys in QUEUES:
        tell(client, "completed", "1", keys=keys)
    finished.poll(QUEUES)
    assert [(row.queue, row.completed) for row in finished.figures()] == [(OTHER.name, 2), ("a", 1)]


def test_starts_are_forgotten_before_they_fill_the_memory(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_STARTS", 2)
    finished = follow(client)
    for job in ("1", "2", "3"):
        tell(client, "active", job)
    for job in ("1", "2", "3"):
        tell(client, "completed", job)
    finished.poll(named("q"))
    assert (only(finished).completed, sum(only(finished).buckets)) == (3, 2)


class Flaky:
    """A client whose Redis goes away and comes back."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.away = True

    def __getattr__(self, name: str) -> object:
        if self.away:
            raise UnreachableError("away")
        return getattr(self.client, name)


def test_a_redis_that_is_away_is_sat_out(fake: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(module, "_STOP_POLL_S", 0.001)
    flaky = Flaky(fake)
    finished = FinishedJobs(flaky, QueueLabels())  # type: ignore[arg-type]
    failures: list[bool] = []
    ended = threading.Event()
    thread = threading.Thread(
        target=finished.run,
        args=(lambda: [Q], ended.is_set, lambda: failures.append(True)),
    )
    thread.start()
    try:
        wait_until(lambda: len(failures) > 1, "two failed looks")
        flaky.away = False
        wait_until(finished.figures, "the queue to be followed")
        tell(fake, "completed", "1")
        wait_until(lambda: only(finished).completed, "the job to be counted")
    finally:
        ended.set()
        thread.join(10)
    assert not thread.is_alive()
