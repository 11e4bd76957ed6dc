"""``pause`` and ``resume`` as typed."""

from __future__ import annotations

import json

import pytest

from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from tests.labs.build import Q, is_paused, put
from tests.labs.cli import Ran, run


@pytest.fixture(autouse=True)
def queues(client: Client) -> None:
    put(client, "1", "active", lock="t")
    put(client, "2", keys=QueueKeys("bull", "other"))
    put(client, "3", keys=QueueKeys("my", "q"))


def typed(redis_url: str, *words: str) -> Ran:
    return run(*words, QCTL_REDIS_URL=redis_url)


def test_a_line_a_queue(redis_url: str, client: Client) -> None:
    ran = typed(redis_url, "pause", "q", "other")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == ["q paused; 1 job still running", "other paused"]
    assert typed(redis_url, "pause", "q").out == "q was paused already\n"
    ran = typed(redis_url, "resume", "q", "other")
    assert ran.out.splitlines() == ["q resumed", "other resumed"]
    assert typed(redis_url, "resume", "q").out == "q was not paused\n"
    assert not is_paused(client)


def test_json(redis_url: str) -> None:
    ran = typed(redis_url, "pause", "q", "--json")
    assert json.loads(ran.out) == {
        "queues": [
            {
                "name": "q",
                "prefix": "bull",
                "paused": True,
                "changed": True,
                "active": 1,
                "moved": 0,
                "warnings": [],
                "stalled": 0,
            }
        ],
        "dry_run": False,
    }
    ran = typed(redis_url, "resume", "q", "--json", "--dry-run")
    assert json.loads(ran.out)["dry_run"] is True
    assert json.loads(ran.out)["queues"][0]["paused"] is False


def test_a_dry_run_says_what_would_happen(redis_url: str, client: Client) -> None:
    ran = typed(redis_url, "pause", "q", "--dry-run")
    assert ran.out == "q would be paused; 1 active job would continue (dry run)\n"
    assert not is_paused(client)
    client.call("HSET", Q("meta"), "paused", "1")
    put(client, "9", "paused")
    ran = typed(redis_url, "resume", "q", "--dry-run")
    moved = "1 job would be moved back from the paused list"
    assert ran.out == f"q would be resumed; {moved} (dry run)\n"
    assert is_paused(client)


def test_moved_jobs_are_told(redis_url: str, client: Client) -> None:
    client.call("HSET", Q("meta"), "paused", "1")
    put(client, "9", "paused")
    ran = typed(redis_url, "resume", "q")
    assert ran.out == "q resumed; 1 job moved back from the paused list\n"


def test_a_queue_of_both_lines_of_bullmq(redis_url: str, client: Client) -> None:
    client.call("XADD", Q("events"), "*", "event", "debounced", "jobId", "1")
    ran = typed(redis_url, "pause", "q")
    assert (ran.code, ran.out) == (5, "")
    assert "--mixed-versions" in ran.err
    ran = typed(redis_url, "pause", "q", "--mixed-versions")
    assert (ran.code, ran.out) == (0, "q paused; 1 job still running\n")
    assert "qctl resume q" in ran.err


def test_a_job_without_a_lock_is_not_called_running(redis_url: str, client: Client) -> None:
    put(client, "8", "active")
    assert typed(redis_url, "pause", "q", "--dry-run").out == (
        "q would be paused; 1 active job would continue; 1 stalled job (dry run)\n"
    )
    assert typed(redis_url, "pause", "q").out == "q paused; 1 job still running; 1 stalled job\n"
    (queue,) = json.loads(typed(redis_url, "pause", "q", "--json").out)["queues"]
    assert (queue["active"], queue["stalled"]) == (2, 1)


def test_another_prefix(redis_url: str, client: Client) -> None:
    assert typed(redis_url, "pause", "q", "--prefix", "my").code == 0
    assert is_paused(client, QueueKeys("my", "q"))
    assert not is_paused(client)


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_queue_that_does_not_exist(redis_url: str, client: Client, verb: str) -> None:
    ran = typed(redis_url, verb, "q", "othre")
    assert (ran.code, ran.out) == (3, "")
    assert "'other'" in ran.err
    assert not is_paused(client)


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_without_a_queue(redis_url: str, verb: str) -> None:
    ran = typed(redis_url, verb)
    assert ran.code == 2
    assert "QUEUE" in ran.err


def test_who_paused_is_told_by_status(redis_url: str) -> None:
    typed(redis_url, "pause", "q")
    ran = run("status", "q", "--json", QCTL_REDIS_URL=redis_url, PM2_HOME="/nonexistent")
    (queue,) = json.loads(ran.out)["queues"]
    assert queue["paused"] is True
    assert queue["paused_by"].startswith("qctl pause of ")


def test_on_a_terminal_the_end_is_one_block(redis_url: str, client: Client) -> None:
    put(client, "more", "active", lock="t:1")
    ran = run("pause", "q", terminal=True, QCTL_REDIS_URL=redis_url, NO_COLOR="1")
    assert ran.out.splitlines() == [
        "✔ paused q   2 jobs still running",
        "  to resume: qctl resume q",
    ]
    ran = run("resume", "q", "--dry-run", terminal=True, QCTL_REDIS_URL=redis_url, NO_COLOR="1")
    assert ran.out.splitlines() == ["✔ would resume q", "  dry run: nothing was changed"]
    assert run("resume", "q", terminal=True, QCTL_REDIS_URL=redis_url).out.startswith(
        "\x1b[32m✔ resumed\x1b[0m q"
    )
