"""Applications of real BullMQ that give each queue a key prefix of its own."""

from __future__ import annotations

import json
from typing import Any

from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from tests.labs.cli import qctl
from tests.labs.node import NodeBull, wait_ended
from tests.labs.servers import wait_until

QUEUES = [
    QueueKeys(pattern.replace("$QUEUE", name), name)
    for pattern in ("{$QUEUE}", "host:queue:$QUEUE")
    for name in ("mail", "video")
]
ALL = ("--prefix", "{$QUEUE}", "--prefix", "host:queue:$QUEUE")


def by_keys(rows: list[dict[str, Any]], name: str = "name") -> dict[QueueKeys, dict[str, Any]]:
    return {QueueKeys(row["prefix"], row[name]): row for row in rows}


def test_one_prefix_for_each_queue(client: Client, redis_url: str, bullmq: NodeBull) -> None:
    for keys in QUEUES:
        bullmq.start_worker(keys.name, prefix=keys.prefix)
        bullmq.add_bulk(
            keys.name, [{"name": "job", "data": {}, "opts": {}}] * 2, prefix=keys.prefix
        )
    # A queue of the default prefix, which is not chosen, and without a worker.
    bullmq.add("mail")
    for keys in QUEUES:
        wait_ended(client, 2, keys)
        wait_until(lambda k=keys: bullmq.workers(k.name, prefix=k.prefix), "the worker")  # type: ignore[misc]
    for words in (ALL, ("--prefix", "{*}", "--prefix", "host:*")):
        report = json.loads(qctl(redis_url, "status", *words, "--json").out)
        queues = by_keys(report["queues"])
        assert set(queues) == set(QUEUES)
        for row in queues.values():
            assert (row["counts"]["completed"], row["workers"]) == (2, 1), row
        assert report["other_prefixes"] == ["bull"]
    everything = json.loads(qctl(redis_url, "status", "--all-prefixes", "--json").out)
    assert set(by_keys(everything["queues"])) == {*QUEUES, QueueKeys("bull", "mail")}
    figures = json.loads(qctl(redis_url, "metrics", *ALL, "--json").out)["queues"]
    assert {k: row["workers"] for k, row in by_keys(figures).items()} == dict.fromkeys(QUEUES, 1)
    workers = json.loads(qctl(redis_url, "workers", *ALL, "--json").out)["workers"]
    assert set(by_keys(workers, "queue")) == set(QUEUES)
    # A queue's name alone is not enough here; its full name is.
    assert qctl(redis_url, "wait", "mail", "--for", "idle", *ALL).code == 2
    for keys in QUEUES:
        assert qctl(redis_url, "wait", keys.full_name, "--for", "idle").code == 0
        added = qctl(redis_url, "jobs", "add", keys.full_name, "job")
        wait_ended(client, 3, keys)
        shown = qctl(redis_url, "jobs", "show", keys.full_name, added.out.strip(), "--json")
        assert json.loads(shown.out)["state"] == "completed"
