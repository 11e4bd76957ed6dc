"""Checks of Redis itself: persistence, memory, version, clock and cluster."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TypeVar

from qctl.connection.cluster import key_slot, open_slots
from qctl.connection.socket_client import encode
from qctl.errors import ReplyError, is_outage
from qctl.ops.doctor.examination import Examination
from qctl.ops.doctor.findings import (
    CannotCheckError,
    Finding,
    NothingToCheckError,
    Severity,
    Subject,
    redis,
)
from qctl.ops.processes.suggest import redis_cli
from qctl.wire.checks.memory import Holding, holdings
from qctl.wire.read.server import ServerFacts

OLDEST_SUPPORTED = (5, 0)
OLDEST_RECOMMENDED = (6, 2)
# A larger difference of clocks is reported, because delays and due times depend on hosts' clocks.
MAX_SKEW_MS = 1000
# Shares of maxmemory.
MEMORY_WARNING, MEMORY_ERROR = 0.8, 0.95
_LARGEST_SHOWN = 5
T = TypeVar("T")
# Arguments for redis-cli.
_INFO, _APPEND = ("info", "persistence"), ("config", "set", "appendonly", "yes")


def eviction(exam: Examination) -> Iterator[Finding]:
    """An eviction policy with which Redis deletes keys of queues when its memory is full."""
    for server in exam.servers:
        policy = _known(server.eviction_policy)
        if policy != "noeviction":
            limited = bool(server.maxmemory_bytes)
            when = "when its memory is full" if limited else "as soon as a maxmemory is set"
            yield Finding(
                severity="error" if limited else "warning",
                subject=redis(server),
                what=f"the eviction policy is {policy}: {server.product} deletes jobs and locks "
                f"{when}",
                evidence={"eviction_policy": policy, "maxmemory_bytes": server.maxmemory_bytes},
                remedy="BullMQ needs noeviction; write it into redis.conf too",
                commands=(
                    redis_cli(
                        exam.address, server.node, "config", "set", "maxmemory-policy", "noeviction"
                    ),
                ),
            )


def persistence(exam: Examination) -> Iterator[Finding]:
    """Persistence that fails, or that lets a restart or a crash of Redis lose jobs."""
    for server in exam.servers:
        facts = {
            "aof": _known(server.aof_enabled),
            "rdb_schedule": server.rdb_schedule,
            "rdb_changes_since_save": server.rdb_changes,
        }
        for severity, what, remedy, words in _losses(server):
            yield Finding(
                severity=severity,
                subject=redis(server),
                what=what,
                evidence=facts,
                remedy=remedy,
                commands=(redis_cli(exam.address, server.node, *words),) if words else (),
            )


def _losses(server: ServerFacts) -> Iterator[tuple[Severity, str, str, tuple[str, ...]]]:
    """For each problem: severity, text, remedy, and arguments for redis-cli (may be empty)."""
    if server.aof_ok is False or server.rdb_ok is False:
        which = "append-only file" if server.aof_ok is False else "snapshot"
        what = f"{server.product} could not write its {which} the last time it tried"
        yield (
            "error",
            what,
            "read the server's log: is the disk full, or does the server lack permission to "
            "write to its folder?",
            _INFO,
        )
    if server.aof_enabled:
        return
    if server.rdb_schedule == "":
        what = "neither append-only file nor snapshots: a restart of "
        what += f"{server.product} loses all jobs"
        yield "warning", what, "turn one on, also in redis.conf", _APPEND
    elif server.rdb_schedule is None and not _has_saved(server):
        yield (
            "info",
            "there is no append-only file, and it is unknown whether snapshots are made: this user "
            "may not run CONFIG GET",
            "ask the administrator of this Redis what a restart would lose",
            (),
        )
    else:
        what = f"snapshots only: a crash of {server.product} loses all changes since the last "
        what += "snapshot"
        changes = f" ({server.rdb_changes:,} now)" if server.rdb_changes else ""
        yield (
            "info",
            what + changes,
            "with an append-only file, a crash loses one second of changes at most",
            _APPEND,
        )


def memory(exam: Examination) -> Iterator[Finding]:
    """A Redis that has nearly reached its memory limit (at the limit, Redis refuses writes).

    The finding also names the parts of the queues that use the most memory.
    """
    for server in exam.servers:
        used, limit = _known(server.used_memory_bytes), _known(server.maxmemory_bytes)
        share = used / limit if limit else 0.0
        if share < MEMORY_WARNING:
            continue
        largest = _largest(exam)
        shown = ", ".join(map(str, largest or ()))
        if largest is None:
            shown = "unknown, since MEMORY USAGE is not granted"
        yield Finding(
            severity="error" if share >= MEMORY_ERROR else "warning",
            subject=redis(server),
            what=f"{server.product} uses {share:.0%} of its maxmemory"
            + (f"; the largest parts of these queues: {shown}" if shown else ""),
            evidence={
                "used_memory_bytes": used,
                "maxmemory_bytes": limit,
                "largest": None if largest is None else [asdict(held) for held in largest],
            },
            remedy="raise maxmemory, or keep fewer finished jobs (removeOnComplete, removeOnFail)",
        )


def _largest(exam: Examination) -> list[Holding] | None:
    """The parts of the queues that use the most memory; None if MEMORY USAGE is denied."""
    try:
        found = holdings(exam.client, exam.snapshots)
    except ReplyError as error:
        if is_outage(error):
            raise
        return None
    return sorted(found, key=lambda held: held.estimated_bytes, reverse=True)[:_LARGEST_SHOWN]


def redis_version(exam: Examination) -> Iterator[Finding]:
    """A Redis that is older than the versions that BullMQ needs or recommends."""
    for server in exam.servers:
        found = _known(re.match(r"(\d+)\.(\d+)", server.version or ""))
        version = (int(found[1]), int(found[2]))
        if version >= OLDEST_RECOMMENDED:
            continue
        yield Finding(
            severity="error" if version < OLDEST_SUPPORTED else "warning",
            subject=redis(server),
            what=f"{_described(server)} is older than the 6.2 that BullMQ recommends",
            evidence={
                "version": server.version,
                "server": server.product,
                "server_version": server.product_version,
            },
            remedy=f"update {server.product}; below 5.0 BullMQ does not work at all",
        )


def _described(server: ServerFacts) -> str:
    """The Redis version; for another product, also its own name and version."""
    if server.product == "Redis":
        return f"Redis {server.version}"
    name = f"{server.product} {server.product_version}"
    return f"{name} is compatible with Redis {server.version}, which"


def clock(exam: Examination) -> Iterator[Finding]:
    """A clock of this host that is certainly more than 1 s off Redis' clock."""
    for server in exam.servers:
        ahead_ms = server.clock_ahead_ms
        if server.clock_error_ms is None:
            raise CannotCheckError(
                "this Redis user may not run TIME", hint="grant it: ACL SETUSER … +time"
            )
        if abs(ahead_ms) - server.clock_error_ms <= MAX_SKEW_MS:
            continue
        side = "behind" if ahead_ms > 0 else "ahead of"
        yield Finding(
            severity="warning",
            subject=redis(server),
            what=f"this host's clock is {abs(ahead_ms) / 1000:.1f} s {side} that of "
            f"{server.product}",
            evidence={"clock_ahead_ms": ahead_ms, "clock_error_ms": server.clock_error_ms},
            remedy="synchronise both (NTP): delays and schedules depend on the hosts' clocks",
            commands=("timedatectl status",),
        )


def replica(exam: Examination) -> Iterator[Finding]:
    """A connection to a replica in place of its master."""
    for server in exam.servers:
        if _known(server.role) == "slave":
            yield Finding(
                severity="error",
                subject=redis(server),
                what=f"this {server.product} is a replica: it takes no jobs, and its data may be "
                "old",
                evidence={"role": server.role},
                remedy="connect to the master, whose address this command shows",
                commands=(redis_cli(exam.address, server.node, "info", "replication"),),
            )


def cluster_prefix(exam: Examination) -> Iterator[Finding]:
    """Queues whose keys are in several slots of a cluster: BullMQ's scripts fail on them."""
    if exam.address.mode != "cluster":
        raise NothingToCheckError("this Redis is not a cluster")
    for snapshot in exam.snapshots:
        if not re.search(r"\{[^}]+\}", snapshot.keys("")):
            prefix = snapshot.keys.prefix
            yield Finding(
                severity="error",
                subject=Subject("queue", snapshot.keys.name),
                what="its keys lie in several slots of the cluster: BullMQ's scripts fail",
                evidence={"prefix": prefix},
                remedy=f"give producers and workers a prefix with a hash tag, such as {{{prefix}}}",
            )


def moving_slots(exam: Examination) -> Iterator[Finding]:
    """Queues whose slot is being moved to another node, or was left half moved."""
    if exam.address.mode != "cluster":
        return  # cluster_prefix already reports that Redis is not a cluster.
    try:
        masters = exam.client.masters()
        moving = {slot for node in masters for slots in open_slots(node) for slot in slots}
    except ReplyError:
        raise CannotCheckError(
            "this Redis user may not ask which slots are moving",
            hint="grant it: ACL SETUSER … +cluster|nodes",
        ) from None
    host, port = exam.address.host, exam.address.port
    for snapshot in exam.snapshots:
        slot = key_slot(encode(snapshot.keys("")))
        if slot in moving:
            yield Finding(
                severity="warning",
                subject=Subject("queue", snapshot.keys.name),
                what=f"its slot {slot} is moving to another node of the cluster: until the move "
                "ends, no job can be added, start or end; jobs that a Node worker ends "
                "meanwhile may be recorded as failed, or run again",
                evidence={"slot": slot},
                remedy="wait until the reshard ends; if none is running, complete the move with "
                "redis-cli --cluster fix",
                commands=(redis_cli(exam.address, None, "--cluster", "check", f"{host}:{port}"),),
            )


def _has_saved(server: ServerFacts) -> bool:
    """Whether Redis has saved a snapshot since its start.

    The time of the last save alone proves nothing, because Redis sets that time at its start.
    """
    if server.rdb_saved_at_ms is None or server.uptime_s is None:
        return False
    # Redis reports both times in whole seconds. A difference of up to 5 s is no sign of a save.
    started_ms = time.time() * 1000 + server.clock_ahead_ms - server.uptime_s * 1000
    return server.rdb_saved_at_ms > started_ms + 5000


def _known(fact: T | None) -> T:
    """The value of a fact from INFO; raises CannotCheckError if INFO does not show it."""
    if fact is None:
        raise CannotCheckError(
            "this Redis user may not call INFO, or INFO of this Redis lacks a field",
            hint="grant it: ACL SETUSER … +info",
        )
    return fact
