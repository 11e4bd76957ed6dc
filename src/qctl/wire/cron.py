"""When a cron pattern is next due, in a time zone and over its clock changes.

Patterns have five fields, or six with seconds first, as BullMQ's; a whole pattern may be
``@hourly``, ``@daily``, ``@weekly``, ``@monthly`` or ``@yearly``. A time that the clock skips is as
long after the change as it would have been ("30 2 * * *" is due at 03:30), as with BullMQ; a time
that it repeats is due once, unless the pattern names every hour.
"""

from __future__ import annotations

import os
from datetime import datetime, tzinfo
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

from qctl.errors import UsageError

_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@hourly": "0 * * * *",
    "@minutely": "* * * * *",
    "@secondly": "* * * * * *",
    "@weekdays": "0 0 * * 1-5",
    "@weekends": "0 0 * * 0,6",
}
_LOCALTIME = Path("/etc/localtime")


def next_time_ms(pattern: str, tz: str | None, after_ms: int) -> int | None:
    """The first time of ``pattern`` later than ``after_ms`` (epoch ms); None if there is none.

    Args:
        pattern: five or six fields.
        tz: name of a time zone, e.g. ``Europe/Berlin``; None for this machine's.

    Raises:
        UsageError: pattern or zone is not known.
    """
    from cronsim import CronSim, CronSimError  # noqa: PLC0415 - only schedulers need it

    zone = _zone(tz)
    fields = _fields(pattern)
    after = datetime.fromtimestamp(after_ms / 1000, zone)
    try:
        # The clock's own changes set aside: the next time that a clock would show.
        shown = next(CronSim(fields, after.replace(tzinfo=None)))
        due = _instant_ms(shown, zone)
        while due <= after_ms:
            # It shows the hour before the change a second time.
            shown = next(CronSim(fields, shown))
            due = _instant_ms(shown, zone)
        if _is_hourly(fields):
            # In an hour that the clock repeats it is due a second time.
            repeated = _instant_ms(next(CronSim(fields, after)), zone)
            due = repeated if after_ms < repeated < due else due
    except StopIteration:
        return None
    except CronSimError as error:
        raise UsageError(
            f"the cron pattern {pattern!r} is not understood",
            why=str(error),
            hint='five fields, or six with seconds first, for example "30 2 * * MON-FRI"',
        ) from None
    return due


def _fields(pattern: str) -> str:
    fields = _ALIASES.get(pattern.strip(), pattern).split()
    # BullMQ would fail at the first iteration of what only this library knows.
    if any("W" in field.upper() for field in fields[-3:-2]):
        raise UsageError(f"the cron pattern {pattern!r} has a W, which BullMQ does not know")
    return " ".join("*" if field == "?" else field for field in fields)


def _instant_ms(shown: datetime, zone: tzinfo) -> int:
    # Of a time that comes twice, the first; of one that is skipped, as long after the change.
    aware = shown if shown.tzinfo else shown.replace(tzinfo=zone)
    return round(aware.timestamp() * 1000)


def _is_hourly(fields: str) -> bool:
    return fields.split()[-4] in {"*", "*/1", "0-23"}


@lru_cache(maxsize=64)
def _zone(tz: str | None) -> tzinfo:
    name = tz or os.environ.get("TZ", "").removeprefix(":")
    if not name and _LOCALTIME.exists():
        with _LOCALTIME.open("rb") as file:
            return ZoneInfo.from_file(file)
    try:
        return ZoneInfo(name or "UTC")
    except (ValueError, OSError, LookupError):
        # ZoneInfoNotFoundError is a LookupError.
        raise UsageError(
            f"there is no time zone {name!r}",
            hint="for example Europe/Berlin; on a system without time zones, pip install tzdata",
        ) from None
