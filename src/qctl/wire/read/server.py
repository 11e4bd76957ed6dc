"""The condition of the Redis servers: persistence, memory, replicas, clock."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from qctl.connection.address import Client
from qctl.connection.info import product
from qctl.connection.socket_client import SocketClient
from qctl.errors import ReplyError, is_outage
from qctl.wire.read.info import master_of, read_info
from qctl.wire.replies import to_dict, to_int

_SECTIONS = ("server", "memory", "persistence", "replication")
_SETTINGS = ("appendfsync", "save", "stop-writes-on-bgsave-error", "min-replicas-to-write")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaFacts:
    """A replica. It has not yet acknowledged the newest ``behind_bytes`` of its master's writes."""

    address: str
    online: bool
    lag_s: int | None
    behind_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """The condition of one server. A field is None if Redis does not report it to this user.

    Args:
        node: ``(host, port)`` if there are several masters, else None.
        version: the version of Redis with which the server is compatible.
        product, product_version: what the server is, for example ``Valkey``; ``Redis`` if unknown.
        role: ``master``, or ``slave`` for a replica.
        master: ``host:port`` of a replica's master; None for a master.
        maxmemory_bytes: the limit; 0 for no limit.
        eviction_policy: what Redis deletes at that limit; BullMQ needs ``noeviction``.
        aof_ok, rdb_ok: whether the last write of the file succeeded.
        aof_fsync: ``always``, ``everysec`` or ``no``.
        rdb_saved_at_ms: when the last snapshot was saved, epoch milliseconds by this server's
            clock; Redis counts its own start as a snapshot.
        rdb_changes: writes since the last snapshot.
        rdb_schedule: the ``save`` setting; empty if no snapshots are made.
        rdb_stops_writes: whether Redis refuses writes after a failed snapshot.
        replicas_needed: Redis refuses writes if it has fewer good replicas than this.
        replicas_good: how many replicas have a small enough lag; None if Redis needs none.
        clock_ahead_ms: how far this server's clock is ahead of this host's; 0 if unknown.
        clock_error_ms: the most by which ``clock_ahead_ms`` may be wrong; None if unknown.
    """

    node: tuple[str, int] | None = None
    version: str | None
    product: str
    product_version: str | None
    role: str | None
    master: str | None
    uptime_s: int | None
    used_memory_bytes: int | None
    maxmemory_bytes: int | None
    eviction_policy: str | None
    aof_enabled: bool | None
    aof_ok: bool | None
    aof_fsync: str | None
    rdb_saved_at_ms: int | None
    rdb_changes: int | None
    rdb_ok: bool | None
    rdb_schedule: str | None
    rdb_stops_writes: bool | None
    replicas_needed: int | None
    replicas_good: int | None
    replicas: tuple[ReplicaFacts, ...]
    clock_ahead_ms: int
    clock_error_ms: int | None


def read_servers(client: Client) -> tuple[ServerFacts, ...]:
    """The condition of each master, in three round trips per master.

    Raises:
        UnreachableError: a master does not answer.
    """
    nodes = client.masters()
    return tuple(
        # Only a cluster has several masters, each with its own connection.
        replace(_read(node), node=(node.address.host, node.address.port))
        if len(nodes) > 1 and isinstance(node, SocketClient)
        else _read(node)
        for node in nodes
    )


def clock_ms(client: Client) -> int:
    """Redis' time in epoch milliseconds; this host's time if Redis refuses TIME.

    Raises:
        UnreachableError: Redis does not answer.
    """
    try:
        return _time_ms(client)
    except ReplyError:
        return int(time.time() * 1000)


def _time_ms(client: Client) -> int:
    seconds, micros = client.call("TIME")
    return int(seconds) * 1000 + int(micros) // 1000


def _read(node: Client) -> ServerFacts:
    ahead_ms, error_ms = _clock(node)
    info = read_info(node, *_SECTIONS) or {}
    settings = _settings(node)
    name, own_version = product(info)
    saved_at_s = to_int(info.get("rdb_last_save_time"))
    return ServerFacts(
        version=info.get("redis_version"),
        product=name or "Redis",
        product_version=own_version,
        role=info.get("role"),
        master=master_of(info),
        uptime_s=to_int(info.get("uptime_in_seconds")),
        used_memory_bytes=to_int(info.get("used_memory")),
        maxmemory_bytes=to_int(info.get("maxmemory")),
        eviction_policy=info.get("maxmemory_policy"),
        aof_enabled=_is(info.get("aof_enabled"), "1"),
        aof_ok=_is(info.get("aof_last_write_status"), "ok"),
        aof_fsync=settings.get("appendfsync"),
        rdb_saved_at_ms=None if saved_at_s is None else saved_at_s * 1000,
        rdb_changes=to_int(info.get("rdb_changes_since_last_save")),
        rdb_ok=_is(info.get("rdb_last_bgsave_status"), "ok"),
        rdb_schedule=settings.get("save"),
        rdb_stops_writes=_is(settings.get("stop-writes-on-bgsave-error"), "yes"),
        replicas_needed=to_int(settings.get("min-replicas-to-write")),
        replicas_good=to_int(info.get("min_slaves_good_slaves")),
        replicas=_replicas(info),
        clock_ahead_ms=ahead_ms,
        clock_error_ms=error_ms,
    )


def _clock(node: Client) -> tuple[int, int | None]:
    before_ns = time.time_ns()
    try:
        server_ms = _time_ms(node)
    except ReplyError as error:
        if is_outage(error):
            raise
        return 0, None
    after_ns = time.time_ns()
    error_ms = -(-(after_ns - before_ns) // 1_000_000)
    return server_ms - (before_ns + after_ns) // 2_000_000, error_ms


def _is(value: str | None, expected: str) -> bool | None:
    return None if value is None else value == expected


def _settings(node: Client) -> dict[str, str]:
    found: dict[str, str] = {}
    for reply in node.pipeline([("CONFIG", "GET", name) for name in _SETTINGS]):
        # Hosted Redis often has no CONFIG.
        if not isinstance(reply, ReplyError):
            found |= to_dict(reply)
    return found


def _replicas(info: Mapping[str, str]) -> tuple[ReplicaFacts, ...]:
    offset = to_int(info.get("master_repl_offset"))
    found: list[ReplicaFacts] = []
    # Do not loop up to ``connected_slaves``: in a broken answer, it may be any number.
    while (text := info.get(f"slave{len(found)}")) is not None:
        fields = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
        reached = to_int(fields.get("offset"))
        found.append(
            ReplicaFacts(
                address=f"{fields.get('ip', '?')}:{fields.get('port', '?')}",
                online=fields.get("state") == "online",
                lag_s=to_int(fields.get("lag")),
                behind_bytes=None if offset is None or reached is None else offset - reached,
            )
        )
    return tuple(found)
