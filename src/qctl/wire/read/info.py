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
# What names another product in INFO.
_PRODUCTS = {"valkey_version": "Valkey", "dragonfly_version": "Dragonfly"}


@dataclass(frozen=True, slots=True)
class Upstream:
    """Of a replica: its master's ``host:port``, and whether it is connected to it and in step."""

    master: str
    is_in_sync: bool

    def __str__(self) -> str:
        out_of_step = "" if self.is_in_sync else ", which it is not in sync with"
        return f"a replica of {self.master}{out_of_step}"


def master_of(info: Mapping[str, str]) -> str | None:
    """Of a replica, the ``host:port`` of its master; None for a master."""
    if info.get("role") != "slave":
        return None
    return f"{info.get('master_host', '')}:{to_int(info.get('master_port')) or 0}"


def product(info: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Name and version of the server, from its INFO.

    A server that is compatible with Redis gives the version of that Redis as ``redis_version``, and
    its own beside it.
    """
    for field, name in _PRODUCTS.items():
        if version := info.get(field):
            return name, version.removeprefix("df-v")
    version = info.get("redis_version")
    return (info.get("server_name", "Redis").title() if version else None), version


def read_upstream(client: Client) -> Upstream | None:
    """What the first master that is connected to is a replica of; None for a master, and where
    this user may not ask.
    """
    return upstream(client.masters()[0].pipeline([INFO_REPLICATION])[0])


def upstream(reply: Any) -> Upstream | None:
    """The same, by the answer to ``INFO_REPLICATION``."""
    if isinstance(reply, ReplyError):
        return None
    info = parse_info(str(reply))
    master = master_of(info)
    return None if master is None else Upstream(master, info.get("master_link_status") == "up")
