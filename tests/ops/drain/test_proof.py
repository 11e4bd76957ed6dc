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
    client: Client, where: str, lock: str, expected: str
) -> None:
    put(client, "1", "active", lock="t")
    tracker = begin(client)
    client.call("DEL", Q("active"), Q.lock("1"))
    put(client, "1", where, lock=lock)
    verdict = prove(client, tracker)
    assert results(tracker.ledger) == {"1": expected}
    assert verdict.lost == (expected == "lost")


def test_jobs_that_stay_where_they_are_are_not_lost(client: Client) -> None:
    places = ("wait", "paused", "delayed", "prioritized", "waiting-children")
    for place in places:
        put(client, f"in-{place}", place)
    tracker = begin(client)
    assert summary(prove(client, tracker)) == (0, "all ids", 5)
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
def test_a_job_in_no_state_is_lost_wherever_it_was(client: Client, where: str, was: str) -> None:
    put(client, "1", where)
    put(client, "2")
    tracker = begin(client)
    client.call("LREM" if where in {"wait", "paused"} else "ZREM", Q(where),
               *([0] if where in {"wait", "paused"} else []), "1")  # fmt: skip
    assert summary(prove(client, tracker)) == (1, "all ids", 2)
    assert lost(tracker) == {(Q, "1"): was}


def test_a_job_that_was_added_meanwhile_is_followed_too(client: Client) -> None:
    tracker = begin(client)
    put(client, "1", "")
    emit(client, "added", "1")
    emit(client, "waiting", "1")
    assert summary(prove(client, tracker)) == (1, "all ids", 1)
    assert lost(tracker) == {(Q, "1"): "waiting"}


def test_jobs_whose_end_has_an_event_are_not_looked_for(client: Client) -> None:
    for job_id in "abcd":
        put(client, job_id)
    tracker = begin(client)
    client.call("DEL", Q("wait"), *map(Q, "abcd"))
    for job_id, name in zip("abc", ("completed", "failed", "removed"), strict=True):
        emit(client, name, job_id, prev="active")
    emit(client, "removed", "d", prev="wait")
    verdict = prove(client, tracker)
    assert (verdict.lost, verdict.proof.deleted) == (0, 0)


def test_a_deletion_without_an_event_is_no_loss_and_is_counted(client: Client) -> None:
    for job_id in "abc":
        put(client, job_id)
    put(client, "repeat:s:1", "delayed")
    tracker = begin(client)
    # BullMQ's drain() deletes jobs like this, an upsert the pending iteration of a scheduler.
    client.call("DEL", Q("wait"), Q("delayed"), *map(Q, ["a", "b", "c", "repeat:s:1"]))
    verdict = prove(client, tracker)
    assert (verdict.lost, verdict.proof.deleted) == (0, 3)


def test_what_purge_deletes_is_explained(client: Client) -> None:
    for job_id in "abc":
        put(client, job_id)
    tracker = begin(client)
    remove_jobs(client, Q, ["a", "b"], state="waiting", silent=True)
    report_cleaned(client, Q, 2)
    remove_jobs(client, Q, ["c"])
    assert prove(client, tracker).lost == 0


def test_an_active_job_that_was_cleaned_is_not_lost(client: Client) -> None:
    put(client, "1", "active")
    tracker = begin(client)
    client.call("DEL", Q("active"), Q("1"))
    emit(client, "cleaned", count="1")
    assert prove(client, tracker).lost == 0
    assert results(tracker.ledger) == {"1": "removed"}


def test_a_job_that_was_put_back_and_is_nowhere_is_lost(client: Client) -> None:
    put(client, "1", "active")
    tracker = begin(client)
    client.call("DEL", Q("active"))
    emit(client, "waiting", "1", prev="active")
    tracker.ledger.note_recovered([(Q, "1")])
    assert prove(client, tracker).lost == 1
    assert lost(tracker) == {(Q, "1"): "waiting"}


def test_a_job_that_moves_while_it_is_looked_for_is_not_lost(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, "1")
    tracker = begin(client)
    look = proof.in_no_state

    def look_while_it_moves(client: Client, jobs: Any) -> dict[JobKey, str]:
        # Seen in neither place: it left the one before that was read, and came to the other after.
        client.call("DEL", Q("wait"))
        found = look(client, jobs)
        put(client, "1")
        emit(client, "waiting", "1", prev="active")
        return found

    monkeypatch.setattr(proof, "in_no_state", look_while_it_moves)
    assert prove(client, tracker).lost == 0


def test_each_queue_is_looked_through(client: Client) -> None:
    put(client, "1")
    put(client, "1", keys=R)
    tracker = begin(client, Q, R)
    client.call("DEL", R("wait"))
    assert prove(client, tracker).lost == 1
    assert lost(tracker) == {(R, "1"): "waiting"}


# Large queues


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue is large from 11 jobs on."""
    monkeypatch.setattr(proof, "MAX_IDS", 10)


@pytest.mark.usefixtures("small")
def test_a_large_queue_is_proved_by_counts_and_a_sample(client: Client) -> None:
    for number in range(30):
        put(client, str(number))
    put(client, "d", "delayed")
    tracker = begin(client)
    # What happens to one whose id was not taken, too, is accounted for.
    for job_id in ("29", "0"):
        client.call("LREM", Q("wait"), 0, job_id)
        client.call("DEL", Q(job_id))
        emit(client, "completed", job_id, prev="active")
    put(client, "new")
    emit(client, "added", "new")
    emit(client, "waiting", "new")
    put(client, "f")
    emit(client, "waiting", "f", prev="failed")
    verdict = prove(client, tracker)
    assert (verdict.lost, verdict.proof.why) == (0, "")
    assert verdict.proof.checked.startswith("counts and a sample of ")


@pytest.mark.usefixtures("small")
def test_a_large_list_that_is_destroyed_is_lost(client: Client) -> None:
    for number in range(30):
        put(client, str(number))
    tracker = begin(client)
    client.call("DEL", Q("wait"))
    # All of them, though only some can be named.
    assert prove(client, tracker).lost == 30
    assert len(lost(tracker)) == 10


@pytest.mark.usefixtures("small")
def test_where_others_were_deleted_only_those_that_were_seen_are_lost(client: Client) -> None:
    for number in range(30):
        put(client, str(number))
    tracker = begin(client)
    client.call("DEL", Q("wait"), Q("0"))
    verdict = prove(client, tracker)
    assert (verdict.lost, verdict.proof.why) == (9, "q has 30 jobs fewer than its events explain")


@pytest.mark.usefixtures("small")
def test_a_loss_outside_the_sample_makes_the_answer_unknown(client: Client) -> None:
    for number in range(30):
        put(client, str(number))
    tracker = begin(client)
    client.call("LREM", Q("wait"), 0, "29")
    verdict = prove(client, tracker)
    assert verdict.lost is None
    assert verdict.proof.why == "q has 1 job fewer than its events explain"


@pytest.mark.usefixtures("small")
def test_a_lost_job_that_is_put_back_does_not_stand_in_for_another(client: Client) -> None:
    for number in range(30):
        put(client, str(number))
    later = {"delay": 600_000, "timestamp": round(time.time() * 1000)}
    put(client, "before", "")
    put(client, "delayed before", "", **later)
    tracker = begin(client)
    # Lost and put back during the drain: it was counted, and is once more.
    client.call("LREM", Q("wait"), 0, "0")
    ids = ["before", "delayed before", "0"]
    assert retry_finished(client, Q, ids) == dict.fromkeys(ids, "retried")
    assert prove(client, tracker).lost == 0
    client.call("LREM", Q("wait"), 0, "28")
    client.call("LREM", Q("wait"), 0, "29")
    queue = tracker.inventory.queues[Q]
    queue.end = read_census(client, Q)
    assert queue.missing == 2


@pytest.mark.usefixtures("small")
def test_iterations_that_replace_others_are_accounted_for(client: Client) -> None:
    for number in range(30):
        put(client, str(number))
    put(client, "repeat:s:1", "delayed")
    client.call("ZADD", Q("repeat"), 1, "s")
    tracker = begin(client)
    for number in range(2, 5):
        # That an earlier one runs once more does not make the present one due.
        emit(client, "waiting", "repeat:s:0", prev="failed")
        emit(client, "active", "repeat:s:0", prev="waiting")
        emit(client, "completed", "repeat:s:0", prev="active")
        client.call("DEL", Q("delayed"), Q(f"repeat:s:{number - 1}"))
        put(client, f"repeat:s:{number}", "delayed")
        emit(client, "added", f"repeat:s:{number}")
    assert prove(client, tracker).lost == 0
    queue = tracker.inventory.queues[Q]
    assert (queue.missing, queue.replaced) == (3, 3)


# Events that are missing


def cut_off(client: Client, keys: QueueKeys = Q) -> None:
    """What a queue with a small ``maxLen`` does while nobody reads."""
    emit(client, "progress", keys=keys)
    client.call("XTRIM", keys("events"), "MAXLEN", 1)


def test_without_its_events_the_state_of_a_job_decides(client: Client) -> None:
    for job_id in ("kept", "removed", "stray"):
        put(client, job_id, "active", lock="t")
    put(client, "waits")
    tracker = begin(client)
    client.call("DEL", Q("active"), Q("removed"))
    put(client, "kept", "completed")
    emit(client, "completed", "kept", prev="active")
    emit(client, "completed", "removed", prev="active")
    cut_off(client)
    verdict = prove(client, tracker)
    # One that is there and in no state is lost whatever the events were.
    assert results(tracker.ledger) == {"kept": "completed", "removed": "unknown", "stray": "lost"}
    assert (verdict.lost, verdict.proof.events_missed) == (1, ("q",))
    assert tracker.ledger.idle_s(9000) is None


def test_nothing_lost_is_not_said_when_events_are_missing(client: Client) -> None:
    put(client, "1")
    tracker = begin(client)
    cut_off(client)
    verdict = prove(client, tracker)
    assert (verdict.lost, verdict.proof.checked) == (None, "a sample of 1 job")
    assert verdict.proof.why.startswith("events of q are missing: they were cut off")


def test_a_stream_that_was_deleted_is_a_gap(client: Client) -> None:
    put(client, "1")
    tracker = begin(client)
    client.call("DEL", Q("events"), Q("wait"), Q("1"))
    assert prove(client, tracker).lost is None


def test_a_stream_that_keeps_its_events_has_no_gap(client: Client) -> None:
    tracker = begin(client)
    for _ in range(3):
        emit(client, "progress")
        tracker.catch_up()
        client.call("XTRIM", Q("events"), "MAXLEN", 1)
    assert prove(client, tracker).lost == 0
    assert tracker.missed == set()


def test_queues_that_were_never_read_are_unknown(client: Client) -> None:
    tracker = begin(client)
    tracker.queues = (Q, R)
    verdict = prove(client, tracker)
    assert (verdict.lost, verdict.proof.why) == (None, "r was not reached")
    tracker.cursors[R] = "0-0"
    assert prove(client, tracker).proof.why == "the jobs of r could not be counted"


# Resumes by others


def test_a_resume_by_somebody_else_is_noticed_and_ours_is_not(client: Client) -> None:
    tracker = begin(client)
    emit(client, "resumed")
    tracker.pauses.own_resume_ids.add(last_event_id(client, Q))
    assert prove(client, tracker).proof.resumed_by_others == ()
    emit(client, "resumed")
    assert prove(client, tracker).proof.resumed_by_others == ("q",)


def test_a_resume_before_the_jobs_were_counted_makes_the_answer_unknown(client: Client) -> None:
    put(client, "1")

    def resume() -> None:
        client.call("DEL", Q("wait"))
        emit(client, "resumed")

    verdict = prove(client, begin(client, meanwhile=resume))
    assert (verdict.lost, verdict.proof.resumed_by_others) == (None, ("q",))
    assert verdict.proof.why == "q was resumed by somebody else before its jobs were counted"


def test_a_library_that_keeps_jobs_elsewhere_has_not_lost_them(client: Client) -> None:
    for job_id in ("1", "2"):
        put(client, job_id, "active" if job_id == "1" else "wait")
    client.call("HSET", Q("meta"), "version", "bullmq-pro:7.0.0")
    tracker = begin(client)
    # Into a group, which is a list of its own.
    client.call("DEL", Q("wait"), Q("active"))
    client.call("RPUSH", Q("groups:a"), "2", "1")
    verdict = prove(client, tracker)
    assert verdict.lost is None
    assert verdict.proof.why.startswith("q is a queue of bullmq-pro, which may keep jobs")
    assert results(tracker.ledger) == {"1": "unknown"}
