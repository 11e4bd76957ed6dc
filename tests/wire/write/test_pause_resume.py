"""The pause and resume transitions (wire format 5.20, 10.2)."""

from __future__ import annotations

from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.errors import ReplyError
from qctl.wire import scripts
from qctl.wire.notes import parse_holder
from qctl.wire.write import pausing
from qctl.wire.write.pausing import MERGE_CHUNK, pause, resume
from tests.labs.build import CLASS, Q, events, exponents, holder, is_paused, put, row, scores
from tests.labs.servers import limited_user


def note(client: Client) -> Any:
    return parse_holder(client.call("GET", Q.pause_note))


def set_version(client: Client, version: str | None) -> None:
    """Of the last Queue object; None for a queue that no Queue object was ever made for."""
    if version is None:
        client.call("HDEL", Q("meta"), "version")
    else:
        client.call("HSET", Q("meta"), "version", version)


def test_pause_of_a_bullmq_6_queue_sets_the_flag_and_leaves_the_lists(store: Client) -> None:
    put(store, "a")
    put(store, "b", "prioritized", score=CLASS)
    store.call("ZADD", Q("marker"), 0, "0")
    outcome = pause(store, Q, holder("me"))
    assert outcome.changed
    assert is_paused(store)
    assert row(store, "wait") == ["a"]
    assert row(store, "paused") == []
    assert scores(store, "marker") == {}
    assert note(store) == holder("me")
    assert events(store) == [{"event": "paused"}]
    assert store.call("XREVRANGE", Q("events"), "+", "-", "COUNT", 1)[0][0] == outcome.event_id


@pytest.mark.parametrize("version", ["bullmq:5.81.5", "bullmq:4.18.2", "bullmq-pro:7.0.0", None])
def test_pause_of_any_other_queue_moves_ready_jobs_to_the_paused_list(
    store: Client, version: str | None
) -> None:
    for job_id in ("a", "b"):
        put(store, job_id)
    put(store, "c", "prioritized", score=CLASS)
    set_version(store, version)
    assert pause(store, Q, holder("me")).changed
    assert (row(store, "wait"), row(store, "paused")) == ([], ["b", "a"])
    assert list(scores(store, "prioritized")) == ["c"]
    assert is_paused(store)
    assert resume(store, Q).moved == 2
    assert (row(store, "wait"), row(store, "paused")) == (["b", "a"], [])


@pytest.mark.parametrize("version", ["bullmq:6.7.0", "bullmq:5.81.5"])
@pytest.mark.parametrize("in_wait", [3, MERGE_CHUNK + 3])
@pytest.mark.parametrize("in_paused", [3, 2 * MERGE_CHUNK + 3])
def test_pause_merges_what_is_in_both_lists(
    store: Client, version: str, in_wait: int, in_paused: int
) -> None:
    waiting = push(store, "wait", in_wait)
    stranded = push(store, "paused", in_paused)
    set_version(store, version)
    assert pause(store, Q, holder("me")).changed
    assert (row(store, "wait"), row(store, "paused")) == ([], [*waiting, *stranded])
    assert events(store) == [{"event": "paused"}]


def push(client: Client, name: str, count: int) -> list[str]:
    """Ids in a list, head first."""
    ids = [f"{name}{n}" for n in range(count)]
    for start in range(0, count, 500):
        client.call("RPUSH", Q(name), *ids[start : start + 500])
    return ids


@pytest.mark.parametrize("was_paused", [False, True])
def test_a_pause_that_dies_half_way_has_lost_nothing_and_says_whose_it_is(
    store: Client, monkeypatch: pytest.MonkeyPatch, was_paused: bool
) -> None:
    ids = push(store, "wait", 2 * MERGE_CHUNK) + push(store, "paused", 2 * MERGE_CHUNK)
    if was_paused:
        store.call("HSET", Q("meta"), "paused", "1")
    with monkeypatch.context() as patch:
        die_on_call(2, patch)
        with pytest.raises(KeyboardInterrupt):
            pause(store, Q, holder("me"))
    assert is_paused(store)
    assert note(store) == (None if was_paused else holder("me"))
    assert row(store, "wait") + row(store, "paused") == ids
    # Whoever pauses it again ends the work.
    assert pause(store, Q, holder("me")).changed is not was_paused
    assert row(store, "paused") == ids
    resume(store, Q)
    assert row(store, "wait") == ids


def die_on_call(number: int, patch: pytest.MonkeyPatch) -> None:
    real = scripts.run
    calls = []

    def run(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == number:
            raise KeyboardInterrupt
        return real(*args)

    patch.setattr(pausing.scripts, "run", run)


def test_a_pause_that_is_sent_twice_is_one(store: Client) -> None:
    put(store, "a")
    first = pause(store, Q, holder("me"))
    again = pause(store, Q, holder("me"))
    assert (again.changed, again.event_id) == (True, first.event_id)
    assert events(store) == [{"event": "paused"}]
    assert resume(store, Q, owner="me").changed


def test_a_pause_that_fails_half_way_says_whose_it_is(client: Client, redis_url: str) -> None:
    put(client, "a")
    set_version(client, "bullmq:5.81.5")
    rights = ("~*", "+@all", "-xadd")
    with limited_user(client, redis_url, *rights) as (_, fewer), pytest.raises(ReplyError):
        pause(fewer, Q, holder("me"))
    assert is_paused(client)
    assert resume(client, Q, owner="me").changed
    assert row(client, "wait") == ["a"]


def test_a_paused_queue_that_is_paused_again_has_no_job_left_in_wait(store: Client) -> None:
    put(store, "a", "paused")
    put(store, "b", "wait")
    store.call("HSET", Q("meta"), "paused", "1")
    assert not pause(store, Q, holder("me")).changed
    assert (row(store, "wait"), row(store, "paused")) == ([], ["b", "a"])
    assert note(store) is None


# Kept paused, although somebody resumes it


@pytest.mark.parametrize("version", ["bullmq:6.7.0", "bullmq:5.81.5"])
def test_a_queue_that_bullmq_resumed_is_paused_again(store: Client, version: str) -> None:
    put(store, "a")
    set_version(store, version)
    first = pause(store, Q, holder("me"))
    assert pause(store, Q, holder("me"), "again") == first
    resume_as_bullmq(store)
    held = pause(store, Q, holder("me"), "again")
    assert held.changed
    assert held.event_id != first.event_id
    assert is_paused(store)
    assert store.call("XREVRANGE", Q("events"), "+", "-", "COUNT", 1)[0][0] == held.event_id
    assert resume(store, Q, owner="me").changed
    assert row(store, "wait") == ["a"]


def resume_as_bullmq(client: Client) -> None:
    """What either line leaves behind after a pause of qctl: the note."""
    if client.call("EXISTS", Q("paused")):
        client.call("RENAME", Q("paused"), Q("wait"))
    client.call("HDEL", Q("meta"), "paused")


def test_a_queue_that_qctl_resumed_is_left_running(store: Client) -> None:
    put(store, "a")
    pause(store, Q, holder("me"))
    resume(store, Q)
    assert pause(store, Q, holder("me"), "again").is_refused
    assert not is_paused(store)


def test_pausing_twice_keeps_the_first_owner(store: Client) -> None:
    put(store, "a")
    pause(store, Q, holder("first"))
    outcome = pause(store, Q, holder("second"))
    assert not outcome.changed
    assert outcome.event_id == ""
    assert note(store) == holder("first")
    assert len(events(store)) == 1


def test_pause_of_somebody_else_gets_no_note(store: Client) -> None:
    store.call("HSET", Q("meta"), "paused", "1")
    assert not pause(store, Q, holder("me")).changed
    assert note(store) is None


def test_resume_undoes_a_pause(store: Client) -> None:
    put(store, "a")
    before = sorted(store.call("KEYS", "*"))
    pause(store, Q, holder("me"))
    outcome = resume(store, Q)
    assert (outcome.changed, outcome.moved, outcome.owned) == (True, 0, True)
    assert not is_paused(store)
    assert note(store) is None
    assert events(store) == [{"event": "paused"}, {"event": "resumed"}]
    assert scores(store, "marker") == {"0": "0"}
    assert sorted(store.call("KEYS", "*")) == sorted([*before, Q("events"), Q("marker")])


def test_only_who_wants_a_queue_paused_or_running_says_so_again(store: Client) -> None:
    put(store, "a")
    # A drain that ends, beside others: its word would be taken for somebody's wish.
    assert not resume(store, Q, owner="me").changed
    assert events(store) == []
    assert not resume(store, Q).changed
    assert events(store) == [{"event": "resumed"}]
    assert pause(store, Q, holder("me"), "claim").changed
    assert not pause(store, Q, holder("you")).changed
    assert not pause(store, Q, holder("you"), "claim").changed
    assert events(store)[1:] == [{"event": "paused"}, {"event": "paused"}]


def test_resume_wakes_for_a_prioritised_job(store: Client) -> None:
    put(store, "a", "prioritized", score=CLASS)
    pause(store, Q, holder("me"))
    resume(store, Q)
    assert scores(store, "marker") == {"0": "0"}


def test_resume_with_only_delayed_jobs_sets_the_alarm(store: Client) -> None:
    due = 1_800_000_001_000
    put(store, "a", "delayed", score=due * 4096 + 1)
    pause(store, Q, holder("me"))
    resume(store, Q)
    marker = scores(store, "marker")
    assert list(marker) == ["1"]
    assert float(marker["1"]) == pytest.approx(due + 1 / 4096, abs=1e-3)


def test_resume_of_an_empty_queue_sets_no_marker(store: Client) -> None:
    store.call("HSET", Q("meta"), "paused", "1")
    assert resume(store, Q).changed
    assert scores(store, "marker") == {}


def test_resume_of_a_full_queue_sets_no_marker(store: Client) -> None:
    put(store, "a")
    put(store, "b", "active", lock="t:0")
    store.call("HSET", Q("meta"), "paused", "1", "concurrency", "1")
    resume(store, Q)
    assert not is_paused(store)
    assert scores(store, "marker") == {}


def test_legacy_paused_jobs_run_next_and_in_order(store: Client) -> None:
    count = 2 * MERGE_CHUNK + 500
    old = [f"old{n}" for n in range(count)]
    for start in range(0, count, 500):
        store.call("RPUSH", Q("paused"), *old[start : start + 500])
    store.call("RPUSH", Q("wait"), "new2", "new1")
    store.call("HSET", Q("meta"), "paused", "1")
    outcome = resume(store, Q)
    assert outcome.moved == count
    assert outcome.changed
    # Head first: new ones, then the old in their own order, so the tail (next) is an old one.
    assert row(store, "wait") == ["new2", "new1", *old]
    assert store.call("EXISTS", Q("paused")) == 0
    assert events(store) == [{"event": "resumed"}]


def test_a_resume_that_dies_half_way_leaves_a_paused_queue(
    store: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause(store, Q, holder("me"))
    ids = push(store, "wait", MERGE_CHUNK + 10) + push(store, "paused", MERGE_CHUNK + 10)
    with monkeypatch.context() as patch:
        die_on_call(2, patch)
        with pytest.raises(KeyboardInterrupt):
            resume(store, Q)
    assert is_paused(store)
    assert note(store) == holder("me")
    assert row(store, "wait") + row(store, "paused") == ids
    assert resume(store, Q).changed
    assert row(store, "wait") == ids
    assert not is_paused(store)


def test_only_the_owner_resumes_when_an_owner_is_given(store: Client) -> None:
    store.call("RPUSH", Q("paused"), "a")
    pause(store, Q, holder("first"))
    outcome = resume(store, Q, owner="second")
    assert (outcome.owned, outcome.changed, outcome.moved) == (False, False, 0)
    assert is_paused(store)
    assert row(store, "paused") == ["a"]
    assert resume(store, Q, owner="first").changed
    assert row(store, "wait") == ["a"]


def test_an_owner_never_resumes_a_pause_without_a_note(store: Client) -> None:
    store.call("HSET", Q("meta"), "paused", "1")
    assert not resume(store, Q, owner="me").owned
    assert is_paused(store)


def test_anybody_may_resume_without_naming_an_owner(store: Client) -> None:
    put(store, "a")
    pause(store, Q, holder("first"))
    assert resume(store, Q).changed
    assert note(store) is None


@pytest.mark.parametrize("prefix", ["bull", "{bull}", "a:b", "x*?[y]"])
def test_nothing_is_written_into_the_queues_own_namespace(store: Client, prefix: str) -> None:
    keys = type(Q)(prefix, "q")
    put(store, "a", keys=keys)
    pause(store, keys, holder("me"))
    own = [key for key in store.call("KEYS", "*") if key.startswith(f"{prefix}:q:")]
    assert sorted(own) == sorted([keys("a"), keys("wait"), keys("meta"), keys("events")])
    assert resume(store, keys, owner="me").changed


def test_event_stream_keeps_the_length_that_the_queue_asks_for(store: Client) -> None:
    store.call("HSET", Q("meta"), "opts.maxLenEvents", "0")
    for _ in range(200):
        pause(store, Q, holder("me"))
        resume(store, Q)
    # Trimming is approximate; without it there would be 400.
    assert store.call("XLEN", Q("events")) <= 200


def test_no_number_in_exponent_form(store: Client) -> None:
    put(store, "a", "delayed", score=1_800_000_001_000 * 4096)
    pause(store, Q, holder("me"))
    resume(store, Q)
    assert exponents(store) == []
