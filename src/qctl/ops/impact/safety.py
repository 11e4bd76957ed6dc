"""What Redis itself would lose in a crash, judged by its persistence, eviction and replicas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qctl.wire.read.server import ServerFacts

# A replica that was silent for longer than this has probably lost contact.
_LAG_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSafety:
    """How safe the data of one master is. None means unknown.

    Args:
        persistence: ``aof``, ``rdb``, ``none`` or None.
        loss_s: a crash of Redis now would lose at most the changes of this many seconds; None if
            it would lose everything, or if unknown.
        rdb_age_s, rdb_changes: seconds and changes since the last snapshot.
        replica_lag_s: the longest time since a replica was last in contact, in seconds.
        is_writable: False if Redis refuses writes; nothing can be drained then.
        replica_of: the master's ``host:port`` if this is a replica, whose data may be old.
        hazards: the problems, each in one clause.
    """

    persistence: str | None
    aof_fsync: str | None
    loss_s: float | None
    rdb_age_s: float | None
    rdb_changes: int | None
    eviction_policy: str | None
    used_memory_bytes: int | None
    maxmemory_bytes: int | None
    replicas: int
    replica_lag_s: int | None
    is_writable: bool | None
    replica_of: str | None
    hazards: tuple[str, ...]


def data_safety(server: ServerFacts, now_ms: int) -> DataSafety:
    """How safe the data of one master is, at ``now_ms`` by this host's clock."""
    persistence = _persistence(server)
    age_s = None
    if server.rdb_saved_at_ms is not None:
        age_s = max((now_ms + server.clock_ahead_ms - server.rdb_saved_at_ms) / 1000, 0.0)
    loss_s = None
    if persistence == "aof":
        # With "no", the operating system decides when to write. Linux writes about every 30 s.
        loss_s = {"always": 0.0, "everysec": 1.0, "no": 30.0}.get(server.aof_fsync or "")
    elif persistence == "rdb":
        loss_s = age_s
    lags = [replica.lag_s for replica in server.replicas if replica.lag_s is not None]
    return DataSafety(
        persistence=persistence,
        aof_fsync=server.aof_fsync if persistence == "aof" else None,
        loss_s=loss_s,
        rdb_age_s=age_s,
        rdb_changes=server.rdb_changes,
        eviction_policy=server.eviction_policy,
        used_memory_bytes=server.used_memory_bytes,
        maxmemory_bytes=server.maxmemory_bytes,
        replicas=len(server.replicas),
        replica_lag_s=max(lags, default=None),
        is_writable=is_writable(server),
        replica_of=server.master,
        hazards=tuple(_hazards(server, persistence)),
    )


def _persistence(server: ServerFacts) -> str | None:
    if server.aof_enabled:
        return "aof"
    if server.rdb_schedule is None or server.aof_enabled is None:
        # Without CONFIG or INFO it is unknown what Redis writes to disk.
        return None
    return "rdb" if server.rdb_schedule else "none"


def is_writable(server: ServerFacts) -> bool | None:
    """Whether Redis accepts writes: False if any fact forbids it, otherwise None if any is unknown.

    Redis refuses writes on a replica, at its memory limit, with too few good replicas, after a
    failed write of the append-only file, and by default after a failed snapshot.
    """
    facts = (
        None if server.role is None else server.role != "slave",
        _has_room(server),
        _has_enough_replicas(server),
        None if server.aof_enabled is None else not server.aof_enabled or server.aof_ok,
        _snapshots_allow_writes(server),
    )
    return False if False in facts else None if None in facts else True


def _has_room(server: ServerFacts) -> bool | None:
    limit, used = server.maxmemory_bytes, server.used_memory_bytes
    if limit == 0 or (limit and used is not None and used < limit):
        return True
    if limit is None or used is None:
        return None
    match server.eviction_policy:
        case "noeviction":
            return False
        case policy if policy is not None and policy.startswith("allkeys-"):
            return True
    # volatile-*: Redis has room only if it finds keys that expire. BullMQ's jobs do not expire.
    return None


def _has_enough_replicas(server: ServerFacts) -> bool | None:
    """Whether enough replicas are good; None if unknown.

    If CONFIG cannot be read, INFO may tell: it counts the good replicas only if some are needed.
    """
    needed, good = server.replicas_needed, server.replicas_good
    if needed is None:
        return True if good is None else None
    return needed == 0 or (None if good is None else good >= needed)


def _snapshots_allow_writes(server: ServerFacts) -> bool | None:
    """False if Redis refuses writes because a snapshot failed; None if unknown."""
    if server.rdb_ok or server.rdb_schedule == "" or server.rdb_stops_writes is False:
        return True
    return None if server.rdb_ok is None or server.rdb_schedule is None else False


def _hazards(server: ServerFacts, persistence: str | None) -> Iterator[str]:
    name = server.product
    if server.role == "slave":
        yield (
            f"this is a replica of {server.master}: its data may be old, and queues cannot be "
            "paused here"
        )
    if _has_enough_replicas(server) is False:
        yield (
            f"{name} refuses writes with fewer than {server.replicas_needed} good replicas, and "
            f"has {server.replicas_good or 0}"
        )
    if persistence == "none":
        yield f"{name} keeps nothing on disk: a restart of {name} would lose every job"
    if persistence == "aof" and server.aof_ok is False:
        yield f"the last write of the append-only file failed, so {name} refuses writes"
    if server.rdb_ok is False and server.rdb_schedule != "":
        then = f", after which {name} refuses writes by default"
        yield f"the last snapshot failed{'' if server.rdb_stops_writes is False else then}"
    policy, limit = server.eviction_policy, server.maxmemory_bytes
    if policy not in {None, "noeviction"}:
        when = "at its memory limit" if limit else "if it gets a memory limit"
        yield f"{name} may delete jobs {when}: its eviction policy is {policy}, not noeviction"
    if limit and server.used_memory_bytes and server.used_memory_bytes > 0.9 * limit:
        share = 100 * server.used_memory_bytes // limit
        effects = {True: "", None: ", so it may refuse writes", False: ", so it refuses writes"}
        yield f"{name} uses {share} % of its memory limit{effects[_has_room(server)]}"
    for replica in server.replicas:
        if not replica.online:
            yield f"the replica {replica.address} is not in sync with its master"
        elif (replica.lag_s or 0) > _LAG_S:
            yield f"the replica {replica.address} last contacted its master {replica.lag_s} s ago"
