"""Stalled and failed jobs go back to run next (wire format 5.13, 5.14)."""

from __future__ import annotations

from functools import partial

import pytest

from qctl.connection.address import Client
from qctl.wire.jobs import STALLED_TOO_OFTEN
from qctl.wire.write.transitions import retry_finished, retry_stalled
from tests.labs.build import CLASS, Q, events, exponents, job, put, row, scores

# As `jobs retry-stalled --failed` does it.
retry_failed = partial(retry_finished, source="failed", run_next=True, forget="stalls")


def test_a_stalled_job_runs_next(store: Client) -> None:
    put(store, "w1")
    put(store, "a", "active", stc=2, ats=3, atm=1, processedOn=1_700_000_000_500)
    store.call("SADD", Q("stalled"), "a")
    assert retry_stalled(store, Q, {"a": ""}) == {"a": "retried"}
    assert row(store, "active") == []
    assert row(store, "wait") == ["w1", "a"]
    assert store.call("EXISTS", Q("stalled")) == 0
    assert scores(store, "marker") == {"0": "0"}
    assert events(store) == [
        {"event": "waiting", "jobId": "a", "prev": "active"},
        {"event": "stalled", "jobId": "a"},
    ]
    fields = job(store, "a")
    assert "stc" not in fields
    # What BullMQ itself leaves alone.
    assert (fields["ats"], fields["atm"], fields["processedOn"]) == ("3", "1", "1700000000500")


def test_a_deferred_stall_failure_is_forgotten_and_no_other(store: Client) -> None:
    put(store, "a", "active", defa=STALLED_TOO_OFTEN, stc=2)
    put(store, "b", "active", defa="child bull:q:c failed", stc=1)
    retry_stalled(store, Q, {"a": "", "b": ""})
    assert "defa" not in job(store, "a")
    assert job(store, "b")["defa"] == "child bull:q:c failed"


def test_a_job_whose_worker_came_back_is_left_alone(store: Client) -> None:
    put(store, "a", "active", lock="worker:1", stc=1)
    assert retry_stalled(store, Q, {"a": ""}) == {"a": "locked"}
    assert retry_stalled(store, Q, {"a": "worker:0"}) == {"a": "locked"}
    assert row(store, "active") == ["a"]
    assert row(store, "wait") == []
    assert job(store, "a")["stc"] == "1"
    assert store.call("GET", Q.lock("a")) == "worker:1"
    assert events(store) == []


def test_a_dead_workers_lock_can_be_named_and_is_removed(store: Client) -> None:
    put(store, "a", "active", lock="worker:1")
    assert retry_stalled(store, Q, {"a": "worker:1"}) == {"a": "retried"}
    assert store.call("EXISTS", Q.lock("a")) == 0
    assert row(store, "wait") == ["a"]


def test_a_job_that_left_active_is_not_put_back(store: Client) -> None:
    put(store, "done", "completed", score=1)
    put(store, "waiting")
    answers = retry_stalled(store, Q, {"done": "", "waiting": ""})
    assert answers == {"done": "inactive", "waiting": "inactive"}
    assert row(store, "wait") == ["waiting"]
    assert events(store) == []


def test_an_id_without_a_job_is_never_queued(store: Client) -> None:
    store.call("RPUSH", Q("active"), "ghost", "0:0")
    answers = retry_stalled(store, Q, {"ghost": "", "0:0": ""})
    assert answers == {"ghost": "missing", "0:0": "missing"}
    assert row(store, "wait") == []
    assert store.call("EXISTS", Q("ghost"), Q("0:0")) == 0


def test_a_prioritised_job_goes_to_the_front_of_its_class(store: Client) -> None:
    put(store, "p1", "prioritized", score=1 * CLASS + 9, priority=1)
    put(store, "p5", "prioritized", score=5 * CLASS + 1, priority=5)
    put(store, "a", "active", priority=5)
    retry_stalled(store, Q, {"a": ""})
    assert row(store, "wait") == []
    assert store.call("ZRANGE", Q("prioritized"), 0, -1) == ["p1", "a", "p5"]
    assert store.call("ZSCORE", Q("prioritized"), "a") == str(5 * CLASS)
    assert job(store, "a")["priority"] == "5"
    assert scores(store, "marker") == {"0": "0"}


@pytest.mark.parametrize("priority", [1, 2_097_151])
def test_the_score_of_every_priority_is_exact(store: Client, priority: int) -> None:
    put(store, "a", "active", priority=priority)
    retry_stalled(store, Q, {"a": ""})
    assert int(float(store.call("ZSCORE", Q("prioritized"), "a"))) == priority * CLASS


def test_while_paused_by_bullmq_5_the_paused_list_is_the_place(store: Client) -> None:
    put(store, "p", "paused")
    put(store, "a", "active")
    store.call("HSET", Q("meta"), "paused", "1")
    retry_stalled(store, Q, {"a": ""})
    assert row(store, "paused") == ["p", "a"]
    assert row(store, "wait") == []
    assert scores(store, "marker") == {}


def test_while_paused_by_a_flag_alone_wait_is_the_place(store: Client) -> None:
    put(store, "w")
    put(store, "a", "active")
    store.call("HSET", Q("meta"), "paused", "1")
    retry_stalled(store, Q, {"a": ""})
    assert row(store, "wait") == ["w", "a"]
    assert row(store, "paused") == []
    assert scores(store, "marker") == {}


def test_a_paused_list_left_behind_by_a_running_queue_is_not_the_place(store: Client) -> None:
    put(store, "p", "paused")
    put(store, "a", "active")
    retry_stalled(store, Q, {"a": ""})
    assert row(store, "wait") == ["a"]


def test_a_full_queue_gets_no_marker(store: Client) -> None:
    put(store, "a", "active")
    put(store, "b", "active", lock="t:1")
    store.call("HSET", Q("meta"), "concurrency", "1")
    retry_stalled(store, Q, {"a": ""})
    assert row(store, "wait") == ["a"]
    assert scores(store, "marker") == {}


def test_counting_a_stall_as_bullmq_does(store: Client) -> None:
    put(store, "first", "active")
    put(store, "second", "active", stc=1)
    retry_stalled(store, Q, {"first": "", "second": ""}, max_stalled=1)
    assert job(store, "first")["stc"] == "1"
    assert "defa" not in job(store, "first")
    assert job(store, "second")["stc"] == "2"
    assert job(store, "second")["defa"] == STALLED_TOO_OFTEN


@pytest.mark.parametrize("record", ["hash", "zset", "none"])
def test_an_iteration_of_a_living_scheduler_never_fails_for_stalling(
    store: Client, record: str
) -> None:
    put(store, "a", "active", stc=5, rjk="nightly")
    if record == "hash":
        store.call("HSET", Q.scheduler("nightly"), "every", "1000")
    elif record == "zset":
        store.call("ZADD", Q("repeat"), 1, "nightly")
    retry_stalled(store, Q, {"a": ""}, max_stalled=1)
    assert ("defa" in job(store, "a")) == (record == "none")
    assert job(store, "a")["stc"] == "6"


def test_many_jobs_in_chunks(store: Client) -> None:
    ids = [put(store, str(n), "active") for n in range(250)]
    put(store, "held", "active", lock="x:1")
    answers = retry_stalled(store, Q, dict.fromkeys([*ids, "held"], ""))
    assert answers == {**dict.fromkeys(ids, "retried"), "held": "locked"}
    assert row(store, "active") == ["held"]
    # The first named runs first: it is at the tail.
    assert row(store, "wait") == ids[::-1]
    assert exponents(store) == []


def test_only_one_entry_of_a_doubled_id_moves(store: Client) -> None:
    put(store, "a", "active")
    store.call("LPUSH", Q("active"), "a")
    retry_stalled(store, Q, {"a": ""})
    assert row(store, "active") == ["a"]
    assert row(store, "wait") == ["a"]


# Failed jobs


def put_failed(store: Client, job_id: str, reason: str = "boom", **fields: object) -> str:
    times = {"finishedOn": 1_700_000_009_000, "processedOn": 1_700_000_008_000}
    return put(
        store, job_id, "failed", score=1_700_000_009_000, failedReason=reason, **times, **fields
    )


def test_a_failed_job_runs_again(store: Client) -> None:
    put(store, "w")
    put_failed(store, "a", atm=3, ats=3, stc=2, stacktrace='["boom"]', defa=STALLED_TOO_OFTEN)
    assert retry_failed(store, Q, ["a"]) == {"a": "retried"}
    assert scores(store, "failed") == {}
    assert row(store, "wait") == ["w", "a"]
    fields = job(store, "a")
    assert not {"finishedOn", "processedOn", "failedReason", "stc", "defa"} & set(fields)
    # Attempts stay: a job that used them all gets exactly one more run.
    assert (fields["atm"], fields["ats"], fields["stacktrace"]) == ("3", "3", '["boom"]')
    assert events(store) == [{"event": "waiting", "jobId": "a", "prev": "failed"}]
    assert scores(store, "marker") == {"0": "0"}
    assert exponents(store) == []


def test_only_jobs_that_failed_for_one_reason(store: Client) -> None:
    put_failed(store, "a", STALLED_TOO_OFTEN)
    put_failed(store, "b", "boom")
    answers = retry_failed(store, Q, ["a", "b"], only_reason=STALLED_TOO_OFTEN)
    assert answers == {"a": "retried", "b": "inactive"}
    assert list(scores(store, "failed")) == ["b"]
    assert job(store, "b")["failedReason"] == "boom"


def test_jobs_that_are_not_failed_stay_where_they_are(store: Client) -> None:
    put(store, "w")
    put(store, "act", "active", lock="t:1")
    store.call("ZADD", Q("failed"), 1, "ghost")
    answers = retry_failed(store, Q, ["w", "act", "ghost", "never"])
    assert answers == {
        "w": "inactive",
        "act": "inactive",
        "ghost": "missing",
        "never": "missing",
    }
    assert row(store, "wait") == ["w"]
    assert row(store, "active") == ["act"]
    assert events(store) == []


def test_a_failed_prioritised_job_keeps_its_priority(store: Client) -> None:
    put_failed(store, "a", priority=7)
    retry_failed(store, Q, ["a"])
    assert row(store, "wait") == []
    assert scores(store, "prioritized") == {"a": str(7 * CLASS)}


@pytest.mark.parametrize("kind", ["unsuccessful", "failed", "neither"])
def test_a_child_counts_as_unfinished_again(store: Client, kind: str) -> None:
    parent, child = Q("parent"), Q("a")
    put(store, "parent", "waiting-children", score=1)
    put_failed(store, "a", parentKey=parent)
    if kind == "unsuccessful":
        store.call("ZADD", f"{parent}:unsuccessful", 1, child)
    elif kind == "failed":
        store.call("HSET", f"{parent}:failed", child, "boom")
    retry_failed(store, Q, ["a"])
    expected = [] if kind == "neither" else [child]
    assert store.call("SMEMBERS", f"{parent}:dependencies") == expected
    assert store.call("EXISTS", f"{parent}:unsuccessful", f"{parent}:failed") == 0


def test_a_child_of_a_vanished_parent_writes_nothing_about_it(store: Client) -> None:
    put_failed(store, "a", parentKey=Q("gone"))
    store.call("ZADD", f"{Q('gone')}:unsuccessful", 1, Q("a"))
    retry_failed(store, Q, ["a"])
    assert store.call("EXISTS", f"{Q('gone')}:dependencies") == 0


def test_failed_jobs_run_in_the_order_in_which_they_are_named(store: Client) -> None:
    put(store, "w")
    ids = [put_failed(store, str(n)) for n in range(103)]
    assert list(retry_failed(store, Q, ids)) == ids
    assert row(store, "wait") == ["w", *ids[::-1]]


def test_failed_jobs_while_paused(store: Client) -> None:
    put(store, "p", "paused")
    put_failed(store, "a")
    store.call("HSET", Q("meta"), "paused", "1")
    retry_failed(store, Q, ["a"])
    assert row(store, "paused") == ["p", "a"]
    assert scores(store, "marker") == {}
