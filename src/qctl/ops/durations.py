"""Durations as operators type them."""

from __future__ import annotations

import re

from qctl.errors import UsageError

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(ms|s|m|min|h|d)?", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, None: 1}


def duration_s(text: str) -> float | None:
    """``30s``, ``10m``, ``2h``, ``3d``, ``500ms`` or plain seconds; None for anything else."""
    match = _DURATION.fullmatch(text.strip())
    return float(match[1]) * _SECONDS[match[2]] if match else None


def parse_duration_s(text: str, flag: str) -> float:
    """The same, for the value of ``flag``.

    Raises:
        UsageError: it is no duration.
    """
    seconds = duration_s(text)
    if seconds is None:
        raise UsageError(
            f"{flag} {text!r} is not a duration",
            why="it is a number with a unit: 30s, 10m, 2h",
            hint=f"{flag} 10m",
        )
    return seconds
