"""The clock of the stalled check: when the next one may run, and which jobs the last one marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.connect import Arg, Client
from qctl.wire.jobs import number, raised, typed
from qctl.wire.keys import QueueKeys


@dataclass(frozen=True, slots=True)
class StalledClock:
    """Of one queue (wire format 5.13).

    Args:
        checked_at_ms: when the last check ran, by the clock of the worker that ran it; None when
            none has run within an interval.
        next_in_ms: no check has any effect before this has passed; 0 when one may run now.
        marked: of the ids asked about, those that the last check saw and nobody has renewed since.
    """

    keys: QueueKeys
    checked_at_ms: int | None
    next_in_ms: int
    marked: frozenset[str]


def read_clocks(
    client: Client, ids: Sequence[tuple[QueueKeys, Sequence[str]]]
) -> list[StalledClock]:
    """The clock of each queue, and which of these of its jobs are marked; in one round trip."""
    commands: list[tuple[Arg, ...]] = []
    for keys, job_ids in ids:
        commands += [("GET", keys("stalled-check")), ("PTTL", keys("stalled-check"))]
        commands += [("SISMEMBER", keys("stalled"), job_id) for job_id in job_ids]
    replies = iter(client.pipeline(commands) if commands else ())
    clocks = []
    for keys, job_ids in ids:
        checked, ttl = typed(next(replies), None), raised(next(replies))
        marked = frozenset(job_id for job_id in job_ids if typed(next(replies), 0))
        clocks.append(StalledClock(keys, number(checked), max(int(ttl), 0), marked))
    return clocks
