"""Points in time: as Redis stores them, and as people type them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta

from qctl.durations import duration_s
from qctl.errors import UsageError

_TIME_OF_DAY = re.compile(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?")
_DAYS_AGO = {"today": 0, "yesterday": 1}


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
    """The time that an option's value means.

    The value is one of these:

    - a duration before now (``10m``); it needs a unit, so ``20260131`` is a date;
    - a time of day (``03:55``): the last time that local clocks showed it, today or yesterday;
    - ``today`` or ``yesterday``: the beginning of that day, in local time;
    - an ISO date or time: local time, unless it has an offset.

    Raises:
        UsageError: the text is none of these, or the time is out of range.
    """
    now = now or datetime.now(UTC)
    text = text.strip()
    ago_s = duration_s(text, unit_required=True)
    try:
        if ago_s is not None:
            return now - timedelta(seconds=ago_s)
        if text in _DAYS_AGO:
            return _local(now, _DAYS_AGO[text], time())
        if _TIME_OF_DAY.fullmatch(text):
            clock = time.fromisoformat(text.zfill(5) if len(text) < 6 else text.zfill(8))
            at = _local(now, 0, clock)
            return at if at <= now else _local(now, 1, clock)
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"{flag} {text!r} is not a time",
            why="it must be a duration before now (30s, 10m, 2h, 3d), a time of day (03:55), "
            "today, yesterday, or an ISO time",
            hint=f"{flag} 10m or {flag} {now:%Y-%m-%dT%H:%M}Z",
        ) from error


def _local(now: datetime, days_ago: int, clock: time) -> datetime:
    """The moment when local clocks showed ``clock``, ``days_ago`` days before ``now``."""
    day = now.astimezone().date() - timedelta(days=days_ago)
    # The combined datetime has no offset, so astimezone() reads it as local time, with the offset
    # that local time has on that day.
    return datetime.combine(day, clock).astimezone(UTC)


def local_time_remark(text: str, at: datetime, *, flag: str = "--since") -> str:
    """A remark that shows how ``parse_time`` understood a text; "" if the text is not local time.

    Args:
        at: what ``parse_time`` returned for the text.
    """
    text = text.strip()
    if text not in _DAYS_AGO and not _TIME_OF_DAY.fullmatch(text):
        try:
            if datetime.fromisoformat(text).tzinfo is not None:
                return ""
        except ValueError:
            return ""
    local = at.astimezone()
    offset = f"{local:%z}"
    zone = f"UTC{offset[:3]}:{offset[3:5]}" if local.utcoffset() else "UTC"
    return f"{flag} {text} is {local:%Y-%m-%d %H:%M:%S} local time ({zone})"
