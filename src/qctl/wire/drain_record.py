"""The drain record, a hash per prefix: how drains ended, and which apps resume queues at start-up.

A drain is not recorded if it changed nothing, was killed, or was undone by its watchdog.

The functions raise UnreachableError if Redis cannot be reached, and ReplyError if Redis refuses a
command. After an error, the numbers are unknown, not zero.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from qctl.connection.address import Arg, Client
from qctl.wire.keys import drain_record
from qctl.wire.replies import read_checked, read_json, to_dict, to_int

# Field names: `drains:<outcome>` and `jobs:<result>` are sums; `last:<field>` is about the last
# drain.
OUTCOMES = ("drained", "restarted", "timeout", "aborted")
RESULTS = ("completed", "failed", "retried", "interrupted", "recovered", "lost")
_MAY_BE_UNKNOWN = {"interrupted", "lost", "idle_ms"}
# Stored in place of an unknown number. The sums count it as 0.
_UNKNOWN = "unknown"
# The value of the field `resumer:[queue, target]` is the time when a drain last saw the app
# `target` resume the queue at the app's start.
_RESUMER = "resumer:"


@dataclass(frozen=True, slots=True)
class DrainResult:
    """How one drain ended. ``interrupted``, ``lost`` and ``idle_ms`` are None if unknown.

    Args:
        at_ms: when the drain ended, in epoch milliseconds, by the clock of the drain's host.
        outcome: one of ``OUTCOMES``.
        completed, failed, retried, interrupted, recovered, lost: numbers of jobs, as in the report
            of the drain.
        paused_ms: the time from the first pause to the last resume.
        idle_ms: the longest time in which nothing ran although jobs waited.
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
    """How many recorded drains had each outcome, and how many of their jobs had each result.

    ``last`` is the drain that was recorded last; None if there is none, or if it cannot be read.
    """

    drains: Mapping[str, int]
    jobs: Mapping[str, int]
    last: DrainResult | None


def add_drain(
    client: Client, prefix: str, result: DrainResult, jobs: Mapping[str, int] | None = None
) -> None:
    """Record one drain, in one round trip. After an error, a part of the drain may be recorded.

    Args:
        jobs: the numbers of jobs to add to the sums, by result; None to take them from ``result``.
            A drain over several prefixes adds to each record only the jobs under that prefix.
    """
    key = drain_record(prefix)
    last: list[Arg] = []
    for name, value in asdict(result).items():
        last += [f"last:{name}", _UNKNOWN if value is None else value]
    counts = asdict(result) if jobs is None else jobs
    commands: list[tuple[Arg, ...]] = [
        ("HINCRBY", key, f"drains:{result.outcome}", 1),
        *(("HINCRBY", key, f"jobs:{name}", counts[name] or 0) for name in RESULTS),
        ("HSET", key, *last),
    ]
    read_checked(client, commands)


@dataclass(frozen=True, slots=True)
class Resumer:
    """An app, such as ``pm2:worker``, that resumes a queue when the app starts.

    ``at_ms`` is when a drain last saw this, in epoch milliseconds.
    """

    queue: str
    target: str
    at_ms: int


def record_starts(
    client: Client,
    prefix: str,
    target: str,
    at_ms: int,
    *,
    resumed: Collection[str],
    kept: Collection[str],
) -> None:
    """In one round trip, record which queues an app resumed when the app started.

    Args:
        resumed: names of the queues that the app resumed.
        kept: names of the queues that the app left paused; their fields are deleted.
    """
    key = drain_record(prefix)
    commands: list[tuple[Arg, ...]] = []
    if resumed:
        fields_ = [part for name in resumed for part in (_resumer_field(name, target), at_ms)]
        commands.append(("HSET", key, *fields_))
    if kept:
        commands.append(("HDEL", key, *(_resumer_field(name, target) for name in kept)))
    read_checked(client, commands)


def read_resumers(client: Client, prefix: str) -> list[Resumer]:
    """Each app, with each queue that the app resumed when a drain last saw the app start."""
    row = to_dict(client.call("HGETALL", drain_record(prefix)))
    found = []
    for name, value in sorted(row.items()):
        if name.startswith(_RESUMER):
            match read_json(name.removeprefix(_RESUMER), None)[0]:
                case [str(queue), str(target)] if (at_ms := to_int(value)) is not None:
                    found.append(Resumer(queue, target, at_ms))
    return found


def _resumer_field(queue: str, target: str) -> str:
    return _RESUMER + json.dumps([queue, target])


def read_drain_records(client: Client, prefixes: Sequence[str]) -> list[DrainRecord | None]:
    """The record of each prefix; all numbers are zero if no drain has been recorded.

    None for a record with a sum that is not a number: its numbers are unknown.
    """
    commands = [("HGETALL", drain_record(prefix)) for prefix in prefixes]
    return [_record(to_dict(row)) for row in read_checked(client, commands)]


def _record(row: Mapping[str, str]) -> DrainRecord | None:
    drains, jobs = (
        {name: to_int(row.get(f"{kind}:{name}", 0)) for name in names}
        for kind, names in (("drains", OUTCOMES), ("jobs", RESULTS))
    )
    known_drains = {name: n for name, n in drains.items() if n is not None and n >= 0}
    known_jobs = {name: n for name, n in jobs.items() if n is not None and n >= 0}
    if len(known_drains) < len(drains) or len(known_jobs) < len(jobs):
        return None
    return DrainRecord(
        drains=known_drains,
        jobs=known_jobs,
        last=_last(row) if "last:outcome" in row else None,
    )


def _last(row: Mapping[str, str]) -> DrainResult | None:
    values: dict[str, Any] = {
        item.name: to_int(row.get(f"last:{item.name}")) for item in fields(DrainResult)
    }
    values["outcome"] = row["last:outcome"]
    is_readable = all(values[name] is not None for name in values.keys() - _MAY_BE_UNKNOWN)
    return DrainResult(**values) if is_readable else None
