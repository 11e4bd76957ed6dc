"""What INFO reports of a server: its master, and whether it can lose writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qctl.connection.address import Client
from qctl.connection.info import parse_info
from qctl.errors import ReplyError, is_outage
from qctl.wire.replies import to_int

INFO_REPLICATION = ("INFO", "replication")


def read_info(node: Client, *sections: str) -> dict[str, str] | None:
    """Some sections of one server's INFO; None if this user may not run INFO.

    Raises:
        UnreachableError, ReplyError: the server is away.
    """
    found: dict[str, str] = {}
    # One section per command: Redis 6 does not take several.
    for reply in node.pipeline([("INFO", section) for section in sections]):
        if isinstance(reply, ReplyError):
            if is_outage(reply):
                raise reply
            return None
        found |= parse_info(str(reply))
    return found


@dataclass(frozen=True, slots=True)
class Upstream:
    """A replica's master: its ``host:port``, and whether the replica is in sync with it."""

    master: str
    is_in_sync: bool

    def __str__(self) -> str:
        out_of_step = "" if self.is_in_sync else ", which it is not in sync with"
        return f"a replica of {self.master}{out_of_step}"


def master_of(info: Mapping[str, str]) -> str | None:
    """The ``host:port`` of a replica's master; None for a master."""
    if info.get("role") != "slave":
        return None
    return f"{info.get('master_host', '?')}:{info.get('master_port', '?')}"


def read_upstream(client: Client) -> Upstream | None:
    """The master of the server that this client is connected to.

    None if that server is a master itself, or if this user may not run INFO.
    """
    return upstream(client.masters()[0].pipeline([INFO_REPLICATION])[0])


def upstream(reply: Any) -> Upstream | None:
    """What ``read_upstream`` returns, from the reply to ``INFO_REPLICATION``."""
    if isinstance(reply, ReplyError):
        return None
    info = parse_info(str(reply))
    master = master_of(info)
    return None if master is None else Upstream(master, info.get("master_link_status") == "up")


def is_master(reply: Any) -> bool:
    """Whether the reply to ``INFO_REPLICATION`` proves that the server is not a replica."""
    return not isinstance(reply, ReplyError) and parse_info(str(reply)).get("role") == "master"


def run_ids(client: Client) -> frozenset[str] | None:
    """The run ids of the masters' processes; None if this user may not run INFO.

    A failover or a restart changes the run ids.
    """
    infos = [read_info(node, "server") for node in client.masters()]
    if None in infos:
        return None
    return frozenset(info["run_id"] for info in infos if info and info.get("run_id"))


def can_lose_writes(client: Client) -> bool:
    """Whether Redis may forget the last acknowledged writes and keep the rest; True if unknown.

    Writes can be lost in a failover, if the replica was behind its master, and in a restart, if the
    append-only file was behind the memory.
    """
    infos = [read_info(node, "replication", "persistence") for node in client.masters()]
    return any(not info or _replicas(info) != 0 or info.get("aof_enabled") != "0" for info in infos)


def await_replicas(client: Client, timeout_ms: int, *, at_least: int = 0) -> bool | None:
    """Whether every replica acknowledges the last writes of this client's connections.

    Args:
        timeout_ms: how long each master waits for its replicas, in milliseconds.
        at_least: how many replicas each master must have. With fewer, the result is False: the
            missing replica may lack the writes, and may still become the master.

    Returns:
        None if this user may not run INFO or WAIT, or if INFO leaves out the number of replicas.
    """
    for node in client.masters():
        info = read_info(node, "replication")
        replicas = _replicas(info or {})
        if replicas is None:
            return None
        if replicas < at_least:
            return False
        if not replicas:
            continue
        try:
            reached = node.call("WAIT", replicas, timeout_ms, timeout_s=timeout_ms / 1000)
        except ReplyError as error:
            if error.code == "NOPERM":
                return None
            # The master has become a replica.
            return False
        if int(reached) < replicas:
            return False
    return True


def _replicas(info: Mapping[str, str]) -> int | None:
    return to_int(info.get("connected_slaves"))
