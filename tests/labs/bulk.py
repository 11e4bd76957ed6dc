"""Queues for commands on many jobs."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from qctl.connection.address import Arg, Client
from qctl.connection.forwarding import ForwardingClient
from qctl.errors import QctlError, UnreachableError
from qctl.ops.bulk.actions import Selection, retrying
from qctl.ops.bulk.run import BulkRun
from qctl.wire.keys import QueueKeys
from tests.labs.build import Q, put

# A job of any queue.
Job = tuple[QueueKeys, str]


class Retried(NamedTuple):
    """How many jobs a bulk run reports as done, what it advises if it ended early, and whether it
    says that it is complete."""

    done: int
    advice: str
    is_complete: bool


START = datetime(2026, 1, 1, tzinfo=UTC)

START_MS = int(START.timestamp() * 1000)


def fill(store: Client, count: int = 60, keys: QueueKeys = Q) -> None:
    """Failed jobs, one a second: every third timed out, every second is a mail."""
    for n in range(count):
        at = START_MS + n * 1000
        put(
            store,
            str(n),
            "failed",
            keys=keys,
            score=at,
            finishedOn=at,
            processedOn=at - 5,
            timestamp=at - 9,
            failedReason="timeout after 30 s" if n % 3 == 0 else "boom",
            name="mail" if n % 2 else "plain",
            data=f'{{"user":{{"id":{n % 10}}}}}',
            atm=3,
            opts=f'{{"attempts":{3 + n % 2}}}',
        )


def retry_all(
    client: Client, keys: QueueKeys, count: int, on_step: Callable[[], object]
) -> Retried:
    """Retry all failed jobs of a queue, of which there are ``count``."""
    bulk = BulkRun(client, keys, retrying("failed"), Selection(state="failed"), count)
    advice = ""
    try:
        for _ in bulk:
            on_step()
    except QctlError as error:
        advice = error.hint
    report = bulk.report()
    return Retried(report.done, advice, report.complete)


class Leaving(ForwardingClient):
    """A client whose Redis is away after this many scripts."""

    def __init__(self, inner: Client, scripts: int) -> None:
        super().__init__(inner)
        self._left = scripts

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:
        if command[0] == "EVALSHA":
            self._left -= 1
            if self._left < 0:
                raise UnreachableError("Redis cannot be reached")
        return super().call(*command, timeout_s=timeout_s)


def child(
    store: Client, job: Job, parent: Job, where: str = "wait", *, ended: str = "", **fields: Any
) -> Job:
    """A child in its queue, noted at its parent as pending, or as ``processed`` and the like."""
    keys, job_id = job
    parent_keys, parent_id = parent
    put(
        store,
        job_id,
        where,
        keys=keys,
        parentKey=parent_keys(parent_id),
        parent=json.dumps({"id": parent_id, "queueKey": parent_keys("")[:-1]}),
        **fields,
    )
    noted = parent_keys(f"{parent_id}:{ended or 'dependencies'}")
    match ended:
        case "":
            store.call("SADD", noted, keys(job_id))
        case "unsuccessful":
            store.call("ZADD", noted, 1, keys(job_id))
        case _:
            store.call("HSET", noted, keys(job_id), "1")
    return job


def top(store: Client, job_id: str = "top") -> Job:
    put(store, job_id, "waiting-children", score=1)
    return Q, job_id
