"""The proof at the end of a drain: where the jobs are that events do not account for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.ops.drain import proof
from qctl.ops.drain.proof import Verdict, prove, take_inventory
from qctl.ops.drain.tracker import Tracker
from qctl.wire.events import last_event_id
from qctl.wire.keys import JobKey, QueueKeys
from qctl.wire.read.active import read_active
from qctl.wire.read.census import read_census
from qctl.wire.write.transitions import remove_jobs, report_cleaned, retry_finished
from tests.labs.build import Q, put
from tests.labs.drain_context import tracker_of
from tests.labs.drain_in_process import results

R = QueueKeys("bull", "r")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "READ_AGAIN_S", 0.001)


def emit(client: Client, name: str, job_id: str = "", keys: QueueKeys = Q, **fields: str) -> None:
    words = [word for item in fields.items() for word in item]
    named = ["jobId", job_id] if job_id else []
    client.call("XADD", keys("events"), "*", "event", name, *named, *words)


def begin(
    client: Client, *queues: QueueKeys, meanwhile: Callable[[], object] = lambda: None
) -> Tracker:
    """A drain that has just paused these queues.

    Args:
        meanwhile: what happens before their jobs are counted.
    """
    tracker = tracker_of(client, *(queues or (Q,)))
    for keys in tracker.queues:
        emit(client, "paused", keys=keys)
        tracker.cursors[keys] = last_event_id(client, keys)
        tracker.pauses.paused(keys, tracker.cursors[keys])
        meanwhile()
        take_inventory(client, tracker, keys)
        active = read_active(client, [keys])
        tracker.inventory.begin_active(job.key for job in active)
        tracker.ledger.begin(active, backlog=0, at_ms=1000)
    return tracker


def lost(tracker: Tracker) -> dict[JobKey, str]:
    """The lost jobs, with the states in which they were."""
    return {
        (keys, job.id): job.was
        for keys in tracker.queues
        for job in tracker.ledger.outcomes()
        if job.result == "lost" and job.queue == keys.name
    }


def summary(verdict: Verdict) -> tuple[int | None, str, int]:
    return verdict.lost, verdict.proof.checked, verdict.proof.ids


@pytest.mark.parametrize(
    ("where", "lock", "expected"),
    [
        ("active", "t", "running"),
        ("active", "", "orphaned"),
        ("wait", "", "retried"),
        ("paused", "", "retried"),
        ("delayed", "", "retried"),
        ("prioritized", "", "retried"),
        ("completed", "", "completed"),
        ("failed", "", "failed"),
        ("waiting-children", "", "waiting-children"),
        ("", "", "lost"),
    ],
)
def test_every_state_settles_an_active_job(
    store: Client, where: str, lock: str, expected: str
) -> None:
    put(store, "1", "active", lock="t")
    tracker = begin(store)
    store.call("DEL", Q("active"), Q.lock("1"))
    put(store, "1", where, lock=lock)
    verdict = prove(store, tracker)
    assert results(tracker.ledger) == {"1": expected}
    assert verdict.lost == (expected == "lost")


def test_jobs_that_stay_where_they_are_are_not_lost(store: Client) -> None:
    places = ("wait", "paused", "delayed", "prioritized", "waiting-children")
    for place in places:
        put(store, f"in-{place}", place)
    tracker = begin(store)
    assert summary(prove(store, tracker)) == (0, "all ids", 5)
    assert results(tracker.ledger) == {}


@pytest.mark.parametrize(
    ("where", "was"),
    [
        ("wait", "waiting"),
        ("paused", "waiting"),
        ("delayed", "delayed"),
        ("prioritized", "prioritized"),
        ("waiting-children", "waiting-children"),
    ],
)
def test_a_job_in_no_state_is_lost_wherever_it_was(store: Client, where: str, was: str) -> None:
    put(store, "1", where)
    put(store, "2")
    tracker = begin(store)
    store.call("LREM" if where in {"wait", "paused"} else "ZREM", Q(where),
               *([0] if where in {"wait", "paused"} else []), "1")  # fmt: skip
    assert summary(prove(store, tracker)) == (1, "all ids", 2)
    assert lost(tracker) == {(Q, "1"): was}


def test_a_job_that_was_added_meanwhile_is_followed_too(store: Client) -> None:
    tracker = begin(store)
    put(store, "1", "")
    emit(store, "added", "1")
    emit(store, "waiting", "1")
    assert summary(prove(store, tracker)) == (1, "all ids", 1)
    assert lost(tracker) == {(Q, "1"): "waiting"}


def test_jobs_whose_end_has_an_event_are_not_looked_for(store: Client) -> None:
    for job_id in "abcd":
        put(store, job_id)
    tracker = begin(store)
    store.call("DEL", Q("wait"), *map(Q, "abcd"))
    for job_id, name in zip("abc", ("completed", "failed", "removed"), strict=True):
        emit(store, name, job_id, prev="active")
    emit(store, "removed", "d", prev="wait")
    verdict = prove(store, tracker)
    assert (verdict.lost, verdict.proof.deleted) == (0, 0)


def test_a_deletion_without_an_event_is_no_loss_and_is_counted(store: Client) -> None:
    for job_id in "abc":
        put(store, job_id)
    put(store, "repeat:s:1", "delayed")
    tracker = begin(store)
    # BullMQ's drain() deletes jobs like this, an upsert the pending iteration of a scheduler.
    store.call("DEL", Q("wait"), Q("delayed"), *map(Q, ["a", "b", "c", "repeat:s:1"]))
    verdict = prove(store, tracker)
    assert (verdict.lost, verdict.proof.deleted) == (0, 3)


def test_what_purge_deletes_is_explained(store: Client) -> None:
    for job_id in "abc":
        put(store, job_id)
    tracker = begin(store)
    remove_jobs(store, Q, ["a", "b"], state="waiting", silent=True)
    report_cleaned(store, Q, 2)
    remove_jobs(store, Q, ["c"])
    assert prove(store, tracker).lost == 0


def test_an_active_job_that_was_cleaned_is_not_lost(store: Client) -> None:
    put(store, "1", "active")
    tracker = begin(store)
    store.call("DEL", Q("active"), Q("1"))
    emit(store, "cleaned", count="1")
    assert prove(store, tracker).lost == 0
    assert results(tracker.ledger) == {"1": "removed"}


def test_a_job_that_was_put_back_and_is_nowhere_is_lost(store: Client) -> None:
    put(store, "1", "active")
    tracker = begin(store)
    store.call("DEL", Q("active"))
    emit(store, "waiting", "1", prev="active")
    tracker.ledger.note_recovered([(Q, "1")])
    assert prove(store, tracker).lost == 1
    assert lost(tracker) == {(Q, "1"): "waiting"}


def test_a_job_that_moves_while_it_is_looked_for_is_not_lost(
    store: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "1")
    tracker = begin(store)
    look = proof.in_no_state

    def look_while_it_moves(client: Client, jobs: Any) -> dict[JobKey, str]:
        # Seen in neither place: it left the one before that was read, and came to the other after.
        store.call("DEL", Q("wait"))
        found = look(client, jobs)
        put(store, "1")
        emit(store, "waiting", "1", prev="active")
        return found

    monkeypatch.setattr(proof, "in_no_state", look_while_it_moves)
    assert prove(store, tracker).lost == 0


def test_each_queue_is_looked_through(store: Client) -> None:
    put(store, "1")
    put(store, "1", keys=R)
    tracker = begin(store, Q, R)
    store.call("DEL", R("wait"))
    assert prove(store, tracker).lost == 1
    assert lost(tracker) == {(R, "1"): "waiting"}


# Large queues


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue is large from 11 jobs on."""
    monkeypatch.setattr(proof, "MAX_IDS", 10)


@pytest.mark.usefixtures("small")
def test_a_large_queue_is_proved_by_counts_and_a_sample(store: Client) -> None:
    for number in range(30):
        put(store, str(number))
    put(store, "d", "delayed")
    tracker = begin(store)
    # What happens to one whose id was not taken, too, is accounted for.
    for job_id in ("29", "0"):
        store.call("LREM", Q("wait"), 0, job_id)
        store.call("DEL", Q(job_id))
        emit(store, "completed", job_id, prev="active")
    put(store, "new")
    emit(store, "added", "new")
    emit(store, "waiting", "new")
    put(store, "f")
    emit(store, "waiting", "f", prev="failed")
    verdict = prove(store, tracker)
    assert (verdict.lost, verdict.proof.why) == (0, "")
    assert verdict.proof.checked.startswith("counts and a sample of ")


@pytest.mark.usefixtures("small")
def test_a_large_list_that_is_destroyed_is_lost(store: Client) -> None:
    for number in range(30):
        put(store, str(number))
    tracker = begin(store)
    store.call("DEL", Q("wait"))
    # All of them, though only some can be named.
    assert prove(store, tracker).lost == 30
    assert len(lost(tracker)) == 10


@pytest.mark.usefixtures("small")
def test_where_others_were_deleted_only_those_that_were_seen_are_lost(store: Client) -> None:
    for number in range(30):
        put(store, str(number))
    tracker = begin(store)
    store.call("DEL", Q("wait"), Q("0"))
    verdict = prove(store, tracker)
    assert (verdict.lost, verdict.proof.why) == (9, "q has 30 jobs fewer than its events explain")


@pytest.mark.usefixtures("small")
def test_a_loss_outside_the_sample_makes_the_answer_unknown(store: Client) -> None:
    for number in range(30):
        put(store, str(number))
    tracker = begin(store)
    store.call("LREM", Q("wait"), 0, "29")
    verdict = prove(store, tracker)
    assert verdict.lost is None
    assert verdict.proof.why == "q has 1 job fewer than its events explain"


@pytest.mark.usefixtures("small")
def test_a_lost_job_that_is_put_back_does_not_stand_in_for_another(store: Client) -> None:
    for number in range(30):
        put(store, str(number))
    later = {"delay": 600_000, "timestamp": round(time.time() * 1000)}
    put(store, "before", "")
    put(store, "delayed before", "", **later)
    tracker = begin(store)
    # Lost and put back during the drain: it was counted, and is once more.
    store.call("LREM", Q("wait"), 0, "0")
    ids = ["before", "delayed before", "0"]
    assert retry_finished(store, Q, ids) == dict.fromkeys(ids, "retried")
    assert prove(store, tracker).lost == 0
    store.call("LREM", Q("wait"), 0, "28")
    store.call("LREM", Q("wait"), 0, "29")
    queue = tracker.inventory.queues[Q]
    queue.end = read_census(store, Q)
    assert queue.missing == 2


@pytest.mark.usefixtures("small")
def test_iterations_that_replace_others_are_accounted_for(store: Client) -> None:
    for number in range(30):
        put(store, str(number))
    put(store, "repeat:s:1", "delayed")
    store.call("ZADD", Q("repeat"), 1, "s")
    tracker = begin(store)
    for number in range(2, 5):
        # That an earlier one runs once more does not make the present one due.
        emit(store, "waiting", "repeat:s:0", prev="failed")
        emit(store, "active", "repeat:s:0", prev="waiting")
        emit(store, "completed", "repeat:s:0", prev="active")
        store.call("DEL", Q("delayed"), Q(f"repeat:s:{number - 1}"))
        put(store, f"repeat:s:{number}", "delayed")
        emit(store, "added", f"repeat:s:{number}")
    assert prove(store, tracker).lost == 0
    queue = tracker.inventory.queues[Q]
    assert (queue.missing, queue.replaced) == (3, 3)


# Events that are missing


def cut_off(client: Client, keys: QueueKeys = Q) -> None:
    """What a queue with a small ``maxLen`` does while nobody reads."""
    emit(client, "progress", keys=keys)
    client.call("XTRIM", keys("events"), "MAXLEN", 1)


def test_without_its_events_the_state_of_a_job_decides(store: Client) -> None:
    for job_id in ("kept", "removed", "stray"):
        put(store, job_id, "active", lock="t")
    put(store, "waits")
    tracker = begin(store)
    store.call("DEL", Q("active"), Q("removed"))
    put(store, "kept", "completed")
    emit(store, "completed", "kept", prev="active")
    emit(store, "completed", "removed", prev="active")
    cut_off(store)
    verdict = prove(store, tracker)
    # One that is there and in no state is lost whatever the events were.
    assert results(tracker.ledger) == {"kept": "completed", "removed": "unknown", "stray": "lost"}
    assert (verdict.lost, verdict.proof.events_missed) == (1, ("q",))
    assert tracker.ledger.idle_s(9000) is None


def test_nothing_lost_is_not_said_when_events_are_missing(store: Client) -> None:
    put(store, "1")
    tracker = begin(store)
    cut_off(store)
    verdict = prove(store, tracker)
    assert (verdict.lost, verdict.proof.checked) == (None, "a sample of 1 job")
    assert verdict.proof.why.startswith("events of q are missing: they were cut off")


def test_a_stream_that_was_deleted_is_a_gap(store: Client) -> None:
    put(store, "1")
    tracker = begin(store)
    store.call("DEL", Q("events"), Q("wait"), Q("1"))
    assert prove(store, tracker).lost is None


def test_a_stream_that_keeps_its_events_has_no_gap(store: Client) -> None:
    tracker = begin(store)
    for _ in range(3):
        emit(store, "progress")
        tracker.catch_up()
        store.call("XTRIM", Q("events"), "MAXLEN", 1)
    assert prove(store, tracker).lost == 0
    assert tracker.missed == set()


def test_queues_that_were_never_read_are_unknown(store: Client) -> None:
    tracker = begin(store)
    tracker.queues = (Q, R)
    verdict = prove(store, tracker)
    assert (verdict.lost, verdict.proof.why) == (None, "r was not reached")
    tracker.cursors[R] = "0-0"
    assert prove(store, tracker).proof.why == "the jobs of r could not be counted"


# Resumes by others


def test_a_resume_by_somebody_else_is_noticed_and_ours_is_not(store: Client) -> None:
    tracker = begin(store)
    emit(store, "resumed")
    tracker.pauses.own_resume_ids.add(last_event_id(store, Q))
    assert prove(store, tracker).proof.resumed_by_others == ()
    emit(store, "resumed")
    assert prove(store, tracker).proof.resumed_by_others == ("q",)


def test_a_resume_before_the_jobs_were_counted_makes_the_answer_unknown(store: Client) -> None:
    put(store, "1")

    def resume() -> None:
        store.call("DEL", Q("wait"))
        emit(store, "resumed")

    verdict = prove(store, begin(store, meanwhile=resume))
    assert (verdict.lost, verdict.proof.resumed_by_others) == (None, ("q",))
    assert verdict.proof.why == "q was resumed by somebody else before its jobs were counted"


def test_a_library_that_keeps_jobs_elsewhere_has_not_lost_them(store: Client) -> None:
    for job_id in ("1", "2"):
        put(store, job_id, "active" if job_id == "1" else "wait")
    store.call("HSET", Q("meta"), "version", "bullmq-pro:7.0.0")
    tracker = begin(store)
    # Into a group, which is a list of its own.
    store.call("DEL", Q("wait"), Q("active"))
    store.call("RPUSH", Q("groups:a"), "2", "1")
    verdict = prove(store, tracker)
    assert verdict.lost is None
    assert verdict.proof.why.startswith("q is a queue of bullmq-pro, which may keep jobs")
    assert results(tracker.ledger) == {"1": "unknown"}
