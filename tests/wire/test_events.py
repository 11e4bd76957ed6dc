"""The event stream is read from a cursor, without a gap (wire format 8)."""

from __future__ import annotations

import threading

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.wire.events import READ_COUNT, Event, last_event_id, read_events
from qctl.wire.keys import QueueKeys
from tests.labs.build import Q
from tests.labs.servers import wait_until

OTHER = QueueKeys("bull", "other")


def emit(client: Client, *fields: str, keys: QueueKeys = Q) -> str:
    return str(client.call("XADD", keys("events"), "*", *fields))


def test_from_nothing(store: Client) -> None:
    assert last_event_id(store, Q) == "0-0"
    cursors = {Q: "0-0"}
    assert read_events(store, cursors) == []
    assert cursors == {Q: "0-0"}
    assert read_events(store, {}) == []


def test_only_what_came_after_the_cursor(store: Client) -> None:
    emit(store, "event", "added", "jobId", "1", "name", "old")
    cursors = {Q: last_event_id(store, Q)}
    new = emit(store, "event", "active", "jobId", "1", "prev", "waiting")
    event = Event(new, "active", {"jobId": "1", "prev": "waiting"})
    assert read_events(store, cursors) == [(Q, event)]
    assert cursors == {Q: new}
    assert read_events(store, cursors) == []
    assert event.job_id == "1"
    assert event.at_ms == int(new.partition("-")[0])


def test_several_queues_in_one_read(store: Client) -> None:
    cursors = {Q: "0-0", OTHER: "0-0"}
    emit(store, "event", "paused")
    emit(store, "event", "resumed", keys=OTHER)
    found = [(keys, event.name) for keys, event in read_events(store, cursors)]
    assert sorted(found) == [(OTHER, "resumed"), (Q, "paused")]
    assert read_events(store, cursors) == []


def test_more_events_than_one_read_takes(store: Client) -> None:
    rows = [("XADD", Q("events"), "*", "event", "e", "jobId", n) for n in range(READ_COUNT + 5)]
    store.pipeline(rows)
    cursors = {Q: "0-0"}
    found = []
    while batch := read_events(store, cursors):
        found += [event.job_id for _, event in batch]
    assert found == [str(n) for n in range(READ_COUNT + 5)]


def test_events_of_other_programs_are_no_trouble(store: Client) -> None:
    emit(store, "hello", "world")
    ((_, event),) = read_events(store, {Q: "0-0"})
    assert (event.name, event.job_id, event.fields) == ("", None, {"hello": "world"})


def test_waiting_for_the_next_event(client: Client, redis_url: str) -> None:
    cursors = {Q: "0-0"}
    found: list[str] = []
    reader_client = connect(redis_url)[1]

    def read() -> None:
        found.extend(e.name for _, e in read_events(reader_client, cursors, block_ms=20_000))

    reader = threading.Thread(target=read)
    reader.start()
    blocked = "blocked_clients:1\r\n"
    wait_until(lambda: blocked in client.call("INFO", "clients"), "the reader to block")
    emit(client, "event", "drained")
    reader.join(10)
    reader_client.close()
    assert found == ["drained"]


def test_waiting_in_vain_ends(client: Client) -> None:
    assert read_events(client, {Q: "0-0"}, block_ms=10) == []
