"""Parses Redis URLs, and defines the interface of every Redis client in qctl.

=============================================  ==================================
URL                                            server
=============================================  ==================================
``redis://[user:password@]host[:port][/db]``   one server over TCP
``rediss://…``                                 the same over TLS
``unix:///path/to/redis.sock[?db=N]``          one server over a unix socket
``redis+sentinel://h1:p1,h2:p2/master[/db]``   the master, found by asking the sentinels
``redis+cluster://host:port``                  a cluster, found through any of its nodes
``embedded:``                                  a server that qctl starts for this client alone
``embedded:PATH``                              a shared server that qctl starts in the folder PATH
=============================================  ==================================

``valkey://`` and ``valkeys://`` are other names for ``redis://`` and ``rediss://``.
``rediss+sentinel://…`` and ``rediss+cluster://…`` use TLS too. Query parameters for TLS:
``ssl_ca_certs``, ``ssl_certfile``, ``ssl_keyfile``, ``ssl_password`` (of the key),
``ssl_server_name``, ``ssl_cert_reqs=none``. Query parameters for the sentinels themselves:
``sentinel_username``, ``sentinel_password``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from qctl.errors import UsageError

Arg = str | bytes | int

DEFAULT_URL = "redis://localhost:6379/0"
# The start of an embedded server's URL; see ``connection.embedded.server``.
EMBEDDED = "embedded:"
_SCHEMES = {
    "redis": "standalone",
    "rediss": "standalone",
    "valkey": "standalone",
    "valkeys": "standalone",
    "unix": "standalone",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "sentinel",
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
}


_TLS_SCHEMES = ("rediss", "valkeys")
_POSTGRES = ("postgres", "postgresql")
# Parameters of a URL whose values are secrets.
SECRET_PARAMETERS = ("ssl_password", "sentinel_password")


class Client(Protocol):
    """A Redis client. Replies have the form in which Redis sends them, with text as ``str``."""

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any: ...

    def pipeline(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        """Send any number of commands. Error replies are returned like the others, not raised."""
        ...

    def masters(self) -> Sequence[Client]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Address:
    """Where a Redis is. ``url`` includes the password; ``str()`` gives a URL without it."""

    mode: str = "standalone"  # or "sentinel" or "cluster"
    host: str = "localhost"
    port: int = 6379
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    unix_path: str | None = None
    tls: bool = False
    tls_options: dict[str, str] = field(default_factory=dict, repr=False)
    nodes: tuple[tuple[str, int], ...] = ()  # the sentinels, or nodes of the cluster
    master_name: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    url: str = field(default="", repr=False, compare=False)

    def greeting(self) -> list[tuple[Arg, ...]]:
        """The commands that a new connection sends first; each is answered with OK."""
        commands: list[tuple[Arg, ...]] = []
        if self.password is not None:
            user = (self.username,) if self.username else ()
            commands.append(("AUTH", *user, self.password))
        if self.db:
            # Database 0 needs no SELECT, which a user with only @read may not send.
            commands.append(("SELECT", self.db))
        return commands

    def __str__(self) -> str:
        user = f"{self.username}@" if self.username else ""
        if self.unix_path:
            return f"unix://{user}{self.unix_path}" + (f"?db={self.db}" if self.db else "")
        scheme = "rediss" if self.tls else "redis"
        if self.mode == "standalone":
            host = f"[{self.host}]" if ":" in self.host else self.host
            return f"{scheme}://{user}{host}:{self.port}/{self.db}"
        hosts = ",".join(f"{host}:{port}" for host, port in self.nodes)
        path = f"/{self.master_name}/{self.db}" if self.mode == "sentinel" else ""
        return f"{scheme}+{self.mode}://{user}{hosts}{path}"


def parse_url(url: str) -> Address:
    """Parse a Redis URL of any kind except ``embedded:``.

    Raises:
        UsageError: the URL has an unknown scheme, or a part is malformed or missing. The message
            does not repeat the URL, which may contain a password.
    """
    scheme, separator, _ = url.partition("://")
    mode = _SCHEMES.get(scheme)
    if scheme in _POSTGRES:
        raise UsageError(
            "qctl does not work with PostgreSQL",
            why="BullMQ 6 can also keep queues in PostgreSQL, but qctl reads only those in Redis",
            hint=f"name the Redis of the queues: --redis {DEFAULT_URL}",
        )
    if not separator or mode is None:
        raise UsageError(
            "the Redis URL has an unknown scheme",
            why=f"it must start with one of: {', '.join(f'{s}://' for s in _SCHEMES)}, {EMBEDDED}",
            hint=f"--redis {DEFAULT_URL}",
        )
    try:
        return replace(_parse(url, scheme, mode), url=url)
    except ValueError:
        # Do not chain the ValueError: its text may contain a part of the password.
        raise UsageError(
            "the Redis URL is malformed",
            why="a port or database in it is not a number in range, a bracket is missing, or a "
            "character in it needs %XX",
            hint=f"--redis {DEFAULT_URL}; special characters in a password need %XX",
        ) from None


def _parse(url: str, scheme: str, mode: str) -> Address:
    parts = urlsplit(url)
    if parts.fragment or "@" in parts.query or (scheme != "unix" and "@" in parts.path):
        # If a password has an unescaped /, ? or #, urlsplit takes a part of it for the host.
        raise ValueError("@ after the host")
    query = dict(parse_qsl(parts.query))
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    common: dict[str, Any] = {
        "mode": mode,
        "username": unquote(username) or None,
        "password": unquote(password) if password else None,
        "tls": scheme.startswith(_TLS_SCHEMES),
        "tls_options": {key: value for key, value in query.items() if key.startswith("ssl_")},
    }
    if scheme == "unix":
        return Address(unix_path=unquote(parts.path), db=int(query.get("db", 0)), **common)
    path = [unquote(part) for part in parts.path.split("/") if part]
    if mode == "standalone":
        host, port = _host_port(hosts, 6379)
        db = int(path[0]) if path else int(query.get("db", 0))
        return Address(host=host, port=port, db=db, **common)
    default_port = 26379 if mode == "sentinel" else 6379
    nodes = tuple(_host_port(item, default_port) for item in hosts.split(","))
    if mode == "cluster":
        return Address(nodes=nodes, host=nodes[0][0], port=nodes[0][1], **common)
    if not path:
        raise UsageError(
            "a sentinel URL needs the master's name",
            hint="redis+sentinel://host:26379/MASTER/0",
        )
    if "ssl_server_name" in query:
        raise UsageError(
            "ssl_server_name cannot be used with sentinels",
            why="the sentinels and the data nodes would all need this one name",
            hint="give each certificate the address of its server, and remove ssl_server_name",
        )
    return Address(
        nodes=nodes,
        master_name=path[0],
        db=int(path[1]) if len(path) > 1 else 0,
        sentinel_username=query.get("sentinel_username"),
        sentinel_password=query.get("sentinel_password"),
        **common,
    )


def _host_port(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if parts.port == 0:
        raise ValueError("port 0")
    return parts.hostname or "localhost", parts.port or default_port
