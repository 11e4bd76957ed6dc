"""Which context's guards hold (``read_only``, ``confirm``), by its name and by its Redis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from qctl.config.files import DEFAULT, Layer, Look, layers_of

if TYPE_CHECKING:
    from qctl.config.places import Places


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
    if not contexts:
        look.origins["confirm"] = DEFAULT
        return Guards(None, look.guard("read_only"), confirm=False, elsewhere=None)
    from qctl.config.places import Places  # noqa: PLC0415 - most machines have no contexts

    places = Places()
    holders = [*_by_redis(url, chosen, look, contexts, files, places), (chosen, look)]
    read_only = _holder("read_only", holders, look)
    # `confirm` asks for a context's name.
    confirm = _holder("confirm", [holder for holder in holders if holder[0]], look)
    name, _ = read_only or confirm or (chosen, look)
    if not (read_only or confirm):
        # Nothing hangs on it but a warning, for which no name is looked up.
        places = Places(timeout_s=0)
    elsewhere = _elsewhere(url, chosen, look, places)
    return Guards(name, read_only is not None, confirm is not None, elsewhere)


def _by_redis(
    url: str,
    chosen: str | None,
    look: Look,
    contexts: Sequence[str],
    files: Sequence[Layer],
    places: Places,
) -> Iterator[tuple[str, Look]]:
    """The other contexts that guard this Redis, but those that the chosen one deliberately stands
    beside.

    A file that gives one Redis two names knows both. A flag, a variable and another file do not.
    """
    origin = look.origins["redis.url"]
    for name in contexts:
        layers = layers_of(name, contexts, files, {})
        if not any(Look(layers).guard(key) for key in ("read_only", "confirm")):
            # Before any name is looked up for it.
            continue
        with_url = [
            layer
            for layer in layers
            if (other := layer.get("redis.url")) is not None and places.same(url, str(other))
        ]
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


def _elsewhere(url: str, chosen: str | None, look: Look, places: Places) -> str | None:
    origin = look.origins["redis.url"]
    if chosen is None or origin.kind not in {"flag", "environment"}:
        return None
    tables = [layer for layer in look.layers if layer.base == f"contexts.{chosen}"]
    own = next((value for layer in tables if (value := layer.get("redis.url"))), None)
    return None if own is None or places.same(url, str(own)) else origin.name
