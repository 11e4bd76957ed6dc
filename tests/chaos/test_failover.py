"""Sentinel promotes a replica around the resume, one that has not heard of it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from qctl.config.settings import load_settings
from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import UnreachableError
from qctl.ops.drain.context import DrainOptions
from qctl.ops.drain.plan import make_plan
from qctl.ops.drain.run import drain
from qctl.ops.drain.steps import DrainReport
from tests.labs.build import Q, is_paused, put, row
from tests.labs.bulk import fill, retry_all
from tests.labs.replicas import Pair
from tests.labs.servers import wait_until


def is_tidy(client: Client) -> bool:
    """Whether the queue runs and qctl has left nothing; False while it cannot be asked."""
    with contextlib.suppress(UnreachableError):
        return not is_paused(client) and client.call("KEYS", "qctl:[^d]*") == []
    return False


def run(url: str, on_step: Callable[[Any], None]) -> DrainReport:
    """A drain that is interrupted as soon as it has paused the queue."""
    settings = load_settings(environ={})
    address, client = connect(url)
    seen: list[Any] = []
    with contextlib.closing(client):
        plan = make_plan(client, address, settings, ["q"], target=None, then_restart=False)
        options = DrainOptions(timeout_s=60)
        for step in drain(client, address, settings, plan, options, lambda: bool(seen)):
            on_step(step)
            seen.append(step)
    report = seen[-1]
    assert isinstance(report, DrainReport)
    return report


@pytest.mark.parametrize("how", ["behind", "disconnected"])
def test_a_resume_that_the_new_master_has_not_heard_of_is_made_again(pair: Pair, how: str) -> None:
    with contextlib.closing(connect(pair.master.url)[1]) as client:
        put(client, "1")

        def cut_off(step: Any) -> None:
            if step.step == "paused":
                # The replica has the pause, and nothing of what comes then.
                client.call("WAIT", 1, 10_000)
                os.kill(pair.replica.pid, signal.SIGSTOP)
                if how == "disconnected":
                    client.call("CLIENT", "KILL", "TYPE", "replica")

        report = run(pair.url, cut_off)
        assert not is_paused(client)
    # It was not confirmed, and that is said.
    assert report.resumed is None
    (note,) = report.notes
    assert "not every replica has acknowledged" in note

    if how == "behind":
        # What it was sent is in its socket and would arrive after all.
        return
    pair.master.kill()
    os.kill(pair.replica.pid, signal.SIGCONT)
    with contextlib.closing(connect(pair.replica.url)[1]) as client:
        # What was promised: nothing but the watchdog is there to do it.
        assert is_paused(client)
        wait_until(lambda: is_tidy(client), "the watchdog to resume", timeout_s=60)


def test_a_failover_during_the_drain_is_sat_out(pair: Pair) -> None:
    with contextlib.closing(connect(pair.master.url)[1]) as client:
        put(client, "1", "active", lock="w:1")
        client.call("WAIT", 1, 10_000)

    def fail_over(step: Any) -> None:
        if step.step == "paused":
            pair.sentinel.call("SENTINEL", "FAILOVER", "main")

    report = run(pair.url, fail_over)
    assert report.outcome == "aborted"
    assert report.resumed is True, report
    pair.await_failover()
    with contextlib.closing(connect(pair.replica.url)[1]) as client:
        wait_until(lambda: is_tidy(client), "the new master to run", timeout_s=60)


def test_a_bulk_run_is_complete_or_says_that_it_is_not(pair: Pair) -> None:
    jobs = 300
    with contextlib.closing(connect(pair.url)[1]) as client:
        fill(client, jobs)
        pair.await_replica()

        def fail_over() -> None:
            pair.fail_over()
            # As the sentinel would some seconds later.
            with contextlib.closing(connect(pair.master.url)[1]) as old:
                old.call("REPLICAOF", "127.0.0.1", pair.replica.port)

        pending = [fail_over]
        first, advice, _ = retry_all(client, Q, jobs, lambda: pending.pop()() if pending else None)
        assert not pending
        assert "run the same command again" in advice or not advice
        second, advice, _ = retry_all(client, Q, jobs, lambda: None)
        assert (first + second, advice) == (jobs, "")
    with contextlib.closing(connect(pair.replica.url)[1]) as after:
        assert after.call("ZCARD", Q("failed")) == 0
        assert Counter(row(after, "wait")) == Counter(map(str, range(jobs)))
