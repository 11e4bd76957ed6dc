"""Finds the guards (``read_only``, ``confirm``) that hold for a command and its Redis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from qctl.config.files import DEFAULT, Layer, Lookup, context_names, layers_of
from qctl.connection.address import EMBEDDED, parse_url
from qctl.errors import UsageError

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class Guards(NamedTuple):
    """The guards that hold for a command.

    Args:
        context: the context that sets ``read_only``; if none does, the one that sets
            ``confirm``; if none does, the chosen context.
        read_only: whether commands that write are refused.
        confirm: whether commands that write ask for the name of ``context``.
        url_override: the flag or variable that replaces the chosen context's own Redis, or None.
    """

    context: str | None = None
    read_only: bool = False
    confirm: bool = False
    url_override: str | None = None


def find_guards(url: str, chosen: str | None, lookup: Lookup, files: Sequence[Layer]) -> Guards:
    """The guards of the chosen context, and of every other context that names the same Redis.

    Args:
        url: the Redis in use.
        lookup: finds the values in force, and receives the origins of the guards.

    Raises:
        UsageError: a guard is neither true nor false.
    """
    guarding = [*_other_contexts(url, chosen, lookup, files), (chosen, lookup)]
    read_only = _first_with("read_only", guarding, lookup)
    # `confirm` asks for a context's name, so it needs a context.
    confirm = _first_with("confirm", [found for found in guarding if found[0]], lookup)
    name, _ = read_only or confirm or (chosen, lookup)
    override = _url_override(url, chosen, lookup)
    return Guards(name, read_only is not None, confirm is not None, override)


def same_database(url: str, other: str) -> bool:
    """Whether two URLs name one database; only their text is compared.

    User, password and TLS do not matter, and ``localhost``, ``127.0.0.1`` and ``[::1]`` are one
    host. Cluster URLs match if they share a node; Sentinel URLs also need the same master name and
    database. No name is looked up, so two names of one host do not match. No server is asked, so a
    server's socket does not match the server's port.
    """
    kind, endpoints = _normalised(url)
    other_kind, other_endpoints = _normalised(other)
    return kind == other_kind and not endpoints.isdisjoint(other_endpoints)


def _normalised(url: str) -> tuple[tuple[str, str, int], set[tuple[str, int]]]:
    """(mode, master name, database) of a URL, and its endpoints: (host, port) or (socket, 0)."""
    if url.startswith(EMBEDDED):
        folder = url.removeprefix(EMBEDDED)
        # If the URL has no folder, each command starts its own server.
        return (EMBEDDED, "", 0), {(_absolute(folder), 0)} if folder else set()
    try:
        address = parse_url(url)
    except UsageError:
        # The command itself reports a malformed URL.
        return ("", "", 0), set()
    endpoints = address.nodes or ((address.host, address.port),)
    if address.unix_path:
        endpoints = ((_absolute(address.unix_path), 0),)
    kind = address.mode, address.master_name, address.db
    return kind, {(_host(host), port) for host, port in endpoints}


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())


def _host(host: str) -> str:
    host = host.lower().rstrip(".")
    return "localhost" if host in _LOOPBACK else host


def _other_contexts(
    url: str, chosen: str | None, lookup: Lookup, files: Sequence[Layer]
) -> Iterator[tuple[str, Lookup]]:
    """The contexts other than ``chosen`` that have a guard and name the Redis at ``url``.

    A context is left out if its ``url`` and the chosen context's ``url`` are set in the same file:
    the author of the file gave two contexts one Redis on purpose. The context is kept if the
    ``url`` in use comes from a flag, a variable or another file: that ``url`` may be a mistake.
    """
    origin = lookup.origins["redis.url"]
    for name in context_names(files):
        layers = layers_of(name, files)
        if not any(Lookup(layers).guard(key) for key in ("read_only", "confirm")):
            continue
        with_url = [
            layer
            for layer in layers
            if (other := layer.get("redis.url")) is not None and same_database(url, str(other))
        ]
        on_purpose = (
            chosen is not None
            and origin.table == f"contexts.{chosen}.redis"
            and any(str(layer.path) == origin.name for layer in with_url)
        )
        if name != chosen and with_url and not on_purpose:
            yield name, Lookup(layers)


def _first_with(
    key: str, guarding: Sequence[tuple[str | None, Lookup]], lookup: Lookup
) -> tuple[str | None, Lookup] | None:
    """Find the first context that sets the guard, and its lookup; record the guard's origin."""
    found = next((pair for pair in guarding if pair[1].guard(key)), None)
    lookup.origins[key] = found[1].origins[key] if found else DEFAULT
    return found


def _url_override(url: str, chosen: str | None, lookup: Lookup) -> str | None:
    origin = lookup.origins["redis.url"]
    if chosen is None or origin.kind not in {"flag", "environment"}:
        return None
    tables = [layer for layer in lookup.layers if layer.base == f"contexts.{chosen}"]
    own = next((value for layer in tables if (value := layer.get("redis.url"))), None)
    return None if own is None or same_database(url, str(own)) else origin.name
