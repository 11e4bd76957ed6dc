"""Estimates the memory that queues use, from their large keys and from a sample of their jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.connection.address import Arg, Client
from qctl.errors import ReplyError
from qctl.wire.read.snapshot import QueueSnapshot
from qctl.wire.replies import checked
from qctl.wire.states import SORTED_SETS

# How many jobs are measured in each list and set.
_JOBS = 10
# How many queues are examined: those with the most jobs.
_QUEUES = 200


@dataclass(frozen=True, slots=True)
class Holding:
    """The memory of a queue's jobs in one state, or of its events.

    Args:
        holds: what uses the memory, such as ``1,234 waiting jobs``.
    """

    queue: str
    holds: str
    count: int
    estimated_bytes: int

    def __str__(self) -> str:
        mebibytes = self.estimated_bytes / 1024**2
        return f"about {mebibytes:,.0f} MiB in {self.holds} of {self.queue}"


def holdings(client: Client, queues: Sequence[QueueSnapshot]) -> list[Holding]:
    """Estimate the memory of the 200 queues with the most jobs, in two round trips.

    The estimate for a list or set is Redis's figure for the key itself, plus the number of jobs
    times the average memory of up to ten measured jobs. ``active`` is short and is left out. Event
    streams are included.

    Raises:
        ReplyError: this user may not run MEMORY, or this Redis has no such command.
    """
    fullest = sorted(queues, key=lambda queue: sum(queue.sizes.values()), reverse=True)[:_QUEUES]
    parts = [
        (queue.keys, state, count)
        for queue in fullest
        for state, count in queue.sizes.items()
        if count and state != "active"
    ]
    windows = client.pipeline(
        [
            ("ZRANGE" if state in SORTED_SETS else "LRANGE", keys(state), -_JOBS, -1)
            for keys, state, _ in parts
        ]
    )
    samples = [[] if isinstance(ids, ReplyError) else list(ids) for ids in windows]
    commands: list[tuple[Arg, ...]] = []
    for (keys, state, _), ids in zip(parts, samples, strict=True):
        # SAMPLES 0 measures all fields: by default, Redis may leave out a large field.
        commands += [("MEMORY", "USAGE", keys(job_id), "SAMPLES", 0) for job_id in ids]
        commands.append(("MEMORY", "USAGE", keys(state)))
    for queue in fullest:
        events = queue.keys("events")
        commands += [("MEMORY", "USAGE", events), ("XLEN", events)]
    # A reply is None if the key is gone by now.
    sizes = (int(checked(reply) or 0) for reply in client.pipeline(commands))
    found = []
    for (keys, state, count), ids in zip(parts, samples, strict=True):
        jobs, own = [next(sizes) for _ in ids], next(sizes)
        average = sum(jobs) / len(jobs) if jobs else 0
        what = f"{count:,} {'waiting' if state == 'wait' else state} jobs"
        found.append(Holding(keys.name, what, count, own + round(average * count)))
    for queue in fullest:
        size, length = next(sizes), next(sizes)
        found.append(Holding(queue.keys.name, f"{length:,} events", length, size))
    return found
