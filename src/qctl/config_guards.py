"""Which context's guards hold (``read_only``, ``confirm``), by its name and by its Redis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from qctl.config_files import DEFAULT, Layer, Look, layers_of
from qctl.connect import parse_url
from qctl.errors import UsageError


class Guards(NamedTuple):
    """What guards a Redis.

    Args:
        context: the context that does; without guards the chosen one.
        elsewhere: the flag or variable that gives the chosen context another Redis than its own.
    """

    context: str | None
    read_only: bool
    confirm: bool
    elsewhere: str | None


def find_guards(
    url: str, chosen: str | None, look: Look, contexts: Sequence[str], files: Sequence[Layer]
) -> Guards:
    """The guards of the chosen context, and of every other one with the Redis at ``url``.

    Args:
        look: where the values in force are looked up; the origins of the guards are noted in it.

    Raises:
        UsageError: a guard is neither true nor false.
    """
    holders = [*_by_redis(url, chosen, look, contexts, files), (chosen, look)]
    read_only = _holder("read_only", holders, look)
    # `confirm` asks for a context's name.
    confirm = _holder("confirm", [holder for holder in holders if holder[0]], look)
    name, _ = read_only or confirm or (chosen, look)
    return Guards(name, read_only is not None, confirm is not None, _elsewhere(url, chosen, look))


def _by_redis(
    url: str, chosen: str | None, look: Look, contexts: Sequence[str], files: Sequence[Layer]
) -> Iterator[tuple[str, Look]]:
    """The other contexts with this Redis, but those that the chosen one deliberately stands beside.

    A file that gives one Redis two names knows both. A flag, a variable and another file do not.
    """
    origin = look.origins["redis.url"]
    for name in contexts:
        layers = layers_of(name, contexts, files, {})
        with_url = [layer for layer in layers if _same_redis(url, layer.get("redis.url"))]
        knows_both = (
            chosen is not None
            and origin.table == f"contexts.{chosen}.redis"
            and any(str(layer.path) == origin.name for layer in with_url)
        )
        if name != chosen and with_url and not knows_both:
            yield name, Look(layers)


def _holder(
    key: str, holders: Sequence[tuple[str | None, Look]], look: Look
) -> tuple[str | None, Look] | None:
    """The first that wants this guard."""
    found = next((holder for holder in holders if holder[1].guard(key)), None)
    look.origins[key] = found[1].origins[key] if found else DEFAULT
    return found


def _elsewhere(url: str, chosen: str | None, look: Look) -> str | None:
    origin = look.origins["redis.url"]
    if chosen is None or origin.kind not in {"flag", "environment"}:
        return None
    tables = [layer for layer in look.layers if layer.base == f"contexts.{chosen}"]
    own = next((value for layer in tables if (value := layer.get("redis.url"))), None)
    return None if own is None or _same_redis(url, own) else origin.name


def _same_redis(url: str, other: object) -> bool:
    """Whether two URLs name the same database, whoever logs in."""
    if other is None:
        return False
    try:
        first, second = parse_url(url), parse_url(str(other))
    except UsageError:
        return url == other
    return first.place == second.place
