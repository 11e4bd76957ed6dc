"""Sets the global concurrency and the global rate limit of a queue."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from qctl.config.prefixes import only
from qctl.connection.address import Client
from qctl.durations import duration_s
from qctl.errors import UsageError
from qctl.ops.queues.find import find_queues, require_bullmq
from qctl.ops.queues.missing import no_such_queue
from qctl.plurals import counted
from qctl.wire.read.snapshot import QueueSnapshot
from qctl.wire.replies import MAX_INTEGER, to_int
from qctl.wire.write.limits import (
    GlobalRateLimit,
    NewConcurrency,
    NewRateLimit,
    StoredLimits,
    set_limits,
)

T = TypeVar("T")
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})", re.ASCII)
# The versions of BullMQ from which workers obey these limits (wire format 10.4).
_SINCE = {"concurrency": (5, 9), "rate limit": (5, 60)}


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsReport:
    """The limits of a queue after a change; for a dry run, as the change would leave them.

    Args:
        concurrency: None if there is no limit; a text if the stored value is not a number.
        rate_limit: None if there is no limit.
        was_concurrency, was_rate_limit: the limits before the change.
        remarks: what the operator must pay attention to.
    """

    queue: str
    prefix: str
    concurrency: int | str | None
    was_concurrency: int | str | None
    rate_limit: GlobalRateLimit | None
    was_rate_limit: GlobalRateLimit | None
    dry_run: bool
    remarks: tuple[str, ...]


def parse_concurrency(text: str | None) -> NewConcurrency:
    """The value of ``--concurrency``; a UsageError if it is neither a number nor ``none``."""
    if text is None:
        return None
    if text == "none":
        return "none"
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 17 else 0
    if not 0 < number <= MAX_INTEGER:
        raise UsageError(
            f"--concurrency {text!r} is neither a number from 1 nor none",
            hint="--concurrency 10; `qctl pause` lets no job start",
        )
    return number


def parse_rate_limit(text: str | None) -> NewRateLimit:
    """The value of ``--rate-limit``, such as ``100/1m``; a UsageError if it is malformed."""
    if text is None:
        return None
    if text == "none":
        return "none"
    jobs, _, within = text.partition("/")
    number = int(jobs) if jobs.isascii() and jobs.isdecimal() and len(jobs) < 17 else 0
    # "/s" is short for "/1s".
    seconds = duration_s(within if within[:1].isdigit() else f"1{within}", unit_required=True)
    milliseconds = round((seconds or 0) * 1000)
    if not 0 < number <= MAX_INTEGER or not 0 < milliseconds <= MAX_INTEGER:
        raise UsageError(
            f"--rate-limit {text!r} is neither N/D nor none",
            why="N is how many jobs may start within the duration D, for example 100/1m",
            hint="--rate-limit 10/1s",
        )
    return GlobalRateLimit(number, milliseconds)


def change_limits(
    client: Client,
    prefix: str,
    queue: str,
    concurrency: NewConcurrency,
    rate_limit: NewRateLimit,
    *,
    dry_run: bool = False,
) -> LimitsReport:
    """Set or remove limits of a queue.

    Raises:
        UsageError: there is nothing to set.
        NotFoundError: there is no such queue.
        RefusedError: the queue belongs to Bull 3 or 4.
    """
    if concurrency is None and rate_limit is None:
        raise UsageError(
            "nothing to set", hint="--concurrency N or none, or --rate-limit N/D or none"
        )
    (snapshot,) = find_queues(client, prefix, [queue])
    require_bullmq([snapshot])
    keys = snapshot.keys
    before = set_limits(client, keys, concurrency, rate_limit, dry_run=dry_run)
    if before is None:
        raise no_such_queue(client, only(prefix), [queue])
    was_concurrency, was_rate_limit = _concurrency(before), _rate_limit(before)
    return LimitsReport(
        queue=keys.name,
        prefix=keys.prefix,
        concurrency=was_concurrency if concurrency is None else _value(concurrency),
        was_concurrency=was_concurrency,
        rate_limit=was_rate_limit if rate_limit is None else _value(rate_limit),
        was_rate_limit=was_rate_limit,
        dry_run=dry_run,
        remarks=tuple(_remarks(snapshot, concurrency, rate_limit)),
    )


def _value(new: T | Literal["none"]) -> T | None:
    return None if new == "none" else new


def _concurrency(before: StoredLimits) -> int | str | None:
    number = to_int(before.concurrency)
    return (before.concurrency or None) if number is None else number


def _rate_limit(before: StoredLimits) -> GlobalRateLimit | None:
    most, duration_ms = to_int(before.max), to_int(before.duration)
    return None if most is None else GlobalRateLimit(most, duration_ms or 0)


def _remarks(
    snapshot: QueueSnapshot, concurrency: NewConcurrency, rate_limit: NewRateLimit
) -> Iterator[str]:
    active = snapshot.counts.active
    if isinstance(concurrency, int) and active > concurrency:
        yield (
            f"{counted(active, 'job')} run now and go on: no job starts until fewer than "
            f"{concurrency:,} run"
        )
    version = tuple(
        int(part) for part in (snapshot.client_version or "").split(".")[:2] if part.isdecimal()
    )
    for what, new in (("concurrency", concurrency), ("rate limit", rate_limit)):
        if new not in {None, "none"} and version and version < _SINCE[what]:
            since = ".".join(map(str, _SINCE[what]))
            yield (
                f"this queue was last opened by BullMQ {snapshot.client_version}; workers before "
                f"{since} ignore the global {what}"
            )
