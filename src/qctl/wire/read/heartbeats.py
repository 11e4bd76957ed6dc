"""Heartbeats of qctl's own workers: a hash for each, and an index of all under a prefix.

A lock token leads to the hash without a search: ``<owner>:<n>`` is a token of the worker
``qctl:worker:<owner>``. The hash expires by itself; each beat removes old entries from the index.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qctl.connection.address import Arg, Client
from qctl.wire.keys import worker_heartbeat, worker_index
from qctl.wire.replies import to_int, value_or

BEAT_S = 5.0
TTL_S = 15
# Long enough for clocks that differ: whether a worker lives is decided by its hash alone.
_FORGET_MS = 3_600_000
_FIELDS = (
    *("host", "pid", "process", "prefix", "queue", "name", "started", "concurrency"),
    *("busy", "quiet", "completed", "failed", "rss"),
)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One of qctl's workers as it was at its last beat, at most 15 seconds ago.

    Args:
        owner: the part of all its lock tokens before the colon.
        host, pid: of its process.
        process: the target that the process belongs to, e.g. ``qctl:emails``; "" if there is none.
        name: its name in ``pb`` and CLIENT LIST.
        started_ms: epoch ms.
        busy: number of running jobs.
        quiet: whether it takes no more jobs.
        completed, failed: number of jobs that ended in this worker.
        rss_bytes: memory of the process; 0 if unknown.
    """

    owner: str
    host: str
    pid: int
    process: str
    prefix: str
    queue: str
    name: str
    started_ms: int
    concurrency: int
    busy: int
    quiet: bool
    completed: int
    failed: int
    rss_bytes: int


def beat(client: Client, heartbeat: Heartbeat, now_ms: int) -> None:
    """Write a heartbeat that expires after ``TTL_S``.

    Raises:
        QctlError: Redis failed or refused.
    """
    h = heartbeat
    values: tuple[Arg, ...] = (
        *(h.host, h.pid, h.process, h.prefix, h.queue, h.name, h.started_ms, h.concurrency),
        *(h.busy, int(h.quiet), h.completed, h.failed, h.rss_bytes),
    )
    key, index = worker_heartbeat(h.owner), worker_index(h.prefix)
    pairs = [part for pair in zip(_FIELDS, values, strict=True) for part in pair]
    replies = client.pipeline(
        [
            ("HSET", key, *pairs),
            ("EXPIRE", key, TTL_S),
            ("ZADD", index, now_ms, h.owner),
            ("ZREMRANGEBYSCORE", index, "-inf", f"({now_ms - _FORGET_MS}"),
            ("PEXPIRE", index, _FORGET_MS),
        ]
    )
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply


def end(client: Client, prefix: str, owner: str) -> None:
    """Delete the heartbeat of a worker that has stopped or is known to be dead."""
    client.pipeline([("DEL", worker_heartbeat(owner)), ("ZREM", worker_index(prefix), owner)])


def owner_of(token: str | None) -> str:
    """The owner in a lock token; "" without a token."""
    return token.rpartition(":")[0] if token else ""


def read_all(client: Client, prefix: str) -> list[Heartbeat]:
    """All living workers of qctl under a prefix, by queue and name."""
    owners = value_or(client.call("ZRANGE", worker_index(prefix), 0, -1), [])
    found = read(client, owners).values()
    return sorted(found, key=lambda h: (h.queue, h.name, h.owner))


def read(client: Client, owners: Iterable[str]) -> dict[str, Heartbeat]:
    """The living workers of qctl among some owners, in one round trip."""
    wanted = [owner for owner in dict.fromkeys(owners) if owner]
    rows = client.pipeline([("HMGET", worker_heartbeat(owner), *_FIELDS) for owner in wanted])
    found = {}
    for owner, row in zip(wanted, rows, strict=True):
        values: Sequence[str | None] = value_or(row, [None] * len(_FIELDS))
        if values[0] is not None:
            with contextlib.suppress(ValueError):
                found[owner] = _parse(owner, dict(zip(_FIELDS, values, strict=True)))
    return found


def _parse(owner: str, row: dict[str, str | None]) -> Heartbeat:
    def whole(field: str) -> int:
        return to_int(row[field]) or 0

    def text(field: str) -> str:
        return row[field] or ""

    return Heartbeat(
        owner=owner,
        host=text("host"),
        pid=whole("pid"),
        process=text("process"),
        prefix=text("prefix"),
        queue=text("queue"),
        name=text("name"),
        started_ms=whole("started"),
        concurrency=whole("concurrency"),
        busy=whole("busy"),
        quiet=text("quiet") == "1",
        completed=whole("completed"),
        failed=whole("failed"),
        rss_bytes=whole("rss"),
    )
