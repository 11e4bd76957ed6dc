"""Durations as operators type them, and as they read them."""

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
            why="it is a number of seconds, or one with a unit, as in 30s, 10m, 2h",
            hint=f"{flag} 10m",
        )
    return seconds


def duration(seconds: float) -> str:
    """A duration in words: ``0.4 s``, ``42 s``, ``4 min 10 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    return _two_units(seconds, (" d", " h", " min", " s"), " ")


def short_duration(seconds: float) -> str:
    """The same for a table cell: ``0s``, ``42s``, ``4m10s``, ``2h5m``, ``3d4h``."""
    return _two_units(max(seconds, 0), ("d", "h", "m", "s"), "")


def _two_units(seconds: float, units: tuple[str, ...], separator: str) -> str:
    whole = round(seconds)
    sizes = (86_400, 3_600, 60, 1)
    for index, size in enumerate(sizes):
        if whole >= size or size == 1:
            major, rest = divmod(whole, size)
            minor = rest // sizes[index + 1] if index < 3 else 0
            text = f"{major}{units[index]}"
            return text + (f"{separator}{minor}{units[index + 1]}" if minor else "")
    raise AssertionError("seconds are the last unit")
