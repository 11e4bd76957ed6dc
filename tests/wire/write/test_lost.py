"""Lost jobs are put back: unfinished ones that are in no state (wire format 10.2)."""

from __future__ import annotations

import time

import pytest

from qctl.connection.address import Client
from qctl.wire.write.transitions import retry_finished
from tests.labs.build import CLASS, Q, events, exponents, is_paused, job, put, row, scores


def test_a_lost_job_waits_again(store: Client) -> None:
    put(store, "w")
    put(store, "a", "", atm=1, ats=2, processedOn=5)
    put(store, "b", "", opts='{"lifo":true}')
    assert retry_finished(store, Q, ["a", "b"]) == {"a": "retried", "b": "retried"}
    assert row(store, "wait") == ["a", "w", "b"]
    assert scores(store, "marker") == {"0": "0"}
    assert (job(store, "a")["atm"], job(store, "a")["ats"]) == ("1", "2")
    assert events(store) == [
        {"event": "waiting", "jobId": id_, "prev": "unknown"} for id_ in ("a", "b")
    ]
    # Once only: by now they are in a state.
    assert retry_finished(store, Q, ["a", "b"]) == {"a": "inactive", "b": "inactive"}
    assert row(store, "wait") == ["a", "w", "b"]


@pytest.mark.parametrize("place", ["wait", "paused"])
def test_in_a_paused_queue_it_goes_where_the_others_are(store: Client, place: str) -> None:
    put(store, "w", place)
    put(store, "a", "")
    store.call("HSET", Q("meta"), "paused", "1")
    assert retry_finished(store, Q, ["a"]) == {"a": "retried"}
    assert row(store, place) == ["a", "w"]
    assert is_paused(store)
    assert scores(store, "marker") == {}


def test_its_priority_and_its_delay_are_kept(store: Client) -> None:
    now = round(time.time() * 1000)
    put(store, "p", "", priority=7)
    put(store, "due", "", delay=5000)
    put(store, "later", "", delay=600_000, timestamp=now)
    # Failed, and to be tried again after a backoff.
    put(store, "backoff", "", delay=600_000, processedOn=now + 10)
    ids = ["p", "due", "later", "backoff"]
    assert retry_finished(store, Q, ids) == dict.fromkeys(ids, "retried")
    assert scores(store, "prioritized") == {"p": str(7 * CLASS + 1)}
    assert row(store, "wait") == ["due"]
    assert job(store, "due")["delay"] == "0"
    assert scores(store, "delayed") == {
        "later": str((now + 600_000) * 4096),
        "backoff": str((now + 600_010) * 4096),
    }
    assert [event["event"] for event in events(store)] == ["waiting", "waiting"] + ["delayed"] * 2
    assert {"0", "1"} == set(scores(store, "marker"))
    assert exponents(store) == []


@pytest.mark.parametrize("place", ["wait", "paused", "active", "delayed", "prioritized"])
def test_a_job_in_a_state_is_none(store: Client, place: str) -> None:
    put(store, "a", place)
    put(store, "parent", "waiting-children")
    assert set(retry_finished(store, Q, ["a", "parent"]).values()) == {"inactive"}
    assert events(store) == []


def test_why_others_are_left_alone(store: Client) -> None:
    put(store, "ended", "", finishedOn=5)
    store.call("HSET", Q("ghost"), "ats", "1", "processedOn", "1")
    put(store, "nameless", "")
    store.call("HDEL", Q("nameless"), "name")
    put(store, "held", "", lock="worker:1")
    put(store, "parent", "")
    store.call("SADD", Q("parent:dependencies"), "bull:q:child")
    put(store, "owner", "wait", deid="d")
    store.call("SET", Q("de:d"), "owner")
    put(store, "twin", "", deid="d")
    wanted = {
        "ended": "ended",
        "ghost": "ghost",
        "nameless": "ghost",
        "held": "locked",
        "parent": "children",
        "twin": "duplicate",
        "meta": "ghost",
        "never": "missing",
    }
    assert retry_finished(store, Q, list(wanted)) == wanted
    # Where only failed jobs are meant, a lost one is not.
    put(store, "lost", "")
    assert retry_finished(store, Q, ["lost"], source="failed") == {"lost": "inactive"}
    assert retry_finished(store, Q, ["lost"], dry_run=True) == {"lost": "retried"}
    assert (row(store, "wait"), events(store)) == (["owner"], [])


def test_its_attempts_are_forgotten_if_wanted(store: Client) -> None:
    put(store, "a", "", atm=3, ats=3, stc=1)
    assert retry_finished(store, Q, ["a"], forget="attempts") == {"a": "retried"}
    assert not {"atm", "ats", "stc"} & set(job(store, "a"))


def test_a_job_in_a_long_list_is_not_lost(store: Client) -> None:
    for start in range(0, 60_000, 10_000):
        store.call("RPUSH", Q("wait"), *range(start, start + 10_000))
    put(store, "30000", "")
    put(store, "lost", "")
    put(store, "done", "failed", finishedOn=5)
    answers = retry_finished(store, Q, ["30000", "lost", "done"])
    assert answers == {"30000": "inactive", "lost": "retried", "done": "retried"}
