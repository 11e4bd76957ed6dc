"""Waiting: what is seen at a look, what wakes it, and what it never takes for an end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.connection.socket_client import SocketClient
from qctl.errors import ExitStatus, UnreachableError
from qctl.ops.follow import wait as waiting
from qctl.ops.follow.wait import (
    CheckedState,
    Condition,
    JobCondition,
    QueueCondition,
    Waiting,
    WaitReport,
    error_of,
    wait_for,
)
from qctl.ops.jobs.add import add_job
from qctl.wire.events import last_event_id
from qctl.wire.read.clients import client_name
from qctl.wire.read.ending import Ending, read_ending
from qctl.wire.write.adding import NewJob
from tests.labs.build import Q, put
from tests.labs.servers import RedisServer, limited_user, wait_until


def emit(client: Client, event: str, **fields: object) -> None:
    words = [str(word) for pair in fields.items() for word in pair]
    client.call("XADD", Q("events"), "*", "event", event, *words)


def finish(client: Client, job_id: str, state: str = "completed", **fields: object) -> None:
    """What BullMQ's finish does, as far as a wait sees it."""
    client.call("LREM", Q("active"), 0, job_id)
    client.call("DEL", Q.lock(job_id))
    client.call("ZADD", Q(state), 1, job_id)
    if fields:
        client.call("HSET", Q(job_id), *(str(word) for pair in fields.items() for word in pair))
    emit(client, state, jobId=job_id, prev="active", **fields)


def end(target: Condition, **options: Any) -> WaitReport:
    report = [*wait_for(target, **options)][-1]
    assert isinstance(report, WaitReport)
    return report


@contextlib.contextmanager
def a_worker(client: SocketClient) -> Iterator[None]:
    """Somebody who looks like a worker of the queue."""
    with contextlib.closing(connect(client.address.url)[1]) as own:
        own.call("CLIENT", "SETNAME", client_name("bull", "q"))
        yield


@contextlib.contextmanager
def meanwhile(client: SocketClient, action: Callable[[Client], None]) -> Iterator[None]:
    """Does something as soon as the wait blocks on the stream."""

    def run() -> None:
        with contextlib.closing(connect(client.address.url)[1]) as own:
            wait_until(lambda: "blocked_clients:0" not in own.call("INFO", "clients"), "a wait")
            action(own)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()


# A queue at rest


def test_idle_is_nothing_active_and_says_what_is_left(client: Client) -> None:
    put(client, "1", "wait")
    put(client, "2", "delayed")
    put(client, "3", "waiting-children")
    report = end(QueueCondition(client, Q, "idle"))
    assert (report.outcome, error_of(report, "bull")) == ("idle", None)
    assert report.text == "nothing is active; 1 waiting, 1 delayed, 1 waiting for children left"
    put(client, "4", "active", lock="w:0")
    report = end(QueueCondition(client, Q, "idle"), timeout_s=0)
    assert (report.outcome, report.text) == ("timeout", "1 active")
    error = error_of(report, "bull")
    assert error is not None
    assert error.exit_status == ExitStatus.TIMED_OUT


@pytest.mark.parametrize(
    ("place", "alone", "with_delayed"),
    [
        ("wait", "timeout", "timeout"),
        ("paused", "timeout", "timeout"),
        ("prioritized", "timeout", "timeout"),
        ("active", "timeout", "timeout"),
        ("delayed", "empty", "timeout"),
        ("waiting-children", "empty", "timeout"),
        ("completed", "empty", "empty"),
        ("failed", "empty", "empty"),
    ],
)
def test_what_counts_for_empty(client: Client, place: str, alone: str, with_delayed: str) -> None:
    put(client, "1", place, lock="w:0" if place == "active" else "")
    assert end(QueueCondition(client, Q, "empty"), timeout_s=0).outcome == alone
    target = QueueCondition(client, Q, "empty", include_delayed=True)
    assert end(target, timeout_s=0).outcome == with_delayed


def test_the_next_jobs_of_schedulers_do_not_keep_a_queue_from_being_empty(client: Client) -> None:
    client.call("ZADD", Q("repeat"), 9_000_000_000_000, "tick")
    client.call("HSET", Q.scheduler("tick"), "name", "t", "every", 1000, "ic", 1)
    put(client, "repeat:tick:9000000000000", "delayed")
    target = QueueCondition(client, Q, "empty", include_delayed=True)
    assert end(target, timeout_s=0).outcome == "empty"
    put(client, "1", "delayed")
    report = end(target, timeout_s=0)
    assert (report.outcome, report.text) == ("timeout", "1 delayed")


def test_a_queue_that_vanishes_is_not_an_empty_one(client: Client) -> None:
    report = end(QueueCondition(client, Q, "empty"))
    error = error_of(report, "bull")
    assert error is not None
    assert (report.outcome, error.exit_status) == ("gone", ExitStatus.NOT_FOUND)


def test_an_event_wakes_the_wait(client: SocketClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "POLL_S", 60.0)
    monkeypatch.setattr(waiting, "MIN_PAUSE_S", 0.01)
    put(client, "1", "active", lock="w:0")
    with meanwhile(client, lambda own: finish(own, "1")):
        report = end(QueueCondition(client, Q, "idle"), timeout_s=20)
    assert report.outcome == "idle"


def test_what_no_event_tells_is_seen_by_the_slow_look(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "POLL_S", 0.05)
    put(client, "1", "active", lock="w:0")
    steps = wait_for(QueueCondition(client, Q, "idle"), timeout_s=20)
    assert isinstance(next(steps), Waiting)
    client.call("DEL", Q("active"))
    assert isinstance(next(steps), WaitReport)


def test_orphans_that_nobody_takes_up_end_the_wait_with_the_cure(client: Client) -> None:
    put(client, "1", "active")
    report = end(QueueCondition(client, Q, "idle"), grace_s=0)
    error = error_of(report, "bull")
    assert error is not None
    assert (report.outcome, error.exit_status) == ("stuck", ExitStatus.FAILED)
    assert error.hint == "qctl jobs retry-stalled q"
    # For a while it might be a worker that is being restarted.
    assert end(QueueCondition(client, Q, "idle"), timeout_s=0).outcome == "timeout"


def test_orphans_are_waited_for_while_a_worker_is_there(client: SocketClient) -> None:
    put(client, "1", "active")
    with a_worker(client):
        *_, step, _ = wait_for(QueueCondition(client, Q, "idle"), grace_s=0, timeout_s=0.1)
        assert isinstance(step, Waiting)
        # One with skipStalledCheck never does.
        (remark,) = step.remarks
        assert "no stalled check has run" in remark
        assert "`qctl jobs retry-stalled q` puts them back" in remark
        client.call("SET", Q("stalled-check"), 1, "PX", 30_000)
        *_, step, report = wait_for(QueueCondition(client, Q, "idle"), grace_s=0, timeout_s=0.1)
    assert isinstance(step, Waiting)
    assert step.remarks == ("active jobs have lost their worker; other workers will put them back",)
    assert isinstance(report, WaitReport)
    assert report.outcome == "timeout"


def test_orphans_beside_a_running_job_are_waited_for(client: Client) -> None:
    put(client, "1", "active")
    put(client, "2", "active", lock="w:0")
    assert end(QueueCondition(client, Q, "idle"), grace_s=0, timeout_s=0).outcome == "timeout"


def test_who_may_not_list_clients_is_told_that_nobody_knows(
    client: Client, redis_server: RedisServer
) -> None:
    put(client, "1", "active")
    rules = ("~*", "+@read", "+@connection", "-client")
    with limited_user(client, redis_server.url, *rules) as (_, shy):
        step, *_, report = wait_for(QueueCondition(shy, Q, "idle"), grace_s=0, timeout_s=0.3)
    assert isinstance(step, Waiting)
    assert "unknown whether another is connected" in step.remarks[0]
    assert isinstance(report, WaitReport)
    assert report.outcome == "timeout"


def test_what_keeps_a_queue_from_getting_empty_is_said(client: Client) -> None:
    put(client, "1", "wait")
    client.call("HSET", Q("meta"), "paused", 1)
    step, *_ = wait_for(QueueCondition(client, Q, "empty"), timeout_s=0.3)
    assert isinstance(step, Waiting)
    paused, workers = step.remarks
    assert paused == "queue q is paused: waiting jobs run after `qctl resume q`"
    assert workers == "no worker of queue q is connected"


# A job


def job_end(client: Client, job_id: str = "1", **options: Any) -> WaitReport:
    return end(JobCondition(client, Q, job_id), **options)


def test_a_job_that_has_ended(client: Client) -> None:
    put(client, "1", "completed", returnvalue='{"ok":true}', failedReason="of an attempt before")
    report = job_end(client)
    assert (report.outcome, report.returnvalue, report.failed_reason) == (
        *("completed", {"ok": True}),
        None,
    )
    put(client, "2", "failed", failedReason="no")
    report = job_end(client, "2")
    error = error_of(report, "bull")
    assert error is not None
    assert (report.outcome, error.why, error.exit_status) == ("failed", "no", ExitStatus.FAILED)
    assert error.hint == "qctl jobs show q 2"


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ([("completed", {"returnvalue": "7"})], "completed"),
        ([("failed", {"failedReason": "no"})], "failed"),
        ([("removed", {"prev": "wait"})], "removed"),
        ([("completed", {"returnvalue": "7"}), ("removed", {"prev": "completed"})], "completed"),
        ([("removed", {"prev": "failed"})], "failed"),
        ([("added", {}), ("waiting", {})], "missing"),
        ([("completed", {}), ("removed", {"prev": "completed"}), ("removed", {"prev": "wait"})],
         "removed"),
        ([], "missing"),
    ],
)  # fmt: skip
def test_a_job_that_is_gone(
    client: Client, told: list[tuple[str, dict[str, str]]], state: str
) -> None:
    emit(client, "added", jobId="other")
    for event, fields in told:
        emit(client, event, jobId="1", **fields)
    emit(client, "completed", jobId="other", returnvalue="0")
    report = job_end(client)
    assert report.outcome == state
    if told[:1] == [("completed", {"returnvalue": "7"})]:
        assert report.returnvalue == 7
    error = error_of(report, "bull")
    status = ExitStatus.OK if error is None else error.exit_status
    expected = {"completed": ExitStatus.OK, "failed": ExitStatus.FAILED}
    assert status == expected.get(state, ExitStatus.NOT_FOUND)


def test_a_job_is_where_it_is(client: Client) -> None:
    for number, place in enumerate(("wait", "delayed", "prioritized", "waiting-children")):
        put(client, f"j{number}", place)
    put(client, "running", "active", lock="w:0")
    put(client, "orphan", "active")
    states = [read_ending(client, Q, f"j{number}").state for number in range(4)]
    assert states == ["waiting", "delayed", "prioritized", "waiting-children"]
    assert read_ending(client, Q, "running") == Ending(state="active")
    step, *_, report = wait_for(JobCondition(client, Q, "orphan"), timeout_s=0.3)
    assert isinstance(step, Waiting)
    assert "stalled" in step.text
    assert isinstance(report, WaitReport)
    assert report.outcome == "timeout"


def test_the_name_of_another_key_is_no_job(client: Client) -> None:
    put(client, "1", "wait")
    client.call("HSET", Q("repeat:nightly"), "name", "report")
    for name in ("wait", "", "meta", "repeat:nightly"):
        assert job_end(client, name, timeout_s=0).outcome == "missing", name


@pytest.mark.parametrize("state", ["completed", "failed"])
def test_the_end_is_noticed_when_it_comes(
    client: SocketClient, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr(waiting, "POLL_S", 60.0)
    put(client, "1", "active", lock="w:0")
    fields = {"failedReason": "no"} if state == "failed" else {"returnvalue": "1"}

    def finished(own: Client) -> None:
        emit(own, "progress", jobId="1", data="3")
        emit(own, "completed", jobId="2", returnvalue="0")
        finish(own, "1", state, **fields)

    with meanwhile(client, finished):
        report = job_end(client, timeout_s=20)
    assert report.outcome == state
    assert (report.returnvalue, report.failed_reason) == (
        (None, "no") if state == "failed" else (1, None)
    )


def test_a_job_that_is_removed_as_it_completes_has_completed(
    client: SocketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "POLL_S", 60.0)
    put(client, "1", "active", lock="w:0")

    def finished_and_gone(own: Client) -> None:
        own.call("DEL", Q("active"), Q("1"), Q.lock("1"))
        emit(own, "completed", jobId="1", returnvalue='"x"')

    with meanwhile(client, finished_and_gone):
        report = job_end(client, timeout_s=20)
    assert (report.outcome, report.returnvalue) == ("completed", "x")


def test_a_job_that_ends_between_the_cursor_and_the_look(client: Client) -> None:
    put(client, "1", "active", lock="w:0")
    target = JobCondition(client, Q, "1")
    target._cursors[Q] = last_event_id(client, Q)
    client.call("DEL", Q("active"), Q("1"), Q.lock("1"))
    emit(client, "completed", jobId="1", returnvalue="5")
    assert end(target).returnvalue == 5


def test_a_job_that_was_added_is_found(client: Client) -> None:
    put(client, "0", "completed")
    added = add_job(client, "bull", "q", NewJob("a"))
    assert added.id is not None
    assert job_end(client, added.id, timeout_s=0).text == f"job {added.id} is waiting"


# Trouble


class Flaky(Condition):
    """A target that Redis keeps from being seen now and then."""

    keys = Q
    condition = "idle"

    def __init__(self, *looks: CheckedState | None) -> None:
        self._looks = iter(looks)

    def check(self) -> CheckedState:
        seen = next(self._looks)
        if seen is None:
            raise UnreachableError("Redis is away")
        return seen

    def await_event(self, timeout_s: float) -> CheckedState | None:  # noqa: ARG002
        return None


BUSY = CheckedState(outcome=None, text="1 active")
STUCK = CheckedState(outcome=None, text="1 active", stuck="nobody is there")
DONE = CheckedState(outcome="idle", text="at rest")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MIN_PAUSE_S", 0.001)


def test_a_redis_that_goes_away_is_sat_out(quick: None) -> None:
    busy, away, _, report = wait_for(Flaky(BUSY, None, None, DONE))
    assert isinstance(busy, Waiting)
    assert isinstance(away, Waiting)
    assert (busy.text, away.text) == ("1 active", "Redis is away; trying again")
    assert isinstance(report, WaitReport)
    assert report.outcome == "idle"


def test_a_redis_that_is_away_at_the_start_or_at_the_end_of_the_time_is_an_error(
    quick: None,
) -> None:
    with pytest.raises(UnreachableError):
        [*wait_for(Flaky(None))]
    with pytest.raises(UnreachableError):
        [*wait_for(Flaky(BUSY, *[None] * 9999), timeout_s=0.01)]


def test_what_is_hopeless_must_be_so_for_a_while(quick: None) -> None:
    times = iter(float(second) for second in range(1000))
    steps = [
        *wait_for(
            Flaky(STUCK, BUSY, STUCK, None, *[STUCK] * 20), grace_s=4, clock=lambda: next(times)
        )
    ]
    report = steps[-1]
    assert isinstance(report, WaitReport)
    assert (report.outcome, report.text) == ("stuck", "nobody is there")
    # A look in between that finds hope, or finds nothing out, begins the time anew.
    assert 5 < len(steps) < 24
