"""The same problem of many queues is one problem; what is unknown is not one, and not fine."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.connection.connect import connect
from qctl.ops.queues.problems import Problem
from qctl.ops.queues.status import StatusReport, inspect_queues
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import this_process
from qctl.wire.read.clients import client_name
from qctl.wire.write.pausing import pause
from tests.labs.cli import run
from tests.labs.clients import Counting
from tests.labs.jobs import make_queue
from tests.labs.servers import limited_user, wait_until

SETTINGS = Settings(pm2_home=Path("/nonexistent"))


def report(client: Client, *names: str) -> StatusReport:
    return inspect_queues(client, Address(), SETTINGS, names).report


def problems(client: Client) -> list[Problem]:
    return [*report(client).problems]


@contextlib.contextmanager
def worker(url: str, *queues: str, name: str | None = None) -> Any:
    """A connected worker of each queue."""
    with contextlib.ExitStack() as stack:
        for queue in queues:
            connection = stack.enter_context(contextlib.closing(connect(url)[1]))
            connection.call("CLIENT", "SETNAME", client_name("bull", queue, name))
        yield


def test_forty_queues_without_a_worker_are_one_problem(client: Client) -> None:
    for number in range(1, 41):
        make_queue(client, f"svc-{number:02}", waiting=3)
    (found,) = problems(client)
    assert (found.kind, found.severity) == ("no_worker", "error")
    assert found.text == (
        "40 queues have 120 jobs waiting and no worker: svc-01, svc-02 and 38 more"
    )
    assert found.queues == tuple(f"svc-{number:02}" for number in range(1, 41))


def test_one_queue_keeps_its_remark_and_few_their_commands(client: Client, redis_url: str) -> None:
    make_queue(client, "a", stalled=2)
    with worker(redis_url, "a", "b"):
        (found,) = problems(client)
        assert found.text.startswith("a: 2 jobs have stalled, and ")
        assert "qctl jobs retry-stalled a" in found.commands
        make_queue(client, "b", stalled=1)
        (found,) = problems(client)
        assert found.text == "2 queues have 3 stalled jobs: a and b"
        assert {"qctl jobs retry-stalled a", "qctl jobs retry-stalled b"} < {*found.commands}


def test_the_worst_come_first(client: Client, redis_url: str) -> None:
    make_queue(client, "broken")
    client.call("HSET", "bull:broken:meta", "concurrency", "x")
    make_queue(client, "limited", waiting=1)
    client.pipeline([("HSET", "bull:limited:meta", "max", 5), ("SET", "bull:limited:limiter", 5)])
    client.call("PEXPIRE", "bull:limited:limiter", 60_000)
    make_queue(client, "late")
    due_ms = int(time.time() * 1000) - 60_000
    client.call("ZADD", "bull:late:delayed", due_ms * 4096, "1")
    make_queue(client, "fine", waiting=1)
    client.call("SET", "bull:unreadable:meta", "text")
    with worker(redis_url, "limited", "late", "fine", "broken"):
        found = [(problem.severity, problem.kind) for problem in problems(client)]
        whole = report(client)
    assert found == [
        ("error", "unreadable"),
        ("error", "broken"),
        ("warning", "overdue"),
        ("info", "rate_limited"),
    ]
    assert [queue.name for queue in whole.only_problems().queues] == ["broken", "late", "limited"]
    assert whole.only_problems().problems == whole.problems


def test_pauses_are_problems_if_jobs_wait_and_apart_by_who_paused(client: Client) -> None:
    for name, jobs in (("a", 1), ("b", 2), ("c", 3), ("idle", 0)):
        make_queue(client, name, waiting=jobs)
    holder = this_process("pause")
    for name in ("a", "b", "idle"):
        pause(client, QueueKeys("bull", name), holder)
    client.call("HSET", "bull:c:meta", "paused", "1")
    paused = {
        problem.queues: problem.text for problem in problems(client) if problem.kind == "paused"
    }
    assert set(paused) == {("a", "b"), ("c",)}
    assert paused["a", "b"].startswith(f"2 queues with 3 ready jobs are paused by {holder}, since ")
    assert paused["c",] == "c: paused, and not through qctl, since an unknown time; 3 jobs wait"


def test_unknown_workers_are_unknown(client: Client, redis_url: str) -> None:
    make_queue(client, "a", waiting=1)
    make_queue(client, "b", waiting=1)
    make_queue(client, "idle")
    with limited_user(client, redis_url, "~*", "+@read", "+info") as (_, limited):
        found = report(limited)
    (problem,) = found.problems
    assert (problem.kind, problem.severity) == ("workers_unknown", "unknown")
    assert (
        problem.text
        == "2 queues have 2 jobs waiting, and it is unknown whether workers are connected: a and b"
    )
    assert [queue.severity for queue in found.queues] == ["unknown", "unknown", None]


# A worker that has vanished


def hold(client: Client, number: int, name: str | None, ttl_ms: int = 27_000) -> None:
    if name is not None:
        client.call("HSET", f"bull:q:active-{number}", "pb", name)
    client.call("PEXPIRE", f"bull:q:active-{number}:lock", ttl_ms)


def test_jobs_of_a_worker_that_is_gone_are_named_while_their_locks_last(
    client: Client, redis_url: str
) -> None:
    make_queue(client, "q", active=10)
    for number in range(10):
        hold(client, number, "gone" if number < 5 else "here", 1_000_000 if number < 5 else 30_000)
    with worker(redis_url, "q", name="here"):
        counting = Counting(client)
        (problem,) = report(counting, "q").problems
    # Not one command more than without such jobs: the locks are read anyway.
    assert counting.trips == ["pipeline", "pipeline"]
    assert (problem.kind, problem.severity) == ("worker_gone", "warning")
    assert problem.text.startswith(
        "q: 5 of 10 active jobs belong to a worker that is not connected: they stall within 16 min"
    )
    assert "unless the worker is closing or comes back" in problem.text


@pytest.mark.parametrize(
    ("job_worker", "connected"),
    [
        ("here", "here"),
        # Any worker without a name may have the job.
        (None, "here"),
        ("gone", None),
        # Redis never lists a worker with such a name.
        ("a name with spaces", "here"),
    ],
)
def test_no_worker_is_called_gone_that_may_be_there(
    client: Client, redis_url: str, job_worker: str | None, connected: str | None
) -> None:
    make_queue(client, "q", active=1)
    hold(client, 0, job_worker)
    with worker(redis_url, "q", name=connected):
        assert report(client, "q").problems == ()


def test_a_connection_without_a_name_may_be_the_worker(client: Client, redis_url: str) -> None:
    make_queue(client, "q", active=1)
    hold(client, 0, "gone")
    with worker(redis_url, "q", name="here"), contextlib.closing(connect(redis_url)[1]) as unnamed:
        assert [problem.kind for problem in report(client, "q").problems] == ["worker_gone"]
        waiting = threading.Thread(
            target=lambda: unnamed.call("BZPOPMIN", "nothing", 30, timeout_s=30), daemon=True
        )
        waiting.start()
        wait_until(
            lambda: "cmd=bzpopmin" in str(client.call("CLIENT", "LIST")), "the connection to wait"
        )
        assert report(client, "q").problems == ()
        client.call("ZADD", "nothing", 0, "x")
        waiting.join(20)


def test_workers_that_leave_during_a_drain_are_not_gone(client: Client, redis_url: str) -> None:
    make_queue(client, "q", active=1)
    hold(client, 0, "gone")
    client.call("SET", QueueKeys("bull", "q").lease, this_process("drain").to_json())
    with worker(redis_url, "q", name="here"):
        assert report(client, "q").problems == ()


# The command


def test_only_problems(client: Client, redis_url: str) -> None:
    make_queue(client, "fine")
    make_queue(client, "bad", waiting=1)
    words = ("status", "--redis", redis_url, "--problems")
    shown = run(*words, PM2_HOME="/nonexistent")
    assert (shown.code, "fine" in shown.out, "bad" in shown.out) == (0, False, True)
    found = json.loads(run(*words, "--json", PM2_HOME="/nonexistent").out)
    assert [queue["name"] for queue in found["queues"]] == ["bad"]
    assert found["problems"] == [
        {
            "kind": "no_worker",
            "severity": "error",
            "queues": ["bad"],
            "text": "bad: 1 job waits, and no worker is connected",
            "commands": [],
        }
    ]
    whole = json.loads(run(*words[:-1], "--json", PM2_HOME="/nonexistent").out)
    assert [queue["name"] for queue in whole["queues"]] == ["bad", "fine"]
    assert whole["problems"] == found["problems"]
    client.call("DEL", "bull:bad:wait")
    none = run(*words, PM2_HOME="/nonexistent")
    assert (none.code, none.err) == (0, "no problem found; `qctl doctor` examines more\n")
