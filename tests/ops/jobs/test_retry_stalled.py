"""Which stalled jobs go back, which are a risk, and which locks are worth waiting for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from qctl.config.prefixes import Prefixes
from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import NotFoundError, RefusedError
from qctl.ops.jobs import retry_stalled as stalled
from qctl.ops.jobs.retry_stalled import Skipped, await_locks, carry_out, plan_retry
from qctl.wire.jobs import STALLED_TOO_OFTEN
from qctl.wire.read.clients import client_name
from tests.labs.build import Q, job, put, row


@pytest.fixture
def connect_worker(redis_url: str, client: Client) -> Iterator[Callable[..., None]]:
    """Connects clients with a worker's name to the real server."""
    with contextlib.ExitStack() as workers:

        def start(queue: str = "q", worker: str | None = None) -> None:
            redis = workers.enter_context(contextlib.closing(connect(redis_url)[1]))
            redis.call("CLIENT", "SETNAME", client_name("bull", queue, worker))

        yield start


def test_without_a_worker_there_is_no_risk(client: Client) -> None:
    put(client, "1", "active")
    put(client, "2", "active", lock="t")
    plan = plan_retry(client, Prefixes(), ["q"])
    (queue,) = plan.queues
    assert [j.id for j in queue.stalled] == ["1"]
    assert [j.id for j in queue.waiting_for] == ["2"]
    assert queue.live_workers == 0
    assert plan.risky == ()


def test_a_live_worker_is_a_risk(client: Client, connect_worker: Callable[..., None]) -> None:
    put(client, "1", "active")
    connect_worker("other")
    assert plan_retry(client, Prefixes(), ["q"]).risky == ()
    connect_worker("q")
    (queue,) = plan_retry(client, Prefixes(), ["q"]).risky
    assert queue.live_workers == 1


def test_a_live_worker_without_stalled_jobs_is_none(
    client: Client, connect_worker: Callable[..., None]
) -> None:
    put(client, "1", "active", lock="t")
    connect_worker("q")
    plan = plan_retry(client, Prefixes(), ["q"])
    assert plan.risky == ()
    # It may be this worker's job: nothing says otherwise.
    assert plan.queues[0].waiting_for == ()


def test_a_named_job_whose_worker_is_not_connected(
    client: Client, connect_worker: Callable[..., None]
) -> None:
    put(client, "1", "active", lock="t", pb="gone")
    put(client, "2", "active", lock="t", pb="here")
    put(client, "3", "active", lock="t")
    connect_worker("q", "here")
    (queue,) = plan_retry(client, Prefixes(), ["q"]).queues
    assert [j.id for j in queue.waiting_for] == ["1"]
    # A nameless worker may be the one.
    connect_worker("q")
    assert plan_retry(client, Prefixes(), ["q"]).queues[0].waiting_for == ()


def test_what_cannot_be_put_back_is_skipped_with_a_reason(store: Client) -> None:
    for job_id in ("good", "taken", "left", "ghost"):
        put(store, job_id, "active")
    plan = plan_retry(store, Prefixes(), ["q"])
    store.call("SET", Q.lock("taken"), "t")
    store.call("LREM", Q("active"), 1, "left")
    store.call("DEL", Q("ghost"))
    (report,) = carry_out(store, plan).queues
    assert (report.name, report.stalled, report.retried) == ("q", 4, ("good",))
    reasons = {skipped.id: skipped.reason for skipped in report.skipped}
    assert set(reasons) == {"taken", "left", "ghost"}
    assert "locked it" in reasons["taken"]
    assert "left its state" in reasons["left"]
    assert "gone" in reasons["ghost"]
    assert row(store, "wait") == ["good"]
    assert sorted(row(store, "active")) == ["ghost", "taken"]


def test_a_dry_run_says_the_same_and_writes_nothing(store: Client) -> None:
    put(store, "good", "active")
    store.call("LPUSH", Q("active"), "ghost")
    put(store, "old", "failed", failedReason=STALLED_TOO_OFTEN)
    plan = plan_retry(store, Prefixes(), ["q"], failed=True)
    dry = carry_out(store, plan, dry_run=True)
    assert sorted(row(store, "active")) == ["ghost", "good"]
    assert dry.queues == carry_out(store, plan).queues
    (report,) = dry.queues
    assert (sorted(report.retried), report.failed) == (["good", "old"], 1)
    assert report.skipped == (Skipped("ghost", stalled._SKIPPED["missing"]),)


def test_stalls_are_forgotten_or_counted(store: Client) -> None:
    put(store, "a", "active", stc=1)
    carry_out(store, plan_retry(store, Prefixes(), ["q"]))
    assert "stc" not in job(store, "a")

    put(store, "b", "active")
    put(store, "c", "active", stc=1)
    carry_out(store, plan_retry(store, Prefixes(), ["q"]), max_stalled=1)
    assert job(store, "b")["stc"] == "1"
    assert "defa" not in job(store, "b")
    assert job(store, "c")["stc"] == "2"
    assert job(store, "c")["defa"] == STALLED_TOO_OFTEN


def test_only_failures_for_stalling_are_taken_from_failed(store: Client) -> None:
    put(store, "1", "failed", score=1, failedReason=STALLED_TOO_OFTEN, stc=2)
    put(store, "2", "failed", score=2, failedReason="no such user")
    assert plan_retry(store, Prefixes(), ["q"]).queues[0].failed_ids == ()
    plan = plan_retry(store, Prefixes(), ["q"], failed=True)
    assert plan.queues[0].failed_ids == ("1",)
    carry_out(store, plan)
    assert row(store, "wait") == ["1"]
    assert {"stc", "failedReason"}.isdisjoint(job(store, "1"))
    assert store.call("ZRANGE", Q("failed"), 0, -1) == ["2"]


def test_all_queues_when_none_is_named(store: Client) -> None:
    other = type(Q)("bull", "other")
    put(store, "1", "active")
    put(store, "2", "active", keys=other)
    report = carry_out(store, plan_retry(store, Prefixes(), []))
    assert {queue.name: queue.retried for queue in report.queues} == {"q": ("1",), "other": ("2",)}


def test_a_queue_that_does_not_exist_or_is_bulls(store: Client) -> None:
    put(store, "1")
    with pytest.raises(NotFoundError):
        plan_retry(store, Prefixes(), ["nosuch"])
    store.call("SET", "bull:old:id", "7")
    store.call("LPUSH", "bull:old:active", "7")
    with pytest.raises(RefusedError, match="Bull 3 or 4"):
        plan_retry(store, Prefixes(), ["old"])
    # Among all queues it is passed over.
    assert [queue.keys.name for queue in plan_retry(store, Prefixes(), []).queues] == ["q"]


def test_locks_are_waited_for_until_they_run_out_or_are_renewed(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalled, "POLL_S", 0.01)
    for job_id in ("out", "renewed", "done"):
        put(client, job_id, "active", lock="t")
        client.call("PEXPIRE", Q.lock(job_id), 20_000)
    plan = plan_retry(client, Prefixes(), ["q"])
    pending = await_locks(client, plan)
    assert {j.id for j in next(pending)} == {"out", "renewed", "done"}
    client.call("DEL", Q.lock("out"))
    assert {j.id for j in next(pending)} == {"renewed", "done"}
    client.call("PEXPIRE", Q.lock("renewed"), 40_000)
    assert {j.id for j in next(pending)} == {"done"}
    client.call("LREM", Q("active"), 1, "done")
    assert list(pending) == []


def test_a_wish_to_stop_ends_the_wait(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalled, "POLL_S", 0.01)
    put(client, "1", "active", lock="t")
    asked = iter([False, True])
    plan = plan_retry(client, Prefixes(), ["q"])
    assert len(list(await_locks(client, plan, lambda: next(asked)))) == 1
