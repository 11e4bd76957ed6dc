"""Traces of BullMQ 5, and queues of other libraries such as BullMQ Pro (wire format 10.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.connection.address import Client
from qctl.wire.events import recent_events
from qctl.wire.jobs import read_fields
from qctl.wire.keys import ITERATION_PREFIX, QueueKeys
from qctl.wire.replies import read_values, to_int

# How many events and completed jobs of each queue are read.
_EVENTS = 20
_JOBS = 20


@dataclass(frozen=True, slots=True)
class BullMQ5Traces:
    """Recent traces of BullMQ 5 in one queue.

    Args:
        debounced: whether a producer wrote a ``debounced`` event.
        next_ids: whether a worker wrote ``nrjid`` into a scheduler's job.
    """

    debounced: bool
    next_ids: bool


def read_bullmq5_traces(
    client: Client, queues: Sequence[QueueKeys], since_ms: int
) -> dict[QueueKeys, BullMQ5Traces]:
    """Traces in the last 20 events and the last 20 completed jobs of each queue.

    Args:
        since_ms: ignore older traces; epoch milliseconds.
    """
    events = recent_events(client, queues, _EVENTS)
    commands = [("ZREVRANGE", keys("completed"), 0, _JOBS - 1) for keys in queues]
    jobs = [
        (keys, job_id)
        for keys, ids in zip(queues, read_values(client, commands, ()), strict=True)
        for job_id in ids
        # Only jobs of schedulers can have the field.
        if job_id.startswith(ITERATION_PREFIX)
    ]
    rows = read_fields(client, jobs, "nrjid", "finishedOn")
    linked = {
        keys
        for (keys, _), (next_id, finished) in zip(jobs, rows, strict=True)
        if next_id is not None and (to_int(finished) or 0) >= since_ms
    }
    return {
        keys: BullMQ5Traces(
            debounced=any(e.name == "debounced" and e.at_ms >= since_ms for e in events[keys]),
            next_ids=keys in linked,
        )
        for keys in queues
    }


def other_libraries(client: Client, queues: Sequence[QueueKeys]) -> dict[QueueKeys, str]:
    """The queues that a library other than BullMQ has opened last: queue → library.

    That library, usually BullMQ Pro, may keep jobs in keys that the wire format does not describe.
    """
    commands = [("HGET", keys("meta"), "version") for keys in queues]
    versions = read_values(client, commands, "bullmq")
    libraries = ["bullmq" if v is None else v.partition(":")[0] for v in versions]
    return {
        keys: library
        for keys, library in zip(queues, libraries, strict=True)
        if library != "bullmq"
    }
