"""Flows that Node BullMQ made: `jobs tree` shows the states that BullMQ's own getState gives."""

from __future__ import annotations

import json
from typing import Any

from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from tests.labs.cli import run
from tests.labs.node import NodeBull, wait_ended


def test_the_tree_has_the_states_of_bullmq(
    redis_url: str, client: Client, bullmq: NodeBull
) -> None:
    bad = {
        "name": "bad",
        "queueName": "leaves",
        "data": {"fail_times": 1, "message": "boom"},
        "opts": {"jobId": "bad"},
    }
    tree = {
        "name": "root", "queueName": "roots", "opts": {"jobId": "root"},
        "children": [
            {"name": "far", "queueName": "far", "prefix": "other:pfx", "opts": {"jobId": "far"}},
            {"name": "later", "queueName": "q", "opts": {"jobId": "later", "delay": 600_000}},
            {"name": "first", "queueName": "q", "opts": {"jobId": "first", "priority": 3}},
            {
                "name": "mid", "queueName": "mids", "opts": {"jobId": "mid"},
                "children": [
                    bad,
                    {"name": "good", "queueName": "leaves", "opts": {"jobId": "good"}},
                    {
                        "name": "brief", "queueName": "leaves",
                        "opts": {"jobId": "brief", "removeOnComplete": True},
                    },
                ],
            },
        ],
    }  # fmt: skip
    bullmq.add_flow(tree)
    handle = bullmq.start_worker("leaves")
    wait_ended(client, 2, QueueKeys("bull", "leaves"))
    bullmq.close_worker(handle)
    ran = run("jobs", "tree", "leaves", "bad", "--json", QCTL_REDIS_URL=redis_url)
    assert ran.code == 0, ran.err
    found: dict[str, dict[str, Any]] = {}

    def collect(node: dict[str, Any]) -> None:
        found[node["id"]] = node
        for child in node["children"]:
            collect(child)

    collect(json.loads(ran.out)["root"])
    assert found.keys() == {"root", "far", "later", "first", "mid", "bad", "good", "brief"}
    brief = found.pop("brief")
    assert (brief["state"], brief["missing"]) == ("completed", True)
    for job_id, node in found.items():
        assert node["state"] == bullmq.state(node["queue"], job_id, prefix=node["prefix"])
    assert found["bad"]["failed_reason"] == "boom"
    assert found["far"]["prefix"] == "other:pfx"
