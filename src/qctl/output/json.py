"""Results as JSON: the field names of the result classes are the contract of docs/cli.md."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
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
    except ValueError:
        # Python reads NaN and Infinity in a payload, but they are not JSON.
        return json.dumps(_finite(result), default=_plain, allow_nan=False)


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


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return _finite(_plain(value))
    return value
