"""Points in time: as Redis stores them, and as people type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from qctl.durations import duration_s
from qctl.errors import UsageError


def utc_datetime(epoch_ms: float | None) -> datetime | None:
    """The UTC datetime of epoch milliseconds; None if they are None or out of range."""
    if epoch_ms is None:
        return None
    try:
        return datetime.fromtimestamp(epoch_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def from_epoch_ms(epoch_ms: float) -> datetime:
    """The UTC datetime of epoch milliseconds that are certain to be in range."""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC)


def to_epoch_ms(at: datetime) -> int:
    """The epoch milliseconds of a datetime, rounded down."""
    return (at - from_epoch_ms(0)) // timedelta(milliseconds=1)


def parse_time(text: str, now: datetime | None = None, *, flag: str = "--since") -> datetime:
    """The time that an option's value means: a duration before now (``10m``), or an ISO time.

    An ISO time without an offset is local time. ``20260131`` is a date: a duration needs a unit.

    Raises:
        UsageError: the text is neither a duration nor a time, or the time is out of range.
    """
    now = now or datetime.now(UTC)
    text = text.strip()
    ago_s = duration_s(text, unit_required=True)
    try:
        if ago_s is not None:
            return now - timedelta(seconds=ago_s)
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"{flag} {text!r} is not a time",
            why="it must be a duration before now, such as 30s, 10m, 2h or 3d, or an ISO time",
            hint=f"{flag} 10m or {flag} {now:%Y-%m-%dT%H:%M}Z",
        ) from error
