"""Parses the reply to INFO."""

from __future__ import annotations

from collections.abc import Mapping

# Fields of INFO that only another product has.
_PRODUCTS = {"valkey_version": "Valkey", "dragonfly_version": "Dragonfly"}


def parse_info(text: str) -> dict[str, str]:
    """The fields of a reply to INFO, by name."""
    lines = (line.partition(":") for line in text.splitlines() if line[:1] != "#")
    return {name: value for name, colon, value in lines if colon}


def product(info: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Name and version of the server, from its INFO.

    In Valkey and Dragonfly, ``redis_version`` is only the version of Redis that the server is
    compatible with. The server's own version is in another field.
    """
    for field, name in _PRODUCTS.items():
        if version := info.get(field):
            return name, version.removeprefix("df-v")
    version = info.get("redis_version")
    return (info.get("server_name", "Redis").title() if version else None), version
