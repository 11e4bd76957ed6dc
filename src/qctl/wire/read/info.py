"""What INFO says of a server: which product it is, and whose replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qctl.connection.address import Client
from qctl.connection.info import parse_info
from qctl.errors import ReplyError
from qctl.wire.replies import to_int

INFO_REPLICATION = ("INFO", "replication")
# Fields of INFO that only another product has.
_PRODUCTS = {"valkey_version": "Valkey", "dragonfly_version": "Dragonfly"}


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
    return f"{info.get('master_host', '')}:{to_int(info.get('master_port')) or 0}"


def product(info: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Name and version of the server, from its INFO.

    A server that is compatible with Redis has the version of that Redis in ``redis_version``, and
    its own version in another field.
    """
    for field, name in _PRODUCTS.items():
        if version := info.get(field):
            return name, version.removeprefix("df-v")
    version = info.get("redis_version")
    return (info.get("server_name", "Redis").title() if version else None), version


def read_upstream(client: Client) -> Upstream | None:
    """The master of the server that this client is connected to.

    None if that server is a master itself, or if this user may not run INFO.
    """
    return upstream(client.masters()[0].pipeline([INFO_REPLICATION])[0])


def upstream(reply: Any) -> Upstream | None:
    """The same, by the reply to ``INFO_REPLICATION``."""
    if isinstance(reply, ReplyError):
        return None
    info = parse_info(str(reply))
    master = master_of(info)
    return None if master is None else Upstream(master, info.get("master_link_status") == "up")
