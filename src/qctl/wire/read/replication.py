"""Whether writes survive a failover, or Redis being killed."""

from __future__ import annotations

from qctl.connection.address import Client
from qctl.connection.info import parse_info
from qctl.errors import ReplyError
from qctl.wire.replies import to_int


def can_lose_writes(client: Client) -> bool:
    """Whether Redis may come back with the data from before an acknowledged write.

    Replicas are behind their master, and an append-only file is behind the memory. A Redis that has
    neither has at most a snapshot: if it comes back, it has lost jobs, too. True if unknown.
    """
    return any(_replicas(node) != 0 or _has_aof(node) for node in client.masters())


def await_replicas(client: Client, timeout_ms: int, *, at_least: int = 0) -> bool | None:
    """Whether every replica acknowledges the last writes of this client's connections.

    Args:
        timeout_ms: how long each master waits for its replicas, in milliseconds.
        at_least: replicas that each master should have: one that has lost its connection may be
            promoted, too.

    Returns:
        None if this user may not run INFO or WAIT.
    """
    for node in client.masters():
        replicas = _replicas(node)
        if replicas is None:
            return None
        if replicas < at_least:
            return False
        if not replicas:
            continue
        try:
            reached = node.call("WAIT", replicas, timeout_ms, timeout_s=timeout_ms / 1000)
        except ReplyError as error:
            # Any other error: by now the master is a replica itself.
            return None if error.code == "NOPERM" else False
        if int(reached) < replicas:
            return False
    return True


def _replicas(node: Client) -> int | None:
    found = _info(node, "replication")
    return None if found is None else to_int(found.get("connected_slaves")) or 0


def _has_aof(node: Client) -> bool:
    found = _info(node, "persistence")
    return found is None or found.get("aof_enabled") == "1"


def _info(node: Client, section: str) -> dict[str, str] | None:
    """None if this user may not run INFO."""
    try:
        text = str(node.call("INFO", section))
    except ReplyError as error:
        if error.code != "NOPERM":
            raise
        return None
    return parse_info(text)
