"""The pause and resume transitions (wire format 5.20, 10.2)."""

from __future__ import annotations

from typing import Any

import pytest

from qctl.connect import Client
from qctl.wire import scripts, transitions
from qctl.wire.notes import parse_holder
from qctl.wire.transitions import RESUME_CHUNK, pause, resume
from tests.wire.build import CLASS, Q, events, exponents, holder, is_paused, put, row, scores


def note(client: Client) -> Any:
    return parse_holder(client.call("GET", Q.pause_note))


def test_pause_sets_the_flag_and_leaves_the_lists(store: Client) -> None:
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


def test_resume_of_a_running_queue_tells_nobody(store: Client) -> None:
    put(store, "a")
    assert not resume(store, Q).changed
    assert events(store) == []


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
    count = 2 * RESUME_CHUNK + 500
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
    ids = [str(n) for n in range(RESUME_CHUNK + 10)]
    store.call("RPUSH", Q("paused"), *ids)
    pause(store, Q, holder("me"))
    real = scripts.run
    calls = []

    def die_on_second(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(transitions.scripts, "run", die_on_second)
        with pytest.raises(KeyboardInterrupt):
            resume(store, Q)
    assert is_paused(store)
    assert note(store) == holder("me")
    assert row(store, "wait") + row(store, "paused") == ids
    assert resume(store, Q).moved == 10
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
