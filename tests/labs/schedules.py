"""Schedulers, including those of old BullMQ versions."""

from __future__ import annotations

import json
import time
from typing import Any

from qctl.connection.address import Client
from qctl.wire import scripts
from qctl.wire.options import JobOptions
from qctl.wire.schedulers import scheduling
from qctl.wire.schedulers.scheduling import Schedule as Rule
from tests.labs.build import Q, put, scores


def now_ms() -> int:
    return int(time.time() * 1000)


def make(client: Client, scheduler_id: str, rule: Rule, **options: Any) -> str:
    data = options.pop("data", None)
    call = scheduling.upsert_call(
        Q, scheduler_id, rule, options.pop("name", None), data, JobOptions(**options), now_ms()
    )
    answer = scripts.run(client, call.name, call.keys, call.args)
    return scheduling.upserted_id(scheduler_id, answer)


def at(client: Client, scheduler_id: str, due_ms: int) -> str:
    """Moves a scheduler's pending job, as if it had been made for another time."""
    old = scores(client, "repeat")[scheduler_id]
    old_id, new_id = (f"repeat:{scheduler_id}:{ms}" for ms in (old, due_ms))
    client.call("ZADD", Q("repeat"), due_ms, scheduler_id)
    client.call("RENAME", Q(old_id), Q(new_id))
    client.call("ZREM", Q("delayed"), old_id)
    client.call("LREM", Q("wait"), 0, old_id)
    client.call("ZADD", Q("delayed"), due_ms * 4096, new_id)
    return new_id


def legacy(client: Client, key: str, *, iteration: str = "", **record: object) -> str:
    due = now_ms() + 60_000
    client.call("ZADD", Q("repeat"), due, key)
    if record:
        words = [str(word) for pair in record.items() for word in pair]
        client.call("HSET", Q.scheduler(key), *words)
    opts = {"attempts": 2, "delay": 7000, "jobId": "x", "timestamp": 1, "prevMillis": 1,
            "repeat": {"every": 7000, "count": 3, "key": key}}  # fmt: skip
    return put(
        client, f"repeat:{iteration or key}:{due}", "delayed", score=due * 4096, name="old",
        data='{"x":1}', opts=json.dumps(opts),
    )  # fmt: skip


MD5_KEY = "6bbf0b21e91f7d4d5c96a64dbc92729a"
