"""What drains have come to, for metrics: one hash per prefix, of fixed size.

Drains that ended without a word (killed, or undone by their watchdog) and those that failed before
they changed anything are not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from qctl.connect import Arg, Client
from qctl.wire.jobs import number, pairs, raised
from qctl.wire.keys import drain_record

# Field names: `drains:<outcome>` and `jobs:<result>` are sums; `last:<field>` is the last drain's.
OUTCOMES = ("drained", "restarted", "timeout", "aborted")
RESULTS = ("completed", "failed", "retried", "interrupted", "recovered", "lost")
# In place of a number that could not be found out.
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class DrainResult:
    """How one drain ended.

    Args:
        at_ms: when, epoch milliseconds by the clock of the host that drained.
        outcome: one of ``OUTCOMES``.
        completed, failed, retried, interrupted, recovered, lost: jobs, as its report counts them.
        paused_ms: from the first pause to the last resume.
        idle_ms: the longest time in which nothing ran although jobs waited.
            ``interrupted``, ``lost`` and ``idle_ms`` are None when they could not be found out.
    """

    at_ms: int
    outcome: str
    completed: int
    failed: int
    retried: int
    interrupted: int | None
    recovered: int
    lost: int | None
    paused_ms: int
    idle_ms: int | None


@dataclass(frozen=True, slots=True)
class DrainRecord:
    """All drains under a prefix since the record began.

    Args:
        drains: how many ended with each outcome; all outcomes are there.
        jobs: jobs by what became of them; all results are there.
        last: the drain that ended last; None while there was none.
    """

    drains: Mapping[str, int]
    jobs: Mapping[str, int]
    last: DrainResult | None


def add_drain(client: Client, prefix: str, result: DrainResult) -> None:
    """Add one drain, in one round trip.

    Raises:
        UnreachableError: Redis is away.
        ReplyError: it refuses; then the record may have a part of it.
    """
    key = drain_record(prefix)
    last: list[Arg] = []
    for name, value in asdict(result).items():
        last += [f"last:{name}", _UNKNOWN if value is None else value]
    commands: list[tuple[Arg, ...]] = [
        ("HINCRBY", key, f"drains:{result.outcome}", 1),
        *(("HINCRBY", key, f"jobs:{name}", getattr(result, name) or 0) for name in RESULTS),
        ("HSET", key, *last),
    ]
    for reply in client.pipeline(commands):
        raised(reply)


def read_drain_record(client: Client, prefix: str) -> DrainRecord:
    """The record; all zero where nothing was drained yet.

    Raises:
        ReplyError: this Redis user may not read it: what it holds is unknown, not zero.
    """
    row = pairs(client.call("HGETALL", drain_record(prefix)))

    def count(name: str) -> int:
        return max(number(row.get(name)) or 0, 0)

    return DrainRecord(
        drains={name: count(f"drains:{name}") for name in OUTCOMES},
        jobs={name: count(f"jobs:{name}") for name in RESULTS},
        last=_last(row) if "last:outcome" in row else None,
    )


def _last(row: Mapping[str, str]) -> DrainResult:
    values: dict[str, Any] = {
        item.name: None if told == _UNKNOWN else number(told) or 0
        for item in fields(DrainResult)
        for told in [row.get(f"last:{item.name}")]
    }
    values["outcome"] = row["last:outcome"]
    return DrainResult(**values)
