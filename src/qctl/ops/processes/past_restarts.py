"""What the last restart of each process did to its jobs: evidence for the next one.

A job whose process ends before it does stalls: its lock runs out, two stalled checks pass, and it
is put back, which leaves an event and a count in the job (wire format 5.13). Where that happened
soon after a process was started, the restart interrupted it; or something else did at that time,
which Redis does not tell.
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

# BullMQ's defaults: a lock of 30 s and two stalled checks, 30 s apart each; and some seconds more.
AFTERMATH_S = 100


@dataclass(frozen=True, slots=True)
class PastRestart:
    """The last start of a process, and what it did to one of its queues.

    Args:
        at_ms: when it was started, epoch milliseconds by this host's clock.
        interrupted: ids of jobs that stalled within 100 s from then.
        remembered: whether the queue's events still reach back to it; if not, there may have been
            more.
    """

    process: ManagedProcess
    queue: QueueKeys
    at_ms: int
    interrupted: tuple[str, ...]
    remembered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRestart:
    """A ``PastRestart`` as JSON has it; ``process`` is the manager's key of it."""

    process: str
    queue: str
    restarted_at: datetime
    interrupted: tuple[str, ...]
    remembered: bool


def last_restart(past: PastRestart) -> LastRestart:
    """What is shown of a past restart."""
    return LastRestart(
        process=past.process.key,
        queue=past.queue.name,
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
    """The last restart of each process, by queue; none for those that never were restarted.

    Args:
        served: processes with the queues that they serve.
        clock_ahead_ms: of Redis against this host.
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
