"""Results as JSON. Do not rename a field of a result class: docs/cli.md promises these names."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

# How many levels are written if a result is nested too deeply for Python's encoder.
MAX_DEPTH = 250
TOO_DEEP = "(nested too deeply to be shown)"


def dumps(result: Any) -> str:
    """A result as one line of JSON, without a line end.

    Non-ASCII is escaped, so that lone surrogates (bytes that are not UTF-8) survive. A result that
    is nested deeper than Python can write (some 900 levels) is cut at ``MAX_DEPTH``.
    """
    try:
        return json.dumps(result, default=_plain, allow_nan=False)
    except (ValueError, RecursionError):
        # Python reads some JSON that it cannot write: 1e400 (as infinity), and very deep nesting.
        return json.dumps(_writable(result))


def with_step(step: Any) -> dict[str, Any]:
    """A dataclass as a dict: its class attribute ``step``, then its fields."""
    return {"step": step.step} | _fields(step)


def iso_time(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds: ``2026-01-31T12:00:00.000Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
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


def _fields(value: Any) -> dict[str, Any]:
    return {item.name: getattr(value, item.name) for item in fields(value)}


def _writable(value: Any, depth: int = 0) -> Any:
    """A copy for JSON: infinities and NaN become None, and too deep levels become a remark."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float)):
        return value
    if depth > MAX_DEPTH:
        return TOO_DEEP
    if isinstance(value, (list, tuple)):
        return [_writable(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {key: _writable(item, depth + 1) for key, item in value.items()}
    return _writable(_plain(value), depth)
