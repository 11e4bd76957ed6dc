"""What qctl does to jobs in bulk leaves the same as BullMQ's own Job.retry, promote and remove."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import to_dict
from tests.labs.cli import run
from tests.labs.node import NodeBull
from tests.labs.servers import wait_until

NODE, OWN = "node", "own"
LISTS, SETS = ("wait", "active", "paused"), ("prioritized", "delayed", "completed", "failed")
# What depends on when it was done.
TIMES = {"timestamp", "processedOn", "finishedOn"}


def left_behind(client: Client, name: str, ids: list[str]) -> dict[str, Any]:
    """Everything about a queue's jobs but times."""
    keys = QueueKeys("bull", name)
    jobs = {}
    for job_id in ids:
        fields = to_dict(client.call("HGETALL", keys(job_id)))
        jobs[job_id] = {key: value for key, value in fields.items() if key not in TIMES}
        jobs[job_id]["times"] = sorted(TIMES & set(fields))
    children = to_dict(client.call("HGETALL", keys("parent:processed")))
    events = (to_dict(flat) for _, flat in client.call("XRANGE", keys("events"), "-", "+"))
    return {
        "jobs": jobs,
        "lists": {key: client.call("LRANGE", keys(key), 0, -1) for key in LISTS},
        "sets": {key: client.call("ZRANGE", keys(key), 0, -1) for key in SETS},
        "priorities": client.call("ZRANGE", keys("prioritized"), 0, -1, "WITHSCORES"),
        "marker": client.call("ZRANGE", keys("marker"), 0, -1),
        "children": children,
        "dedup": sorted(client.call("KEYS", keys("de:*"))) == [],
        "events": [
            {key: value for key, value in event.items() if key != "delay"} for event in events
        ],
    }


def comparable(found: dict[str, Any], name: str) -> str:
    return json.dumps(found, sort_keys=True).replace(f"bull:{name}:", "bull:Q:")


def qctl(redis_url: str, *words: str) -> dict[str, Any]:
    ran = run(*words, "--json", "--yes", QCTL_REDIS_URL=redis_url)
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    return found


def both(bull: NodeBull, jobs: list[dict[str, Any]]) -> list[str]:
    """The same jobs in both queues; their ids, which are the same too."""
    ids = [bull.add(NODE, job["data"], **job["opts"]) for job in jobs]
    assert [bull.add(OWN, job["data"], **job["opts"]) for job in jobs] == ids
    return ids


def finished(bull: NodeBull, count: int) -> None:
    """Run all jobs of both queues to their end, one at a time."""
    for name in (NODE, OWN):
        handle = bull.start_worker(name, concurrency=1)

        def have_ended(name: str = name) -> bool:
            counts = bull.counts(name)
            return counts["completed"] + counts["failed"] == count

        wait_until(have_ended, "all jobs to end")
        bull.close_worker(handle)


@pytest.mark.parametrize("again", [False, True], ids=["once", "attempts forgotten"])
def test_retry(
    node_bull: Callable[..., NodeBull], client: Client, redis_url: str, again: bool
) -> None:
    bull = node_bull(6)
    failing = {"fail_times": 9}
    ids = both(
        bull,
        [
            {"data": failing, "opts": {}},
            {"data": failing, "opts": {"priority": 5}},
            {"data": failing, "opts": {"lifo": True}},
            {"data": {}, "opts": {}},
            {"data": failing, "opts": {"attempts": 2}},
        ],
    )
    finished(bull, len(ids))
    options = {"resetAttemptsMade": True, "resetAttemptsStarted": True} if again else {}
    failed, done = [i for i in ids if i != "4"], "4"
    for job_id in failed:
        bull.job(NODE, job_id, "retry", "failed", options)
    bull.job(NODE, done, "retry", "completed", options)
    flag = ["--reset-attempts"] if again else []
    report = qctl(redis_url, "jobs", "retry", OWN, *failed, done, *flag)
    assert (report["done"], report["skipped_count"]) == (5, 0)
    mine, nodes = left_behind(client, OWN, ids), left_behind(client, NODE, ids)
    assert comparable(mine, OWN) == comparable(nodes, NODE)


def test_promote(node_bull: Callable[..., NodeBull], client: Client, redis_url: str) -> None:
    bull = node_bull(6)
    later = 3_600_000
    ids = both(
        bull,
        [
            {"data": {}, "opts": {"delay": later}},
            {"data": {}, "opts": {"delay": later + 1, "priority": 3}},
            {"data": {}, "opts": {"delay": later + 2}},
        ],
    )
    for job_id in ids:
        bull.job(NODE, job_id, "promote")
    assert qctl(redis_url, "jobs", "promote", OWN)["done"] == 3
    mine, nodes = left_behind(client, OWN, ids), left_behind(client, NODE, ids)
    assert comparable(mine, OWN) == comparable(nodes, NODE)


def test_remove(node_bull: Callable[..., NodeBull], client: Client, redis_url: str) -> None:
    bull = node_bull(6)
    ids = both(
        bull,
        [
            {"data": {}, "opts": {}},
            {"data": {}, "opts": {"delay": 3_600_000, "deduplication": {"id": "d"}}},
            {"data": {}, "opts": {"priority": 2}},
            {"data": {}, "opts": {}},
        ],
    )
    for job_id in ids[:3]:
        bull.job(NODE, job_id, "remove")
    assert qctl(redis_url, "jobs", "remove", OWN, *ids[:3])["done"] == 3
    mine, nodes = left_behind(client, OWN, ids), left_behind(client, NODE, ids)
    assert comparable(mine, OWN) == comparable(nodes, NODE)
    assert mine["lists"]["wait"] == [ids[3]]


def test_a_group_of_failures_is_retried_and_no_other_job(
    bullmq: NodeBull, client: Client, redis_url: str
) -> None:
    reasons = [f"connect ECONNREFUSED 10.0.0.{n}:6379" for n in range(3)]
    reasons += [f"User '{n}' isn't \"known\"\n    (code {n})" for n in range(2)]
    ids = [bullmq.add(OWN, {"fail_times": 1, "message": reason}) for reason in reasons]
    handle = bullmq.start_worker(OWN)
    wait_until(lambda: bullmq.counts(OWN)["failed"] == 5, "all jobs to fail")
    bullmq.close_worker(handle)
    ran = run("jobs", "failures", OWN, "--json", QCTL_REDIS_URL=redis_url)
    refused, unknown = json.loads(ran.out)["groups"]
    assert (refused["value"], refused["count"]) == ("connect ECONNREFUSED <address>", 3)
    assert (unknown["value"], unknown["count"]) == (
        "User <text> isn't <text> (code <number>)",
        2,
    )
    words = shlex.split(unknown["command"])[1:]
    assert qctl(redis_url, *words)["done"] == 2
    states = [bullmq.state(OWN, job_id) for job_id in ids]
    assert states == [*["failed"] * 3, *["waiting"] * 2]


def test_a_flow_is_retried_and_deleted_as_a_whole(
    bullmq: NodeBull, client: Client, redis_url: str
) -> None:
    tree = {
        "name": "parent",
        "queueName": "parents",
        "opts": {"jobId": "p"},
        "children": [
            {"name": "c", "queueName": OWN, "data": {"fail_times": 1}, "opts": {"jobId": "c1"}},
            {"name": "c", "queueName": OWN, "data": {}, "opts": {"jobId": "c2"}},
        ],
    }
    bullmq.add_flow(tree)
    handle = bullmq.start_worker(OWN)
    wait_until(lambda: bullmq.state(OWN, "c1") == "failed", "the child to fail")
    wait_until(lambda: bullmq.state(OWN, "c2") == "completed", "the other to end")
    # A failed child holds its parent up until it is retried.
    qctl(redis_url, "jobs", "retry-failed", OWN)
    bullmq.start_worker("parents")
    wait_until(lambda: bullmq.state("parents", "p") == "completed", "the parent to complete")
    bullmq.close_worker(handle)
    bullmq.add_flow(
        {**tree, "opts": {"jobId": "p2"}, "children": [{**tree["children"][1], "opts": {}}]}
    )
    ran = run("jobs", "remove", "parents", "p2", "--yes", QCTL_REDIS_URL=redis_url)
    assert ran.code == 3
    assert "its children have not ended" in ran.err
    qctl(redis_url, "jobs", "remove", "parents", "p2", "--with-children")
    assert bullmq.counts(OWN)["waiting"] == 0
    assert client.call("KEYS", "bull:parents:p2*") == []


def test_what_was_retried_runs(bullmq: NodeBull, client: Client, redis_url: str) -> None:
    ids = [bullmq.add(OWN, {"fail_times": 1}, priority=priority) for priority in (0, 0, 4)]
    bullmq.start_worker(OWN, drainDelay=120)
    wait_until(lambda: bullmq.counts(OWN)["failed"] == 3, "all to fail")
    report = qctl(redis_url, "jobs", "retry-failed", OWN, "--where", "error ~ fail or id > 0")
    assert report["done"] == len(ids)
    # It would look by itself only after two minutes.
    wait_until(lambda: bullmq.counts(OWN)["completed"] == 3, "all to complete")
