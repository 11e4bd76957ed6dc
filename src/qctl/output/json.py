"""Results as JSON: the field names of the result classes are the contract of docs/cli.md."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any


def dumps(result: Any) -> str:
    """A result as one line of JSON, without a line end.

    Everything outside ASCII is escaped, so that the lone surrogates that stand for bytes that are
    not UTF-8 survive. Payloads are not copied.
    """
    try:
        return json.dumps(result, default=_plain, allow_nan=False)
    except (ValueError, RecursionError):
        # Python reads numbers such as 1e400 as infinite, and nesting that it then cannot write.
        return "".join(_slowly(result))


def as_record(step: Any, *, with_step: bool) -> dict[str, Any]:
    """A step (a dataclass with a class attribute ``step``) as JSON has it.

    Args:
        with_step: its name first, as in a stream of steps.
    """
    record = {item.name: getattr(step, item.name) for item in fields(step)}
    return {"step": step.step, **record} if with_step else record


def iso_time(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds: ``2026-01-31T12:00:00.000Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in fields(value)}
    if isinstance(value, datetime):
        return iso_time(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


class _Literal(str):
    """A piece of the JSON itself, not a text to be quoted."""

    __slots__ = ()


def _slowly(result: Any) -> Iterator[str]:
    """The pieces of the JSON, however deep it is; numbers that JSON does not have become null."""
    todo = [result]
    while todo:
        value = todo.pop()
        if isinstance(value, _Literal):
            yield value
        elif isinstance(value, float) and not math.isfinite(value):
            yield "null"
        elif value is None or isinstance(value, (str, int, float)):
            yield json.dumps(value)
        elif isinstance(value, (list, tuple)):
            todo += reversed(_joined("[", [[item] for item in value], "]"))
        elif isinstance(value, Mapping):
            items = [[_Literal(f"{_key(key)}: "), item] for key, item in value.items()]
            todo += reversed(_joined("{", items, "}"))
        else:
            todo.append(_plain(value))


def _joined(start: str, items: Sequence[Sequence[Any]], end: str) -> list[Any]:
    pieces: list[Any] = [_Literal(start)]
    for index, item in enumerate(items):
        pieces += [_Literal(", "), *item] if index else item
    return [*pieces, _Literal(end)]


def _key(key: Any) -> str:
    return json.dumps(key if isinstance(key, str) else json.dumps(key))
