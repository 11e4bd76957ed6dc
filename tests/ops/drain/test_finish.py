"""Jobs whose process was restarted with them in hand, on a queue that others serve as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from qctl.connection.address import Client
from qctl.ops.drain import finish
from qctl.ops.drain.finish import await_first_start
from qctl.ops.drain.proof import Verdict
from qctl.ops.drain.recover import recover_others
from qctl.ops.drain.report import _exit_status
from qctl.ops.drain.restart import Restarted
from qctl.ops.drain.steps import Proof, Recovered, Step
from qctl.ops.drain.tracker import Tracker
from qctl.wire.read.active import ActiveJob, read_active
from tests.labs.build import Q, put
from tests.labs.drain_context import context_of, tracker_of


def recover(client: Client, in_the_way: Sequence[ActiveJob]) -> list[Step]:
    """Put back jobs of ``Q`` that were interrupted on a queue that others serve as well."""
    context = context_of(client, (Q,))
    restarted = Restarted(in_the_way=tuple(in_the_way))
    return list(recover_others(context, tracker_of(client, Q), restarted, []))


def test_a_last_renewal_by_the_old_process_is_no_sign_of_life(client: Client) -> None:
    put(client, "1", "active")
    client.call("SET", Q.lock("1"), "old:1", "PX", 500)
    (job,) = read_active(client, [Q])
    # Before the restart it had less left: its process renewed it once more while it was stopped.
    assert recover(client, [replace(job, lock_ttl_ms=100)]) == [Recovered("q", ("1",))]
    assert client.call("LRANGE", Q("wait"), 0, -1) == ["1"]


def test_a_job_that_left_meanwhile_is_left_alone(client: Client) -> None:
    put(client, "1", "active")
    client.call("SET", Q.lock("1"), "old:1", "PX", 500)
    jobs = read_active(client, [Q])
    client.call("DEL", Q("active"))
    assert recover(client, jobs) == []
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
    monkeypatch.setattr(finish, "FIRST_START_S", 0.1)
    put(client, "1", "active", lock="t")
    put(client, "2")

    def notes() -> list[str]:
        found: list[str] = []
        monkeypatch.setattr(Tracker, "follow", lambda *_, **__: [])
        await_first_start(context_of(client, (Q,)), tracker_of(client, Q), found)
        return found

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
