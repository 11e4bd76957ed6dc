"""Past events, and those to come, without a gap that nobody tells of."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from qctl.connection.address import Arg, Client
from qctl.connection.connect import connect
from qctl.connection.forwarding import ForwardingClient
from qctl.connection.socket_client import SocketClient
from qctl.errors import RefusedError, UnreachableError, UsageError
from qctl.ops.follow.events import (
    EventFilter,
    QueueEvent,
    Remark,
    follow_events,
    recent_events,
    require_stream,
    start_id,
    time_of,
    unknown_name_remarks,
)
from qctl.wire.events import past_events
from tests.labs.build import Q, put
from tests.labs.jobs import snapshot
from tests.labs.servers import RedisServer, wait_until

ALL = EventFilter()
T0 = 1_700_000_000_000


def emit(client: Client, event: str, entry_id: str = "*", **fields: object) -> str:
    words = [str(word) for pair in fields.items() for word in pair]
    return str(client.call("XADD", Q("events"), entry_id, "event", event, *words))


def numbered(client: Client, count: int) -> None:
    client.pipeline(
        [("XADD", Q("events"), f"{T0 + n // 3}-{n % 3}", "event", "added", "jobId", n)
         for n in range(count)]
    )  # fmt: skip


def ids(found: list[QueueEvent | Remark]) -> list[str | None]:
    return [event.job_id for event in found if isinstance(event, QueueEvent)]


def remarks(found: list[QueueEvent | Remark]) -> list[Remark]:
    return [event for event in found if isinstance(event, Remark)]


def test_the_last_ones_oldest_first(client: Client) -> None:
    numbered(client, 5)
    page = recent_events(client, Q, ALL, limit=2)
    assert [event.job_id for event in page.events] == ["3", "4"]
    assert (page.total, page.more) == (5, True)
    assert page.events[-1].happened_at == datetime.fromtimestamp(T0 / 1000, UTC) + timedelta(
        milliseconds=1
    )
    whole = recent_events(client, Q, ALL, limit=5)
    assert (len(whole.events), whole.more, whole.kept_since_at) == (5, False, time_of(f"{T0}-0"))


def test_whether_older_ones_were_cut_off(client: Client) -> None:
    numbered(client, 5)
    assert not recent_events(client, Q, ALL).cut
    client.call("XTRIM", Q("events"), "MAXLEN", 4)
    page = recent_events(client, Q, ALL)
    assert (page.cut, page.total, page.kept_since_at) == (True, 4, time_of(f"{T0}-1"))


class BeforeRedis7(ForwardingClient):
    """A client of a Redis that does not count what was added."""

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:
        reply = super().call(*command, timeout_s=timeout_s)
        if command[0] == "XINFO":
            at = reply.index("entries-added")
            reply = reply[:at] + reply[at + 2 :]
        return reply


def test_an_old_redis_does_not_tell_whether_older_ones_were_cut_off(client: Client) -> None:
    numbered(client, 5)
    assert recent_events(BeforeRedis7(client), Q, ALL).cut


def test_windows_join_without_a_gap(client: Client) -> None:
    numbered(client, 20)
    for window in (1, 2, 3, 7, 20, 50):
        found = [event.job_id for event in past_events(client, Q, window=window)]
        assert found == [str(n) for n in reversed(range(20))]


def test_no_stream_is_not_an_empty_one(client: Client) -> None:
    assert recent_events(client, Q, ALL).total is None
    emit(client, "added")
    client.call("XTRIM", Q("events"), "MAXLEN", 0)
    assert recent_events(client, Q, ALL).total == 0


def test_filters(client: Client) -> None:
    for number in range(4):
        emit(client, "active", jobId=number)
        emit(client, "completed", jobId=number, returnvalue='{"n":1}')
    page = recent_events(client, Q, EventFilter(frozenset({"completed"})), limit=3)
    assert [event.job_id for event in page.events] == ["1", "2", "3"]
    assert page.more
    of_job = recent_events(client, Q, EventFilter(job_id="2"))
    assert [event.event for event in of_job.events] == ["active", "completed"]
    assert of_job.events[1].fields == {"returnvalue": {"n": 1}}
    assert not of_job.more


def test_since(client: Client) -> None:
    numbered(client, 6)

    def since(text: str) -> list[str | None]:
        page = recent_events(client, Q, ALL, after=start_id(client, text))
        return [event.job_id for event in page.events]

    # Behind an event, from a millisecond on, from a time on.
    assert since(f"{T0}-1") == ["2", "3", "4", "5"]
    assert since(str(T0 + 1)) == ["3", "4", "5"]
    assert since("2023-11-14T22:13:20.001Z") == ["3", "4", "5"]
    assert since("1h") == []
    for text in ("tomorrow", f"{10**19 - 1}-0", str(10**19 - 1), f"{T0}-{2**64}", "9" * 5000):
        with pytest.raises(UsageError, match="--since"):
            start_id(client, text)


def test_a_time_is_by_the_clock_of_redis(client: Client) -> None:
    written = emit(client, "added", jobId=1)
    assert recent_events(client, Q, ALL, after=start_id(client, "10s")).events[0].id == written


def test_fields_are_read_and_nonsense_survives(client: Client) -> None:
    emit(client, "progress", jobId=1, data='{"pct":3}')
    emit(client, "progress", jobId=1, data="{broken")
    emit(client, "delayed", jobId=1, delay=123)
    emit(client, "cleaned", count="many")
    client.call("XADD", Q("events"), "9999999999999999-1", "hello", "world")
    found = recent_events(client, Q, ALL).events
    assert [event.fields for event in found] == [
        {"data": {"pct": 3}}, {"data": "{broken"}, {"delay": 123}, {"count": "many"},
        {"hello": "world"},
    ]  # fmt: skip
    assert (found[-1].event, found[-1].happened_at) == ("", None)


def follow(client: Client, **options: object) -> Iterator[QueueEvent | Remark]:
    return follow_events(client, Q, ALL, block_ms=1000, **options)  # type: ignore[arg-type]


def test_only_what_is_new_is_followed(client: SocketClient) -> None:
    emit(client, "added", jobId="old")
    # A generator begins when it is first asked, so they are written while it waits.
    first = emit_when_asked(client, follow(client), "a", "b")
    assert ids(first) == ["a", "b"]


def emit_when_asked(
    client: SocketClient, follower: Iterator[QueueEvent | Remark], *names: str
) -> list[QueueEvent | Remark]:
    def write() -> None:
        with contextlib.closing(connect(client.address.url)[1]) as own:
            wait_until(lambda: "blocked_clients:0" not in own.call("INFO", "clients"), "a read")
            for name in names:
                emit(own, "added", jobId=name)

    thread = threading.Thread(target=write)
    thread.start()
    found = list(itertools.islice(follower, len(names)))
    thread.join()
    return found


def test_followed_from_an_event_on(client: Client) -> None:
    numbered(client, 2500)
    follower = follow(client, after=f"{T0}-1")
    found = list(itertools.islice(follower, 2498))
    assert ids(found) == [str(n) for n in range(2, 2500)]


def test_a_stream_that_was_cut_off_beyond_the_start_is_told(client: Client) -> None:
    numbered(client, 9)
    client.call("XTRIM", Q("events"), "MAXLEN", 3)
    remark, event = itertools.islice(follow(client, after=f"{T0}-1"), 2)
    assert isinstance(remark, Remark)
    assert remark.lost
    assert str(T0 + 2) in remark.text
    assert isinstance(event, QueueEvent)
    assert event.job_id == "6"
    # Where the last event that was seen is still there, nothing is missing.
    assert remarks(list(itertools.islice(follow(client, after=f"{T0 + 2}-0"), 2))) == []


def test_the_beginning_of_a_stream_is_no_cut(client: Client) -> None:
    numbered(client, 3)
    found = list(itertools.islice(follow(client, after=f"{T0 - 9}-0"), 3))
    assert ids(found) == ["0", "1", "2"]
    # Emptied, it is still there.
    client.call("XTRIM", Q("events"), "MAXLEN", 0)
    emptied = follow_events(client, Q, ALL, after=f"{T0}-2", block_ms=1)
    with contextlib.closing(connect(client.address.url)[1]) as own:  # type: ignore[attr-defined]
        thread = threading.Timer(0.05, lambda: emit(own, "added", jobId="new"))
        thread.start()
        found = list(itertools.islice(emptied, 2))
        thread.join()
    assert ids(found) == ["new"]
    assert "begins" in remarks(found)[0].text


class Trimmed(ForwardingClient):
    """A client behind whose back the stream is cut off, before a read."""

    reads = 0

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:
        if command[0] == "XREAD":
            self.reads += 1
            if self.reads == 2:
                for number in range(10):
                    emit(self.inner, "added", jobId=f"n{number}")
                self.inner.call("XTRIM", Q("events"), "MAXLEN", 2)
        return super().call(*command, timeout_s=timeout_s)


def test_a_stream_that_is_cut_off_meanwhile_is_told(client: Client) -> None:
    numbered(client, 3)
    follower = follow_events(Trimmed(client), Q, ALL, after=f"{T0}-1", block_ms=100)
    found = list(itertools.islice(follower, 4))
    assert ids(found) == ["2", "n8", "n9"]
    (remark,) = remarks(found)
    assert remark.lost


def test_a_stream_that_is_deleted_is_told_once(client: Client) -> None:
    numbered(client, 3)
    follower = follow_events(client, Q, ALL, after=f"{T0}-1", block_ms=20)
    assert ids([next(follower)]) == ["2"]
    client.call("DEL", Q("events"))
    gone = next(follower)
    assert isinstance(gone, Remark)
    assert gone.lost
    emit(client, "added", jobId="new")
    assert ids([next(follower)]) == ["new"]


def test_a_stream_that_is_begun_anew_between_two_reads_is_told(client: Client) -> None:
    numbered(client, 3)
    follower = follow_events(client, Q, ALL, after=f"{T0}-1", block_ms=20)
    assert ids([next(follower)]) == ["2"]
    # As by a Redis that restarts without its data, while apps go on adding.
    client.call("DEL", Q("events"))
    emit(client, "added", jobId="new")
    found = [next(follower), next(follower)]
    assert ids(found) == ["new"]
    assert remarks(found)[0].lost


@pytest.mark.parametrize(
    ("next_id", "is_read_between"),
    [(f"{T0}-2", True), (f"{T0 + 9}-0", True), (f"{T0 + 9}-0", False)],
)
def test_a_redis_that_has_lost_the_last_events_is_told(
    client: Client, next_id: str, is_read_between: bool
) -> None:
    numbered(client, 5)
    follower = follow_events(client, Q, ALL, after=f"{T0}-1", block_ms=20)
    assert ids(list(itertools.islice(follower, 3))) == ["2", "3", "4"]
    # As by a replica that had only the first event when it became the master.
    client.call("DEL", Q("events"))
    client.call("XADD", Q("events"), f"{T0}-1", "event", "added", "jobId", "1")
    found = [next(follower)] if is_read_between else []
    client.call("XADD", Q("events"), next_id, "event", "added", "jobId", "new")
    found += itertools.islice(follower, 2 - len(found))
    assert isinstance(found[0], Remark)
    assert found[0].lost
    assert ids(found) == ["new"]


def test_a_redis_that_goes_away_is_waited_for_and_nothing_is_lost(
    start_redis: Callable[..., RedisServer],
) -> None:
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    client = connect(server.url)[1]
    emit(client, "added", jobId="a")
    attempts: list[float] = []

    def sleep(seconds: float) -> None:
        attempts.append(seconds)
        if len(attempts) == 2:
            server.start()
            own = connect(server.url)[1]
            emit(own, "added", jobId="b")
            own.close()

    follower = follow_events(client, Q, ALL, after="0-0", block_ms=100, sleep=sleep)
    assert ids([next(follower)]) == ["a"]
    server.kill()
    away, back, event = itertools.islice(follower, 3)
    assert isinstance(away, Remark)
    assert "cannot be reached" in away.text
    assert back == Remark("Redis is back")
    assert ids([event]) == ["b"]
    client.close()


def test_a_redis_that_is_not_there_at_the_start_is_an_error() -> None:
    client = connect("redis://127.0.0.1:1/0")[1]
    with pytest.raises(UnreachableError):
        next(follow_events(client, Q, ALL))


def test_bull_has_no_stream(client: Client) -> None:
    put(client, "1")
    require_stream(snapshot(client))
    client.call("DEL", Q("meta"))
    client.call("SET", Q("id"), 1)
    with pytest.raises(RefusedError):
        require_stream(snapshot(client))


def test_a_name_that_bullmq_does_not_have_is_doubted() -> None:
    assert unknown_name_remarks(["completed", "failed"]) == []
    (doubt,) = unknown_name_remarks(["complete"])
    assert "did you mean completed?" in doubt
