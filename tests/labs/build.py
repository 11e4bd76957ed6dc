"""Queues written by hand, as BullMQ would have written them."""

from __future__ import annotations

import re
from typing import Any

from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import Holder
from qctl.wire.replies import to_dict

Q = QueueKeys("bull", "q")
LISTS = {"wait", "paused", "active"}
CLASS = 2**32


def holder(owner: str, verb: str = "pause") -> Holder:
    return Holder(owner, verb, "ada", "host", 42, 1_700_000_000_000)


def put(
    client: Client,
    job_id: str,
    where: str = "wait",
    *,
    keys: QueueKeys = Q,
    lock: str = "",
    score: int = 0,
    **fields: Any,
) -> str:
    """A job in a list (at its head, as an add does) or a sorted set."""
    record = {
        "name": "job",
        "data": "{}",
        "opts": '{"attempts":3}',
        "timestamp": 1_700_000_000_000,
        "delay": 0,
        "priority": 0,
        **fields,
    }
    client.call("HSET", keys(job_id), *(word for item in record.items() for word in item))
    client.call("HSET", keys("meta"), "opts.maxLenEvents", "10000", "version", "bullmq:6.7.0")
    if where in LISTS:
        client.call("LPUSH", keys(where), job_id)
    elif where:
        client.call("ZADD", keys(where), score, job_id)
    if lock:
        client.call("SET", keys.lock(job_id), lock, "PX", 30_000)
    return job_id


def job(client: Client, job_id: str, keys: QueueKeys = Q) -> dict[str, str]:
    return to_dict(client.call("HGETALL", keys(job_id)))


def row(client: Client, name: str, keys: QueueKeys = Q) -> list[str]:
    """A list, head first."""
    found: list[str] = client.call("LRANGE", keys(name), 0, -1)
    return found


def scores(client: Client, name: str, keys: QueueKeys = Q) -> dict[str, str]:
    return to_dict(client.call("ZRANGE", keys(name), 0, -1, "WITHSCORES"))


def events(client: Client, keys: QueueKeys = Q) -> list[dict[str, str]]:
    return [to_dict(flat) for _, flat in client.call("XRANGE", keys("events"), "-", "+")]


def is_paused(client: Client, keys: QueueKeys = Q) -> bool:
    return bool(client.call("HEXISTS", keys("meta"), "paused"))


def exponents(client: Client) -> list[str]:
    """Numbers in exponent form in any hash; BullMQ would read 1.79e+12 as 1."""
    return [
        f"{key} {field}={value}"
        for key in client.call("KEYS", "*")
        if client.call("TYPE", key) == "hash"
        for field, value in to_dict(client.call("HGETALL", key)).items()
        if re.fullmatch(r"[\d.]+[eE][+-]?\d+", value)
    ]
