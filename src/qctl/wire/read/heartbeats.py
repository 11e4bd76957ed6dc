"""Heartbeats of qctl's own workers: a hash for each worker, and an index for each prefix.

A lock token leads to the hash without a search: ``<owner>:<n>`` is a token of the worker whose hash
is ``qctl:worker:<owner>``. The hash expires by itself. Each beat removes old entries of the index.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from itertools import chain
from typing import Any

from qctl.connection.address import Arg, Client
from qctl.wire.keys import worker_heartbeat, worker_index
from qctl.wire.replies import read_checked, read_values, to_int

BEAT_S = 5.0
TTL_S = 15
# How long a worker stays in the index after its last beat. The time is long, because the clocks of
# hosts differ. Only the hash shows whether the worker lives.
_FORGET_MS = 3_600_000
# The fields of the hash: those of ``Heartbeat`` in the same order, but without ``owner``.
_FIELDS = (
    *("host", "pid", "process", "prefix", "queue", "name", "started", "concurrency"),
    *("busy", "quiet", "completed", "failed", "rss"),
)
_TEXTS = {"host", "process", "prefix", "queue", "name"}


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One of qctl's workers as it was at its last beat, at most 15 seconds ago.

    A number that cannot be read is None.

    Args:
        owner: the first part of all lock tokens of the worker; a colon follows.
        host, pid: host name and pid of the worker's process.
        target: the target of the process, e.g. ``qctl:emails`` (stored as ``process``), or "".
        name: the worker's name in ``pb`` and CLIENT LIST.
        started_ms: when the worker started, epoch ms.
        busy: number of running jobs.
        quiet: whether the worker takes no more jobs.
        completed, failed: number of jobs that ended in this worker.
        rss_bytes: memory of the process; 0 if unknown.
    """

    owner: str
    host: str
    pid: int | None
    target: str
    prefix: str
    queue: str
    name: str
    started_ms: int | None
    concurrency: int | None
    busy: int | None
    quiet: bool | None
    completed: int | None
    failed: int | None
    rss_bytes: int | None

    @property
    def jobs_done(self) -> int | None:
        """How many jobs ended in this worker."""
        if self.completed is None or self.failed is None:
            return None
        return self.completed + self.failed


def beat(client: Client, heartbeat: Heartbeat, now_ms: int) -> None:
    """Write a heartbeat that expires after ``TTL_S``.

    Raises:
        QctlError: Redis failed or refused.
    """
    owner, *values = astuple(heartbeat)
    key, index = worker_heartbeat(owner), worker_index(heartbeat.prefix)
    fields = dict(zip(_FIELDS, values, strict=True)) | {"quiet": int(bool(heartbeat.quiet))}
    commands: list[tuple[Arg, ...]] = [
        ("HSET", key, *chain.from_iterable(fields.items())),
        ("EXPIRE", key, TTL_S),
        ("ZADD", index, now_ms, owner),
        ("ZREMRANGEBYSCORE", index, "-inf", f"({now_ms - _FORGET_MS}"),
        ("PEXPIRE", index, _FORGET_MS),
    ]
    read_checked(client, commands)


def end(client: Client, prefix: str, owner: str) -> None:
    """Delete the heartbeat of a worker that has stopped or is known to be dead."""
    client.pipeline([("DEL", worker_heartbeat(owner)), ("ZREM", worker_index(prefix), owner)])


def owner_of(token: str | None) -> str:
    """The owner in a lock token; "" without a token."""
    return token.rpartition(":")[0] if token else ""


def read_all(client: Client, *prefixes: str) -> list[Heartbeat]:
    """All living workers of qctl under these prefixes, sorted by queue and name."""
    commands = [("ZRANGE", worker_index(prefix), 0, -1) for prefix in prefixes]
    owners = chain.from_iterable(read_values(client, commands, []))
    found = read(client, owners).values()
    return sorted(found, key=lambda h: (h.queue, h.prefix, h.name, h.owner))


def read(client: Client, owners: Iterable[str]) -> dict[str, Heartbeat]:
    """The heartbeats of the ``owners`` that are alive, by owner, in one round trip."""
    wanted = [owner for owner in dict.fromkeys(owners) if owner]
    commands = [("HMGET", worker_heartbeat(owner), *_FIELDS) for owner in wanted]
    rows = read_values(client, commands, [None] * len(_FIELDS))
    found = {}
    for owner, row in zip(wanted, rows, strict=True):
        if row[0] is None:
            continue
        values: dict[str, Any] = {
            field: (text or "") if field in _TEXTS else to_int(text)
            for field, text in zip(_FIELDS, row, strict=True)
        }
        values["quiet"] = {0: False, 1: True}.get(values["quiet"])
        found[owner] = Heartbeat(owner, *values.values())
    return found
