"""The jobs that the last restart of each process interrupted.

A job stalls if its process ends before the job: its lock expires, and a stalled check puts the job
back, writes an event and counts the stall (wire format 5.13). Redis does not record the cause. But
if a job stalled soon after a process was started, the restart probably interrupted the job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from qctl.connection.address import Client
from qctl.manage.protocol import ManagedProcess
from qctl.ops.times import from_epoch_ms
from qctl.wire.keys import QueueKeys
from qctl.wire.read.interruptions import Span, stalled_within

# With BullMQ's defaults, a lock lasts 30 s and two stalled checks take 60 s. The rest is a margin.
AFTERMATH_S = 100


@dataclass(frozen=True, slots=True)
class PastRestart:
    """The last start of a process, and the jobs of one queue that stalled soon afterwards.

    Args:
        at_ms: when the process was started, epoch milliseconds by this host's clock.
        interrupted: ids of jobs that stalled within ``AFTERMATH_S`` after the start.
        remembered: whether the queue's events still reach back to the start; if not, more jobs may
            have stalled.
    """

    process: ManagedProcess
    queue: QueueKeys
    at_ms: int
    interrupted: tuple[str, ...]
    remembered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartRow:
    """A ``PastRestart`` for JSON output; ``process`` is the manager's key of the process."""

    process: str
    queue: str
    restarted_at: datetime
    interrupted: tuple[str, ...]
    remembered: bool


def restart_row(past: PastRestart, prefix: str | None) -> RestartRow:
    """The JSON form of a past restart.

    Args:
        prefix: the prefix that is left out of the queue's name.
    """
    return RestartRow(
        process=past.process.key,
        queue=past.queue.label(prefix),
        restarted_at=from_epoch_ms(past.at_ms),
        interrupted=past.interrupted,
        remembered=past.remembered,
    )


def past_restarts(
    client: Client,
    served: Mapping[ManagedProcess, Sequence[QueueKeys]],
    *,
    clock_ahead_ms: int = 0,
) -> list[PastRestart]:
    """The last restart of each process that was ever restarted, once for each of its queues.

    Args:
        served: process → the queues that it serves.
        clock_ahead_ms: how far Redis' clock is ahead of this host's.
    """
    pairs = [
        (process, keys, process.started_at_ms)
        for process, queues in served.items()
        for keys in queues
        if process.started_at_ms is not None and process.restarts
    ]
    spans = [
        Span(keys, at_ms + clock_ahead_ms, at_ms + clock_ahead_ms + AFTERMATH_S * 1000)
        for _, keys, at_ms in pairs
    ]
    found = stalled_within(client, spans) if spans else []
    return [
        PastRestart(process, keys, at_ms, of_span.ids, of_span.is_complete)
        for (process, keys, at_ms), of_span in zip(pairs, found, strict=True)
    ]
