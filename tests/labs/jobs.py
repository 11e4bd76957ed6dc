"""Jobs written by hand, for the tests of readers."""

from __future__ import annotations

import time
from typing import Any

from qctl.config.prefixes import only
from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from qctl.wire.read.discovery import survey
from qctl.wire.read.snapshot import QueueSnapshot, read_snapshots

KEYS = QueueKeys("bull", "q")

T0 = 1_700_000_000_000

PLACES = {"waiting": "wait", "stalled": "active"}


def add(client: Client, job_id: str, place: str, score: int | None = None, **fields: Any) -> None:
    """A job as BullMQ stores it; lists get it at the head, as a new one."""
    values = {
        "name": "send",
        "data": "{}",
        "opts": '{"attempts":3}',
        "timestamp": T0,
        "delay": 0,
        "priority": 0,
        **fields,
    }
    client.call("HSET", KEYS(job_id), *(part for pair in values.items() for part in pair))
    client.call("HSET", KEYS("meta"), "opts.maxLenEvents", 10_000)
    client.call("XADD", KEYS("events"), "*", "event", "added", "jobId", job_id)
    if score is None:
        client.call("LPUSH", KEYS(place), job_id)
    else:
        client.call("ZADD", KEYS(place), score, job_id)


def lock(client: Client, job_id: str, holder: str = "w:0", ttl_ms: int = 30_000) -> None:
    client.call("SET", KEYS.lock(job_id), holder, "PX", ttl_ms)


def snapshot(client: Client) -> QueueSnapshot:
    found = read_snapshots(client, [KEYS])[0]
    assert isinstance(found, QueueSnapshot)
    return found


def make_queue(client: Client, name: str, prefix: str = "bull", **jobs: int) -> None:
    """A queue with this many jobs: ``waiting=…, active=…, stalled=…, legacy_paused=…``."""
    key = f"{prefix}:{name}"
    client.call("HSET", f"{key}:meta", "version", "bullmq:6.7.0")
    client.call("XADD", f"{key}:events", "*", "event", "x")
    lists = {"waiting": "wait", "active": "active", "stalled": "active", "legacy_paused": "paused"}
    for state, number in jobs.items():
        for index in range(number):
            job_id = f"{state}-{index}"
            client.call("LPUSH", f"{key}:{lists[state]}", job_id)
            client.call("HSET", f"{key}:{job_id}", "timestamp", int(time.time() * 1000))
            if state == "active":
                client.call("SET", f"{key}:{job_id}:lock", "token")


def discovered(client: Client, prefix: str) -> list[str]:
    """Names of the queues that a scan finds under a prefix."""
    return [queue.name for queue in survey(client, only(prefix)).queues]
