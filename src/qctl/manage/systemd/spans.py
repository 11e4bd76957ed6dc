"""Time spans and times in the form in which ``systemctl show`` prints them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_SECONDS = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "min": 60,
    "h": 3600,
    "d": 86_400,
    "w": 604_800,
    # systemd's year has 365.25 days, and its month a twelfth of that.
    "month": 2_629_800,
    "y": 31_557_600,
}
# 2**64 microseconds.
_MAX_S = 2**64 / 1e6
_PART = re.compile(r"(\d+(?:\.\d+)?)([a-z]+)")


def parse_span_s(text: str) -> float | None:
    """A span such as ``1min 30s``, ``500ms`` or ``0``, in seconds.

    Returns:
        ``inf`` for ``infinity``; None for any other text, such as ``[not set]``, and for a span
        that is longer than 584 years, which systemd cannot store.
    """
    if text == "infinity":
        return float("inf")
    if text == "0":
        return 0.0
    seconds = 0.0
    for part in text.split(" "):
        match = _PART.fullmatch(part)
        if match is None or match[2] not in _SECONDS:
            return None
        seconds += float(match[1]) * _SECONDS[match[2]]
    return seconds if seconds <= _MAX_S else None


def parse_time_ms(text: str) -> int | None:
    """A time such as ``Mon 2026-11-30 16:14:34 UTC``, as epoch milliseconds.

    systemd prints whole seconds. None for any other text, such as ``n/a``.
    """
    try:
        found = datetime.strptime(text, "%a %Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return None
    return int(found.replace(tzinfo=UTC).timestamp() * 1000)
