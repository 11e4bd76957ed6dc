"""Finished jobs run again, delayed ones now, jobs are deleted (wire format 5.14, 5.16, 5.18)."""

from __future__ import annotations

import pytest

from qctl.connection.address import Client
from qctl.wire import scripts
from qctl.wire.write.pace import Pace
from qctl.wire.write.transitions import promote, remove_jobs, report_cleaned, retry_finished
from qctl.wire.write.walk import start_walk
from tests.labs.build import CLASS, Q, events, exponents, is_paused, job, put, row, scores

DONE = {"finishedOn": 1_700_000_009_000, "processedOn": 1_700_000_008_000}


def failed(store: Client, job_id: str, score: int = 1_700_000_009_000, **fields: object) -> str:
    fields = {"failedReason": "boom", "atm": 3, "ats": 3, "stc": 1, **DONE, **fields}
    return put(store, job_id, "failed", score=score, **fields)


# Again


def test_a_retried_job_waits_for_its_turn(store: Client) -> None:
    put(store, "w")
    failed(store, "a")
    put(store, "b", "completed", score=1, returnvalue="5", **DONE)
    assert retry_finished(store, Q, ["a", "b"]) == {"a": "retried", "b": "retried"}
    assert row(store, "wait") == ["b", "a", "w"]
    assert scores(store, "failed") == scores(store, "completed") == {}
    assert scores(store, "marker") == {"0": "0"}
    fields = job(store, "a")
    assert not {"finishedOn", "processedOn", "failedReason"} & set(fields)
    assert (fields["atm"], fields["ats"], fields["stc"]) == ("3", "3", "1")
    assert "returnvalue" not in job(store, "b")
    assert [event["prev"] for event in events(store)] == ["failed", "completed"]


def test_only_where_it_was_looked_for(store: Client) -> None:
    failed(store, "a")
    assert retry_finished(store, Q, ["a"], source="completed") == {"a": "inactive"}
    assert list(scores(store, "failed")) == ["a"]


def test_attempts_are_forgotten_if_wanted(store: Client) -> None:
    failed(store, "a")
    retry_finished(store, Q, ["a"], forget="attempts")
    assert not {"atm", "ats", "stc"} & set(job(store, "a"))


def test_a_retried_job_goes_behind_those_of_its_priority(store: Client) -> None:
    put(store, "first", "prioritized", score=7 * CLASS + 1, priority=7)
    store.call("SET", Q("pc"), 1)
    failed(store, "a", priority=7)
    retry_finished(store, Q, ["a"])
    assert scores(store, "prioritized") == {"first": str(7 * CLASS + 1), "a": str(7 * CLASS + 2)}
    assert exponents(store) == []


def test_a_completed_child_counts_as_unfinished_again(store: Client) -> None:
    parent = Q("parent")
    put(store, "parent", "waiting-children", score=1)
    put(store, "a", "completed", score=1, parentKey=parent, **DONE)
    store.call("HSET", f"{parent}:processed", Q("a"), "1")
    retry_finished(store, Q, ["a"])
    assert store.call("SMEMBERS", f"{parent}:dependencies") == [Q("a")]
    assert store.call("EXISTS", f"{parent}:processed") == 0


@pytest.mark.parametrize(("place", "rejoins"), [("active", False), ("completed", True)])
def test_a_parent_on_its_way_goes_on_with_what_was_noted(
    store: Client, place: str, rejoins: bool
) -> None:
    parent = Q("parent")
    put(store, "parent", place, **({"finishedOn": 5} if rejoins else {}))
    failed(store, "a", parentKey=parent, parent='{"id":"parent","queueKey":"bull:q"}')
    store.call("HSET", f"{parent}:failed", Q("a"), "boom")
    retry_finished(store, Q, ["a"])
    assert store.call("EXISTS", f"{parent}:dependencies") == rejoins
    assert store.call("EXISTS", f"{parent}:failed") == (not rejoins)


def test_a_deduplication_id_is_the_jobs_own_until_it_ends(store: Client) -> None:
    failed(store, "a", deid="x", opts='{"de":{"id":"x"}}')
    failed(store, "t", deid="y", opts='{"de":{"id":"y","ttl":5000}}')
    failed(store, "b", deid="z", opts='{"de":{"id":"z"}}')
    put(store, "other", deid="z")
    store.call("SET", Q("de:z"), "other")
    answers = retry_finished(store, Q, ["a", "t", "b"])
    assert answers == {"a": "retried", "t": "retried", "b": "duplicate"}
    assert [store.call("GET", Q(f"de:{name}")) for name in "xyz"] == ["a", None, "other"]
    assert list(scores(store, "failed")) == ["b"]
    # The one that has it has ended, or is gone.
    store.call("HSET", Q("other"), "finishedOn", 5)
    assert retry_finished(store, Q, ["b"]) == {"b": "retried"}


# Now


def test_delayed_jobs_are_promoted_in_order(store: Client) -> None:
    put(store, "w")
    put(store, "a", "delayed", score=4096, delay=1000)
    put(store, "b", "delayed", score=8192, delay=2000)
    put(store, "p", "delayed", score=8192, delay=2000, priority=3)
    answers = promote(store, Q, ["a", "b", "p", "w", "never"])
    assert list(answers.values()) == ["promoted"] * 3 + ["inactive", "missing"]
    assert row(store, "wait") == ["b", "a", "w"]
    assert list(scores(store, "prioritized")) == ["p"]
    assert job(store, "a")["delay"] == "0"
    assert [event["prev"] for event in events(store)] == ["delayed"] * 3


def test_promoted_while_bullmq_5_has_paused_the_queue(store: Client) -> None:
    put(store, "x", "paused")
    put(store, "a", "delayed", score=4096)
    store.call("HSET", Q("meta"), "paused", "1")
    promote(store, Q, ["a"])
    assert row(store, "paused") == ["a", "x"]
    assert scores(store, "marker") == {}


# Deleted


@pytest.mark.parametrize(
    "place", ["wait", "paused", "active", "delayed", "prioritized", "completed", "failed"]
)
def test_a_job_is_deleted_wherever_it_is(store: Client, place: str) -> None:
    put(store, "a", place)
    put(store, "b", place)
    store.call("RPUSH", Q.logs("a"), "line")
    store.call("SADD", Q("stalled"), "a")
    assert remove_jobs(store, Q, ["a"]) == {"a": "removed"}
    left = (
        row(store, place) if place in {"wait", "paused", "active"} else list(scores(store, place))
    )
    assert left == ["b"]
    assert store.call("EXISTS", Q("a"), Q.logs("a"), Q("stalled")) == 0
    assert events(store) == [{"event": "removed", "jobId": "a", "prev": place}]


def test_what_must_not_be_deleted(store: Client) -> None:
    put(store, "locked", "active", lock="t:1")
    put(store, "parent", "waiting-children")
    store.call("SADD", f"{Q('parent')}:dependencies", Q("child"))
    put(store, "repeat:s:1700000000000", "delayed", rjk="s")
    store.call("ZADD", Q("repeat"), 1_700_000_000_000, "s")
    put(store, "elsewhere", "failed")
    ids = ["locked", "parent", "repeat:s:1700000000000", "never", "meta", "wait"]
    assert [*remove_jobs(store, Q, ids).values()] == [
        *("locked", "parent", "scheduled"),
        *("missing", "missing", "missing"),
    ]
    assert remove_jobs(store, Q, ["elsewhere"], state="completed") == {"elsewhere": "inactive"}
    assert store.call("EXISTS", Q("meta"), *(Q(name) for name in ids[:3])) == 4
    assert events(store) == []


def test_an_id_that_is_the_name_of_a_key_takes_nothing_with_it(store: Client) -> None:
    put(store, "a")
    store.call("LPUSH", Q("wait"), "meta", "ghost")
    store.call("HSET", Q("meta"), "paused", "1")
    answers = remove_jobs(store, Q, ["meta", "ghost"], state="waiting")
    assert answers == {"meta": "removed", "ghost": "removed"}
    assert row(store, "wait") == ["a"]
    assert is_paused(store)


def test_dedup_keys_are_freed_and_others_kept(store: Client) -> None:
    put(store, "a", "delayed", deid="x")
    put(store, "b", "delayed", deid="y")
    store.call("SET", Q("de:x"), "a")
    store.call("SET", Q("de:y"), "another")
    remove_jobs(store, Q, ["a", "b"])
    assert store.call("GET", Q("de:x")) is None
    assert store.call("GET", Q("de:y")) == "another"


def test_a_parent_goes_on_without_its_last_child(store: Client) -> None:
    put(store, "parent", "waiting-children")
    for child in ("a", "b"):
        put(store, child, "failed", parentKey=Q("parent"), parent='{"id":"parent"}')
        store.call("SADD", f"{Q('parent')}:dependencies", Q(child))
    remove_jobs(store, Q, ["a"])
    assert row(store, "wait") == []
    remove_jobs(store, Q, ["b"])
    assert row(store, "wait") == ["parent"]


def test_jobs_that_are_deleted_silently_are_reported_in_one_event(store: Client) -> None:
    for job_id in ("a", "b"):
        put(store, job_id, "completed")
    remove_jobs(store, Q, ["a", "b", "c"], state="completed", silent=True)
    assert events(store) == []
    report_cleaned(store, Q, 2)
    assert events(store) == [{"event": "cleaned", "count": "2"}]


# Walks


def walked(store: Client, state: str, size: int, act: object = None) -> list[str]:
    """Ids in the order in which a walk comes by them; those that ``act`` takes are deleted."""
    found = []
    path = start_walk(store, Q, state)
    while entries := path.take(size):
        found += [entry.id for entry in entries]
        taken = [e for e in entries if callable(act) and act(e.id)]
        remove_jobs(store, Q, [e.id for e in taken])
        path.keep([e for e in entries if e not in taken])
    return found


@pytest.mark.parametrize("state", ["waiting", "failed", "delayed", "stalled"])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_walk_comes_by_every_job_once_whatever_it_takes_away(
    store: Client, state: str, size: int
) -> None:
    place = {"waiting": "wait", "stalled": "active"}.get(state, state)
    ids = [put(store, str(n), place, score=n // 4) for n in range(20)]
    found = walked(store, state, size, lambda job_id: int(job_id) % 3 != 0)
    assert sorted(found, key=int) == ids


def test_a_walk_is_not_led_astray_by_what_others_take(store: Client) -> None:
    for n in range(20):
        put(store, f"{n:02}", "failed", score=n)
        put(store, f"w{n:02}")
    path, lists = start_walk(store, Q, "failed"), start_walk(store, Q, "waiting")
    path.keep(path.take(8))
    lists.keep(lists.take(8))
    # Kept jobs beyond the count are trimmed from the oldest on, the last that was passed included.
    store.call("ZREMRANGEBYRANK", Q("failed"), 0, 8)
    put(store, "new", "failed", score=99)
    for _ in range(4):
        store.call("RPOP", Q("wait"))
    put(store, "wnew")
    rest = []
    while entries := path.take(3):
        rest += [entry.id for entry in entries]
        path.keep(entries)
    assert rest == [f"{n:02}" for n in range(9, 20)]
    rest = []
    while entries := lists.take(3):
        rest += [entry.id for entry in entries]
        lists.keep(entries)
    assert set(rest) >= {f"w{n:02}" for n in range(4, 12)}


# A dry run of several calls


def test_a_dry_run_remembers_the_deleted_children_in_the_next_call(client: Client) -> None:
    put(client, "parent", "waiting-children", score=1)
    put(client, "child", parentKey=Q("parent"), parent='{"id":"parent","queueKey":"bull:q"}')
    client.call("SADD", Q("parent:dependencies"), Q("child"))
    # The search for the child takes so long that the parent is left for the next call.
    client.call("LPUSH", Q("wait"), *(f"filler-{number}" for number in range(200_000)))
    args = ["", "removed", "", "", "dry", "", "child", "parent"]
    words, _ = scripts.run_timed(client, "remove_jobs", Q.whole, args)
    assert words[:2] == ["removed", "later"]
    expected = {"child": "removed", "parent": "removed"}
    assert remove_jobs(client, Q, ["child", "parent"], dry_run=True) == expected
    assert remove_jobs(client, Q, ["child", "parent"]) == expected


def test_a_dry_run_remembers_the_owners_of_deduplication_ids(store: Client) -> None:
    for name in ("a", "b"):
        failed(store, name, deid="x", opts='{"de":{"id":"x"}}')
    expected = {"a": "retried", "b": "duplicate"}
    assert retry_finished(store, Q, ["a", "b"], dry_run=True, pace=Pace(1)) == expected
    assert retry_finished(store, Q, ["a", "b"], pace=Pace(1)) == expected
