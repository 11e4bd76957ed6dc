"""Queues with groups of BullMQ Pro (wire format 10.5), written by hand: Pro is not public."""

from __future__ import annotations

import json

import pytest

from qctl.connection.address import Client
from tests.labs.build import put
from tests.labs.cli import qctl


@pytest.fixture(params=["groups", "groups:limit", "groups:max", "groups:paused"])
def grouped(request: pytest.FixtureRequest, client: Client) -> Client:
    """A queue whose only waiting job is in a group."""
    put(client, "done", "completed", score=1)
    put(client, "a", "")
    client.call("LPUSH", "bull:q:groups:tenant", "a")
    client.call("HSET", "bull:q:groups:tenant:meta", "conc", 1)
    client.call("ZADD", f"bull:q:{request.param}", 1, "tenant")
    return client


def content(client: Client) -> dict[str, object]:
    return {key: client.call("DUMP", key) for key in client.call("KEYS", "bull:q:groups*")}


def test_nothing_is_called_empty_or_safe(grouped: Client, redis_url: str) -> None:
    before = content(grouped)
    (queue,) = json.loads(qctl(redis_url, "status", "--json").out)["queues"]
    assert (queue["name"], queue["counts"]["waiting"], queue["waiting_is_least"]) == ("q", 0, True)
    shown = qctl(redis_url, "status").out
    assert "≥ 0" in shown
    assert "groups of BullMQ Pro" in shown
    ran = qctl(redis_url, "wait", "q", "--for", "empty", "--timeout", "0")
    assert (ran.code, "groups of BullMQ Pro" in ran.err) == (5, True)
    assert qctl(redis_url, "wait", "q", "--for", "idle", "--timeout", "0").code == 0
    verdict = json.loads(qctl(redis_url, "impact", "q", "--json").out)["verdict"]
    assert verdict["word"] == "drain first"
    assert any("groups of BullMQ Pro" in reason for reason in verdict["reasons"])
    findings = json.loads(qctl(redis_url, "doctor", "--json").out)["findings"]
    (finding,) = (each for each in findings if each["check"] == "groups")
    assert (finding["severity"], finding["subject"]["name"]) == ("info", "q")
    assert content(grouped) == before


def test_jobs_in_groups_are_never_touched(grouped: Client, redis_url: str) -> None:
    before = content(grouped)
    for words in (
        ("pause", "q"),
        ("resume", "q"),
        ("drain", "q"),
        ("jobs", "retry-stalled", "q", "--yes"),
        ("purge", "q", "--state", "waiting", "--yes"),
    ):
        assert qctl(redis_url, *words).code in {0, 1}, words
    assert content(grouped) == before
    assert grouped.call("EXISTS", "bull:q:a") == 1


def test_keys_of_a_relay_are_no_queue(client: Client, redis_url: str) -> None:
    put(client, "done", "completed", score=1)
    client.call("HSET", "bull::relay:nodes:meta", "id", 1)
    assert json.loads(qctl(redis_url, "queues", "--json").out)["queues"] == ["q"]
