"""``jobs retry-stalled`` as typed: when it asks, what it says, what it leaves alone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.ops.jobs import retry_stalled as stalled
from qctl.wire.jobs import STALLED_TOO_OFTEN
from qctl.wire.read.clients import client_name
from tests.labs.build import Q, job, put, row
from tests.labs.cli import Ran, run


def retry(redis_url: str, *words: str, stdin: str = "", terminal: bool = False) -> Ran:
    return run(
        "jobs", "retry-stalled", *words, stdin=stdin, terminal=terminal, QCTL_REDIS_URL=redis_url
    )


@pytest.fixture
def live_worker(redis_url: str, client: Client) -> Iterator[None]:
    """A connected worker of q."""
    with contextlib.closing(connect(redis_url)[1]) as worker:
        worker.call("CLIENT", "SETNAME", client_name("bull", "q"))
        yield


def test_without_a_worker_there_is_no_question(redis_url: str, client: Client) -> None:
    put(client, "1", "active")
    put(client, "2", "active")
    ran = retry(redis_url, "q")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "q: 2 jobs put back: 1, 2\n"
    # At the tail of wait, from where workers take: the one that was first is first again.
    assert row(client, "wait") == ["2", "1"]
    assert row(client, "active") == []


def test_a_live_worker_makes_it_ask(redis_url: str, client: Client, live_worker: None) -> None:
    put(client, "1", "active")
    ran = retry(redis_url, "q")
    assert (ran.code, ran.out) == (2, "")
    assert "q: 1 stalled job (1), 1 worker connected" in ran.err
    assert "would run twice" in ran.err
    assert "--yes" in ran.err.splitlines()[-1]
    assert row(client, "active") == ["1"]
    assert retry(redis_url, "q", "--json").code == 2


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("YES\n", 0), ("n\n", 5), ("", 5)])
def test_the_answer_decides(
    redis_url: str, client: Client, live_worker: None, answer: str, code: int
) -> None:
    put(client, "1", "active")
    ran = retry(redis_url, "q", stdin=answer, terminal=True)
    assert ran.code == code
    assert "would run twice" in ran.err
    # Whoever has just said no is not told how to say yes.
    assert "--yes" not in ran.err
    assert row(client, "wait") == (["1"] if code == 0 else [])


def test_yes_is_an_answer(redis_url: str, client: Client, live_worker: None) -> None:
    put(client, "1", "active")
    assert retry(redis_url, "q", "--yes").out == "q: 1 job put back: 1\n"


def test_a_live_worker_of_another_queue_is_no_risk(
    redis_url: str, client: Client, live_worker: None
) -> None:
    other = type(Q)("bull", "other")
    put(client, "1", "active", keys=other)
    assert retry(redis_url, "other").code == 0
    assert row(client, "wait", other) == ["1"]


def test_a_dry_run_asks_nothing_and_writes_nothing(
    redis_url: str, client: Client, live_worker: None
) -> None:
    put(client, "1", "active")
    ran = retry(redis_url, "q", "--dry-run")
    assert (ran.code, ran.out) == (0, "q: 1 job would be put back: 1 (dry run)\n")
    assert row(client, "active") == ["1"]


def test_json_has_the_shape_of_the_contract(redis_url: str, client: Client) -> None:
    put(client, "1", "active")
    client.call("LPUSH", Q("active"), "ghost")
    ran = retry(redis_url, "q", "--json")
    assert ran.code == 7
    (queue,) = json.loads(ran.out)["queues"]
    assert (queue["name"], queue["stalled"], queue["retried"]) == ("q", 2, ["1"])
    (skipped,) = queue["skipped"]
    assert skipped["id"] == "ghost"
    assert "gone" in skipped["reason"]


def test_a_ghost_is_left_alone_with_a_reason(redis_url: str, client: Client) -> None:
    put(client, "1")
    client.call("LPUSH", Q("active"), "ghost")
    assert retry(redis_url, "q", "--dry-run").code == 7
    ran = retry(redis_url, "q")
    assert ran.code == 7
    assert ran.out == ("q: ghost left alone: its data (the job hash) is gone, so it cannot run\n")
    assert row(client, "active") == ["ghost"]


def test_stalls_are_counted_on_demand(redis_url: str, client: Client) -> None:
    put(client, "1", "active", stc=1)
    assert retry(redis_url, "q", "--count-stall").code == 0
    assert job(client, "1")["stc"] == "2"
    assert job(client, "1")["defa"] == STALLED_TOO_OFTEN


def test_the_limit_of_stalls_is_configurable(redis_url: str, client: Client) -> None:
    put(client, "1", "active", stc=1)
    words = ("jobs", "retry-stalled", "q", "--count-stall")
    assert run(*words, QCTL_REDIS_URL=redis_url, QCTL_MAX_STALLED_COUNT="2").code == 0
    assert job(client, "1")["stc"] == "2"
    assert "defa" not in job(client, "1")


def test_failed_ones_come_back_on_demand(redis_url: str, client: Client) -> None:
    put(client, "1", "failed", score=1, failedReason=STALLED_TOO_OFTEN)
    put(client, "2", "failed", score=2, failedReason="other")
    assert retry(redis_url, "q").out == "no stalled jobs in 1 queue\n"
    assert retry(redis_url, "q", "--failed").out == (
        "q: 1 job put back, of which 1 had failed: 1\n"
    )
    assert row(client, "wait") == ["1"]


def test_locks_of_workers_that_are_gone_are_named(redis_url: str, client: Client) -> None:
    put(client, "1", "active", lock="t")
    ran = retry(redis_url, "q")
    assert ran.code == 0
    assert "still locked by workers that are gone: 1 job (1)" in ran.out
    assert "--wait" in ran.out
    assert row(client, "active") == ["1"]


def test_and_waited_for_on_demand(
    redis_url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalled, "POLL_S", 0.02)
    put(client, "1", "active", lock="t")
    client.call("PEXPIRE", Q.lock("1"), 300)
    ran = retry(redis_url, "q", "--wait")
    assert (ran.code, ran.out) == (0, "q: 1 job put back: 1\n")
    assert "1 lock" in ran.err


def test_all_queues_when_none_is_named(redis_url: str, client: Client) -> None:
    put(client, "1", "active")
    put(client, "2", "active", keys=type(Q)("bull", "other"))
    put(client, "3", keys=type(Q)("bull", "quiet"))
    ran = retry(redis_url)
    assert ran.out.splitlines() == [
        "other: 1 job put back: 2",
        "q: 1 job put back: 1",
        "no stalled jobs in 1 queue",
    ]


def test_a_queue_that_does_not_exist(redis_url: str, client: Client) -> None:
    put(client, "1", "active")
    assert retry(redis_url, "q", "nosuch").code == 3
    assert row(client, "active") == ["1"]


def test_on_a_terminal_the_risk_and_the_end_are_blocks(redis_url: str, client: Client) -> None:
    put(client, "1", "active")
    words = ("jobs", "retry-stalled", "q")
    ran = run(*words, "--yes", terminal=True, QCTL_REDIS_URL=redis_url, NO_COLOR="1")
    assert ran.out.splitlines() == ["✔ put back 1 job of q", "  ids: 1"]
