"""Job hashes of every version become records; broken ones too."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qctl.connection.address import Client
from qctl.wire.jobs import parse_job, read_jobs
from qctl.wire.states import is_marker
from tests.labs.build import Q, put

KNOWN_FIELDS = (
    *("name", "data", "opts", "timestamp", "delay", "priority", "processedOn", "finishedOn", "atm"),
    *("ats", "stc", "stalledCounter", "attemptsMade", "pb", "progress", "returnvalue", "defa"),
    *("failedReason", "stacktrace", "rjk", "parentKey", "parent", "deid", "nrjid"),
)
NASTY = st.sampled_from(
    (
        *("1e999", "-1e999", "nan", "null", "[]", "{}", "[1]", "true", "9" * 5000, "[" * 5000),
        *('{"attempts":"x"}', '{"attempts":[1]}', '{"attempts":1e999}', "1.5"),
        *("\ud800", "\udcff", "\x1b[0m"),
    )
)
ANY_TEXT = st.text(st.characters(codec=None), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
).map(json.dumps)
FIELDS = st.dictionaries(st.sampled_from(KNOWN_FIELDS) | ANY_TEXT, ANY_TEXT | NASTY | JSON)


@given(ANY_TEXT, FIELDS)
def test_parsing_never_raises(job_id: str, fields: dict[str, str]) -> None:
    record = parse_job(job_id, fields)
    assert record.id == job_id
    assert record.attempts_max >= 1
    assert isinstance(record.opts, dict)
    assert all(isinstance(line, str) for line in record.stacktrace)
    for number in (record.delay_ms, record.priority, record.attempts_made, record.stalled_count):
        assert isinstance(number, int)


def test_a_job_of_bullmq() -> None:
    record = parse_job(
        "7",
        {
            "name": "mail",
            "data": '{"to":"a\\/b"}',
            "opts": '{"attempts":3,"backoff":{"type":"exponential","delay":60000}}',
            "timestamp": "1700000000000",
            "delay": "0",
            "priority": "4",
            "processedOn": "1700000001000",
            "finishedOn": "1700000002000",
            "atm": "2",
            "ats": "3",
            "stc": "1",
            "pb": "mailer",
            "progress": "50",
            "returnvalue": '{"ok":true}',
            "failedReason": "boom",
            "stacktrace": '["boom at 1","boom at 2"]',
            "rjk": "nightly",
            "parentKey": "bull:p:1",
        },
    )
    assert (record.name, record.data, record.data_is_json) == ("mail", {"to": "a/b"}, True)
    assert record.timestamp_ms == 1_700_000_000_000
    assert (record.processed_on_ms, record.finished_on_ms) == (1_700_000_001_000, 1_700_000_002_000)
    assert (record.attempts_made, record.attempts_started, record.attempts_max) == (2, 3, 3)
    assert (record.stalled_count, record.worker, record.priority) == (1, "mailer", 4)
    assert (record.progress, record.returnvalue) == (50, {"ok": True})
    assert record.failed_reason == "boom"
    assert record.stacktrace == ["boom at 1", "boom at 2"]
    assert (record.scheduler, record.parent_key) == ("nightly", "bull:p:1")


def test_an_empty_hash_is_all_defaults() -> None:
    record = parse_job("1", {})
    assert (record.name, record.data, record.data_is_json) == ("", {}, True)
    assert (record.attempts_made, record.attempts_started, record.attempts_max) == (0, 0, 1)
    assert record.timestamp_ms is None
    assert record.failed_reason is None


@pytest.mark.parametrize(
    ("fields", "made"),
    [
        ({"attemptsMade": "2", "atm": "1"}, 2),
        ({"atm": "1"}, 1),
        ({"attemptsMade": "x", "atm": "1"}, 1),
    ],
)
def test_attempts_of_older_versions(fields: dict[str, str], made: int) -> None:
    assert parse_job("1", fields).attempts_made == made


def test_data_that_is_not_json_is_kept_as_text() -> None:
    record = parse_job("1", {"data": "{oops"})
    assert (record.data, record.data_is_json) == ("{oops", False)


def test_numbers_that_a_foreign_lua_wrote_in_exponent_form_are_read() -> None:
    assert parse_job("1", {"timestamp": "1.7e+12"}).timestamp_ms == 1_700_000_000_000


def test_reading_jobs_with_their_locks(store: Client) -> None:
    put(store, "a", "active", lock="worker:1")
    put(store, "b", "active")
    store.call("SET", Q.lock("b2"), "worker:2")
    a, gone, b = read_jobs(store, Q, ["a", "gone", "b"])
    assert a is not None
    assert b is not None
    assert gone is None
    assert (a.record.id, a.lock_token) == ("a", "worker:1")
    assert a.lock_ttl_ms is not None
    assert 0 < a.lock_ttl_ms <= 30_000
    assert (b.record.id, b.lock_token, b.lock_ttl_ms) == ("b", None, None)
    assert read_jobs(store, Q, []) == []


def test_an_id_whose_key_is_no_hash_has_no_record_and_hides_no_other(store: Client) -> None:
    put(store, "b")
    store.call("SET", Q("a"), "text")
    store.call("RPUSH", Q.lock("b"), "no lock of BullMQ's")
    a, wait, b = read_jobs(store, Q, ["a", "wait", "b"])
    assert a is None
    assert wait is None
    assert b is not None
    assert (b.record.id, b.lock_token) == ("b", "")


def test_bytes_that_are_no_text_survive(store: Client) -> None:
    raw: Any = b"\xff\x00caf\xc3"
    store.call("HSET", Q("a"), "data", raw, "name", b"n\xfe")
    (found,) = read_jobs(store, Q, ["a"])
    assert found is not None
    store.call("HSET", Q("copy"), "data", found.record.data, "name", found.record.name)
    same = "return redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] and 1 or 0"
    assert store.call("EVAL", same, 1, Q("copy"), "data", raw) == 1
    assert store.call("EVAL", same, 1, Q("copy"), "name", b"n\xfe") == 1


@pytest.mark.parametrize(
    ("job_id", "expected"),
    [("0:0", True), ("0:1700000000000", True), ("0", False), ("00:1", False), ("10:0", False)],
)
def test_legacy_markers(job_id: str, expected: bool) -> None:
    assert is_marker(job_id) is expected
