"""What qctl's own workers tell of themselves: a hash each, and an index of all under a prefix.

The hash is found from a lock token without a search: ``<owner>:<n>`` is a token of the worker
``qctl:worker:<owner>``. It expires by itself; the index is trimmed by whoever beats.
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
# Hosts' clocks may differ; the hash alone says who lives.
_FORGET_MS = 3_600_000
_FIELDS = (
    *("host", "pid", "process", "prefix", "queue", "name", "started", "concurrency"),
    *("busy", "quiet", "completed", "failed", "rss"),
)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One of qctl's workers as it was at its last beat, at most 15 seconds ago.

    Args:
        owner: what all its lock tokens begin with, up to a colon.
        host, pid: of its process.
        process: the target that the process belongs to, e.g. ``qctl:emails``; "" for none.
        name: its name in ``pb`` and CLIENT LIST.
        started_ms: epoch ms.
        busy: jobs in hand.
        quiet: it takes no more jobs.
        completed, failed: jobs that ended there.
        rss_bytes: of the process; 0 when not known.
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
    """Write it, for ``TTL_S``.

    Raises:
        QctlError: Redis could not, or may not.
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
    """The worker has left, or it is known to be dead."""
    client.pipeline([("DEL", worker_heartbeat(owner)), ("ZREM", worker_index(prefix), owner)])


def owner_of(token: str | None) -> str:
    """The owner in a lock token; "" when there is none."""
    return token.rpartition(":")[0] if token else ""


def read_all(client: Client, prefix: str) -> list[Heartbeat]:
    """All of qctl's workers under a prefix that live, by queue and name."""
    owners = value_or(client.call("ZRANGE", worker_index(prefix), 0, -1), [])
    found = read(client, owners).values()
    return sorted(found, key=lambda h: (h.queue, h.name, h.owner))


def read(client: Client, owners: Iterable[str]) -> dict[str, Heartbeat]:
    """Those of some owners that are workers of qctl's and live, in one round trip."""
    wanted = [owner for owner in dict.fromkeys(owners) if owner]
    if not wanted:
        return {}
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
