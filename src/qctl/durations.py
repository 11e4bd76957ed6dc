"""Durations as people type them (``500ms``, ``1.5h``), and as qctl writes them (``4 min 10 s``)."""

from __future__ import annotations

import re

from qctl.errors import UsageError

MAX_S = 100 * 365 * 86_400.0  # 100 years
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|min|h|d)?", re.ASCII)
_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, None: 1}


def duration_s(text: str, *, unit_required: bool = False) -> float | None:
    """The seconds that ``500ms``, ``30s``, ``10m``, ``2h``, ``3d`` or ``30`` stands for.

    None for any other text.

    Args:
        unit_required: if true, a number without a unit gives None.
    """
    match = _DURATION.fullmatch(text)
    if match is None or (unit_required and match[2] is None):
        return None
    return float(match[1]) * _UNITS_S[match[2]]


def parse_duration_s(
    text: str, flag: str, *, min_s: float = 0.0, max_s: float = MAX_S, example: str = "10m"
) -> float:
    """The seconds that ``text``, the value of ``flag``, stands for.

    Raises:
        UsageError: the text is not a duration, or not between ``min_s`` and ``max_s``.
    """
    seconds = duration_s(text.strip())
    if seconds is None:
        raise UsageError(
            f"{flag} {text!r} is not a duration",
            why="a duration is a number with a unit, as in 500ms, 30s, 10m, 2h or 1d; "
            "a number alone is seconds",
            hint=f"{flag} {example}",
        )
    if not min_s <= seconds <= max_s:
        raise UsageError(
            f"{flag} {text!r} is too {'short' if seconds < min_s else 'long'}",
            why=f"{flag} must be between {duration(min_s)} and {duration(max_s)}",
            hint=f"{flag} {example}",
        )
    return seconds


def duration(seconds: float) -> str:
    """A duration in words: ``0.4 s``, ``42 s``, ``4 min 10 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 9.95:  # from 9.95, one decimal can round to 10.0
        return f"{seconds:.1f} s"
    return _two_units(seconds, (" d", " h", " min", " s"), " ")


def short_duration(seconds: float) -> str:
    """A duration for a table cell: ``0s``, ``42s``, ``4m10s``, ``2h5m``, ``3d4h``."""
    return _two_units(max(seconds, 0), ("d", "h", "m", "s"), "")


def _two_units(seconds: float, units: tuple[str, ...], separator: str) -> str:
    whole = round(seconds)
    sizes = (86_400, 3_600, 60, 1)
    index = next((index for index, size in enumerate(sizes) if whole >= size), 3)
    major, rest = divmod(whole, sizes[index])
    minor = rest // sizes[index + 1] if index < 3 else 0
    text = f"{major}{units[index]}"
    return text + (f"{separator}{minor}{units[index + 1]}" if minor else "")
