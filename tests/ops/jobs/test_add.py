"""``jobs add``: what the options mean, and what the report says."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.connection.socket_client import SocketClient
from qctl.errors import NotFoundError, RefusedError, UsageError
from qctl.ops.jobs.add import (
    AddReport,
    add_job,
    check_backoff,
    parse_data,
    parse_dedup,
    parse_keep,
)
from qctl.output.changes import add_lines
from qctl.wire.options import Dedup, Keep
from qctl.wire.read.clients import client_name
from qctl.wire.write.adding import NewJob
from tests.labs.build import Q, events, job, put, row


def add(client: Client, new: NewJob, **options: Any) -> AddReport:
    return add_job(client, "bull", "q", new, **options)


@pytest.fixture
def queue(store: Client) -> Client:
    """A store in which the queue exists."""
    store.call("HSET", Q("meta"), "version", "bullmq:6.7.0")
    return store


def test_a_job_is_added_and_told_where_it_is(queue: Client) -> None:
    report = add(queue, NewJob("hello", {"a": 1}, delay=60, attempts=3, backoff="exponential:60s"))
    assert (report.id, report.outcome, report.state, report.created_queue) == (
        *("1", "added", "delayed"),
        False,
    )
    stored = job(queue, "1")
    assert json.loads(stored["opts"]) == {
        "attempts": 3,
        "delay": 60_000,
        "backoff": {"type": "exponential", "delay": 60_000},
    }
    assert report.due_at is not None
    assert round(report.due_at.timestamp() * 1000) == int(stored["timestamp"]) + 60_000
    assert add(queue, NewJob("a")).state == "waiting"
    assert add(queue, NewJob("a", priority=3)).state == "prioritized"


def test_an_id_that_exists_adds_nothing_and_says_so(queue: Client) -> None:
    assert add(queue, NewJob("a", {"n": 1}, job_id="x")).outcome == "added"
    report = add(queue, NewJob("b", {"n": 2}, job_id="x"))
    assert (report.id, report.outcome, report.state) == ("x", "exists", "waiting")
    assert job(queue, "x")["data"] == '{"n":1}'
    put(queue, "done", "completed", score=5)
    assert add(queue, NewJob("b", job_id="done")).state == "completed"
    # One that stands in no list is not called waiting.
    put(queue, "nowhere", "")
    assert add(queue, NewJob("b", job_id="nowhere")).state is None


def test_a_deduplicated_add_names_the_job_that_stands_for_it(queue: Client) -> None:
    first = add(queue, NewJob("a", dedup=Dedup("d"), delay=9))
    second = add(queue, NewJob("a", dedup=Dedup("d")))
    assert (second.id, second.outcome, second.state) == (first.id, "deduplicated", "delayed")
    assert second.due_at == first.due_at


def test_a_queue_that_does_not_exist_is_refused_unless_wanted(store: Client) -> None:
    put(store, "1")
    with pytest.raises(NotFoundError) as caught:
        add_job(store, "bull", "qq", NewJob("a"))
    assert "'q'" in caught.value.why
    assert "--create" in caught.value.hint
    assert store.call("KEYS", "bull:qq:*") == []
    report = add_job(store, "bull", "qq", NewJob("a"), create=True)
    assert (report.created_queue, report.id) == (True, "1")
    with pytest.raises(UsageError):
        add_job(store, "bull", "a:b", NewJob("a"), create=True)


def test_a_queue_of_bull_is_refused(store: Client) -> None:
    store.call("SET", Q("id"), 7)
    with pytest.raises(RefusedError):
        add(store, NewJob("a"))
    assert store.call("GET", Q("id")) == "7"


def test_a_dry_run_foresees_and_writes_nothing(queue: Client) -> None:
    add(queue, NewJob("a", job_id="x"))
    owner = add(queue, NewJob("a", dedup=Dedup("d"))).id
    before = len(events(queue)), queue.call("GET", Q("id"))
    for new, job_id, outcome in (
        (NewJob("a"), None, "added"),
        (NewJob("a", job_id="y"), "y", "added"),
        (NewJob("a", job_id="x"), "x", "exists"),
        (NewJob("a", dedup=Dedup("d")), owner, "deduplicated"),
        (NewJob("a", dedup=Dedup("other")), None, "added"),
    ):
        report = add(queue, new, dry_run=True)
        assert (report.id, report.outcome, report.dry_run) == (job_id, outcome, True)
    with pytest.raises(UsageError):
        add(queue, NewJob("a", job_id="12"), dry_run=True)
    assert (len(events(queue)), queue.call("GET", Q("id"))) == before
    assert len(row(queue, "wait")) == 2


def test_what_keeps_it_from_running_is_said(client: SocketClient) -> None:
    put(client, "1")
    client.call("HSET", Q("meta"), "paused", 1)
    with contextlib.closing(connect(client.address.url)[1]) as other:
        # A worker of another queue does not help.
        other.call("CLIENT", "SETNAME", client_name("bull", "other"))
        paused, workers = add(client, NewJob("a")).remarks
    assert "paused" in paused
    assert "qctl resume q" in paused
    assert "no worker" in workers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("true", True),
        ("false", False),
        ("100", 100),
        ("0", 0),
        ("24h", Keep(age_s=86_400)),
        ("100,24h", Keep(count=100, age_s=86_400)),
        ("24h,100", Keep(count=100, age_s=86_400)),
    ],
)
def test_which_finished_jobs_stay(text: str | None, expected: object) -> None:
    found = parse_keep(text, "--remove-on-fail")
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    "text",
    ["", "yes", "1,2", "1h,2h", "-1", "1.5s", "500ms", "1,1h,2", "9" * 5000, "9999999999s"],
)
def test_what_says_nothing_about_finished_jobs(text: str) -> None:
    with pytest.raises(UsageError, match="--remove-on-fail"):
        parse_keep(text, "--remove-on-fail")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user-7", Dedup("user-7")),
        ("user-7:5s", Dedup("user-7", ttl_s=5)),
        ("user:7", Dedup("user:7")),
        ("user:7:500ms", Dedup("user:7", ttl_s=0.5)),
    ],
)
def test_a_deduplication(text: str, expected: Dedup) -> None:
    assert parse_dedup(text) == expected


def test_a_ttl_that_is_too_long_is_not_forgotten() -> None:
    with pytest.raises(UsageError, match="--dedup"):
        parse_dedup("user-7:9999999999s")


@pytest.mark.parametrize("text", ["", ":5s"])
def test_a_deduplication_without_an_id(text: str) -> None:
    with pytest.raises(UsageError, match="has no id"):
        parse_dedup(text)


def test_data_is_json() -> None:
    assert parse_data('{"a": [1, null]}') == {"a": [1, None]}
    assert parse_data(None) is None
    for text in ("{a:1}", "NaN", "", "[" * 100_000, "9" * 5000):
        with pytest.raises(UsageError) as raised:
            parse_data(text)
        assert "set_int_max_str_digits" not in raised.value.why


def test_a_number_of_any_length_may_be_part_of_an_id(queue: Client) -> None:
    digits = "9" * 5000
    assert add(queue, NewJob("x", job_id=digits)).id == digits


def test_a_delay_beyond_any_date_is_refused(queue: Client) -> None:
    last = datetime(9999, 12, 31, tzinfo=UTC) - datetime.now(UTC)
    assert add(queue, NewJob("x", delay=last.total_seconds()), dry_run=True).due_at is not None
    for delay in (last.total_seconds() + 86_400, 2.0**53 / 1000, 1e300, float("inf")):
        with pytest.raises(UsageError, match="delay"):
            add(queue, NewJob("x", delay=delay))
    assert queue.call("EXISTS", Q("delayed")) == 0


def test_a_name_may_be_empty_as_bullmq_has_it(queue: Client) -> None:
    report = add(queue, NewJob(""))
    assert (report.outcome, queue.call("HGET", Q(str(report.id)), "name")) == ("added", "")
    assert add_lines(report)[0].startswith("a job without a name was added to queue q")


def test_backoff() -> None:
    assert check_backoff("patient:0s") == "patient:0s"
    for text in ("exponential", "60s", "exponential:60"):
        with pytest.raises(UsageError, match="--backoff"):
            check_backoff(text)
