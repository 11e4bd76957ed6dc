"""The events of what an operator does are those that BullMQ's own calls write."""

from __future__ import annotations

from typing import Any

from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from tests.labs.build import events
from tests.labs.cli import run
from tests.labs.node import NodeBull


def qctl(redis_url: str, *words: str) -> None:
    ran = run(*words, QCTL_REDIS_URL=redis_url)
    assert ran.code == 0, ran.err


def test_pause_and_resume_say_so_each_time(
    bullmq: NodeBull, client: Client, redis_url: str
) -> None:
    for name in ("q", "n"):
        bullmq.queue(name, "waitUntilReady")
    for method in ("pause", "pause", "resume", "resume"):
        bullmq.queue("n", method)
        qctl(redis_url, method, "q")
    theirs, ours = (events(client, QueueKeys("bull", name)) for name in ("n", "q"))
    assert ours == theirs


def test_each_job_below_a_removed_one_has_an_event(
    bullmq: NodeBull, client: Client, redis_url: str
) -> None:
    for name in ("q", "n"):
        bullmq.add_flow(flow(name))
        for queue in (name, f"{name}-below"):
            client.call("XTRIM", QueueKeys("bull", queue)("events"), "MAXLEN", 0)
    bullmq.job("n", "p", "remove", {"removeChildren": True})
    qctl(redis_url, "jobs", "remove", "q", "p", "--with-children", "--yes")
    for below in ("", "-below"):
        theirs = events(client, QueueKeys("bull", f"n{below}"))
        ours = events(client, QueueKeys("bull", f"q{below}"))
        assert {event["event"] for event in ours} == {"removed"}
        # On the way BullMQ releases parents, which a worker may take, and removes them then.
        left = [event for event in theirs if event["event"] != "waiting"]
        assert sorted(map(job_of, ours)) == sorted(map(job_of, left))


def job_of(event: dict[str, str]) -> str:
    return event["jobId"]


def flow(name: str) -> dict[str, Any]:
    def node(job_id: str, queue: str, *children: dict[str, Any]) -> dict[str, Any]:
        opts = {"jobId": job_id}
        return {"name": "j", "queueName": queue, "opts": opts, "children": [*children]}

    below = f"{name}-below"
    return node("p", name, node("c1", name), node("c2", below, node("g1", below), node("g2", name)))
