"""The record of drains: sums and the last one, in one hash of fixed size."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qctl.connection.address import Client
from qctl.errors import ReplyError
from qctl.wire.drain_record import (
    RESULTS,
    DrainResult,
    Resumer,
    add_drain,
    read_drain_records,
    read_resumers,
)
from tests.labs.servers import limited_user

ONE = DrainResult(
    at_ms=1_700_000_000_000, outcome="restarted", completed=3, failed=1, retried=2, interrupted=1,
    recovered=1, lost=0, paused_ms=4100, idle_ms=600,
)  # fmt: skip
TWO = replace(ONE, at_ms=ONE.at_ms + 1, outcome="timeout", completed=4, lost=2, idle_ms=0)


def test_without_a_drain_all_is_zero_and_there_is_no_last_one(store: Client) -> None:
    record = read_drain_records(store, ["bull"])[0]
    assert record.drains == {"drained": 0, "restarted": 0, "timeout": 0, "aborted": 0}
    assert set(record.jobs.values()) == {0}
    assert record.last is None


def test_drains_add_up_and_the_last_one_is_kept_whole(store: Client) -> None:
    for result in (ONE, ONE, TWO):
        add_drain(store, "bull", result)
    record = read_drain_records(store, ["bull"])[0]
    assert record.drains == {"drained": 0, "restarted": 2, "timeout": 1, "aborted": 0}
    assert record.jobs == {
        "completed": 10, "failed": 3, "retried": 6, "interrupted": 3, "recovered": 3, "lost": 2,
    }  # fmt: skip
    assert record.last == TWO
    assert read_drain_records(store, ["other"])[0].last is None


def test_the_sums_may_have_a_part_of_the_jobs(store: Client) -> None:
    part = {**dict.fromkeys(RESULTS, 0), "completed": 1}
    add_drain(store, "bull", ONE, part)
    record = read_drain_records(store, ["bull"])[0]
    assert (dict(record.jobs), record.last) == (part, ONE)


def test_the_record_does_not_grow(store: Client) -> None:
    for result in (ONE, TWO):
        add_drain(store, "bull", result)
    fields = store.call("HLEN", "qctl:drains:bull")
    for number in range(50):
        add_drain(store, "bull", replace(ONE, at_ms=number))
    assert store.call("HLEN", "qctl:drains:bull") == fields
    assert store.call("KEYS", "qctl:*") == ["qctl:drains:bull"]


def test_what_somebody_else_put_there_breaks_nothing(store: Client) -> None:
    store.call(
        *("HSET", "qctl:drains:bull", "last:outcome", "x", "resumer:nonsense", "1"),
        *("resumer:[1, 2]", "1", 'resumer:["q", "pm2:w"]', "never", 'resumer:["q", "pm2:x"]', "5"),
    )
    (record,) = read_drain_records(store, ["bull"])
    assert record is not None
    assert record.last is None
    assert read_resumers(store, "bull") == [Resumer("q", "pm2:x", 5)]


@pytest.mark.parametrize(("field", "value"), [("drains:drained", "many"), ("jobs:lost", "-3")])
def test_a_sum_that_is_no_number_is_unknown(store: Client, field: str, value: str) -> None:
    store.call("HSET", "qctl:drains:bull", field, value)
    assert read_drain_records(store, ["bull"]) == [None]


def test_what_may_not_be_read_is_an_error_and_not_zero(client: Client, redis_url: str) -> None:
    with limited_user(client, redis_url, "~bull:*", "+@all") as (_, narrow):
        with pytest.raises(ReplyError):
            add_drain(narrow, "bull", ONE)
        with pytest.raises(ReplyError):
            read_drain_records(narrow, ["bull"])[0]
