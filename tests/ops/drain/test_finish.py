"""Jobs whose process was restarted with them in hand, on a queue that others serve as well."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.ops.drain import finish as drain_end
from qctl.ops.drain.finish import DrainEnd, _exit_status
from qctl.ops.drain.proof import Verdict
from qctl.ops.drain.state import DrainState
from qctl.ops.drain.steps import Proof, Recovered
from qctl.wire.read.active import read_active
from tests.labs.build import Q, put


def end_of(client: Client, in_the_way: list[Any]) -> DrainEnd:
    """The end of a drain of ``Q``; nothing but these jobs matters here."""
    plan: Any = SimpleNamespace(queues=(Q,), connections=None, target=None)
    nothing: Any = None
    state = DrainState(
        client, nothing, nothing, plan, nothing, nothing, lambda: False, guard=nothing
    )
    state.in_the_way = in_the_way
    return DrainEnd(state)


def test_a_last_renewal_by_the_old_process_is_no_sign_of_life(client: Client) -> None:
    put(client, "1", "active")
    client.call("SET", Q.lock("1"), "old:1", "PX", 500)
    (job,) = read_active(client, [Q])
    # Before the restart it had less left: its process renewed it once more while it was stopped.
    steps = list(end_of(client, [replace(job, lock_ttl_ms=100)])._await_locks())
    assert steps == [Recovered("q", ("1",))]
    assert client.call("LRANGE", Q("wait"), 0, -1) == ["1"]


def test_a_job_that_left_meanwhile_is_left_alone(client: Client) -> None:
    put(client, "1", "active")
    client.call("SET", Q.lock("1"), "old:1", "PX", 500)
    jobs = read_active(client, [Q])
    client.call("DEL", Q("active"))
    assert list(end_of(client, jobs)._await_locks()) == []
    assert client.call("LLEN", Q("wait")) == 0


def test_a_resume_by_others_that_could_not_be_checked_is_no_success() -> None:
    checked = Verdict(0, Proof(resumed_by_others=("q",)))
    assert _exit_status("restarted", None, checked) == 0
    assert _exit_status("restarted", None, replace(checked, lost=None)) == 1
    assert _exit_status("restarted", None, replace(checked, lost=1)) == 1
    # Mere ignorance is said, and is no sign of a loss.
    assert _exit_status("restarted", None, Verdict(None, Proof())) == 0


def test_jobs_that_are_held_back_are_not_waited_for(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_end, "FIRST_START_S", 0.1)
    put(client, "1", "active", lock="t")
    put(client, "2")

    def notes() -> list[str]:
        end = end_of(client, [])
        monkeypatch.setattr(DrainState, "follow", lambda *_, **__: [])
        end._await_first_start()
        return end._state.notes

    client.call("HSET", Q("meta"), "concurrency", "1")
    assert notes() == []
    client.call("HDEL", Q("meta"), "concurrency")
    assert notes() == ["jobs wait, but none has started within 0 s"]
    # Only the worker knows its limiter's maximum: a possible reason is named, and nothing excused.
    client.call("SET", Q("limiter"), "3", "PX", 60_000)
    (note,) = notes()
    assert "; q may be rate limited for another 1 min: 3 jobs are counted" in note
    client.call("HSET", Q("meta"), "max", "3")
    assert notes() == []
