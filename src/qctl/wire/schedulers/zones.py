"""Time zones by the names that BullMQ understands, which are those of the library Luxon."""

from __future__ import annotations

import contextlib
import os
import re
from datetime import UTC, timedelta, timezone, tzinfo
from functools import cache, lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

from qctl.errors import UsageError

_LOCALTIME = Path("/etc/localtime")
# Names that Python or the system lists, although they are not time zones.
_NO_ZONES = {"Factory", "localtime", "posix", "posixrules", "right"}
_OFFSET = re.compile(r"utc([+-])(\d{1,2})(?::(\d{2}))?")


@lru_cache(maxsize=64)
def time_zone(name: str | None) -> tzinfo:
    """A time zone by its name in upper or lower case, such as ``Europe/Berlin`` or ``utc+02:00``.

    Args:
        name: None, ``local``, ``system`` and ``default`` mean the time zone of this machine.

    Raises:
        UsageError: there is no such time zone.
    """
    lowered = (name or "local").lower()
    if lowered in {"local", "system", "default"}:
        return _of_this_machine()
    if lowered in {"utc", "gmt"}:
        return UTC
    if found := _OFFSET.fullmatch(lowered):
        offset = timedelta(hours=int(found[2]), minutes=int(found[3] or 0))
        if offset < timedelta(days=1):
            return timezone(-offset if found[1] == "-" else offset)
        raise _unknown(name)
    return _named(name or "")


def _of_this_machine() -> tzinfo:
    name = os.environ.get("TZ", "").removeprefix(":")
    if name:
        return _named(name)
    if _LOCALTIME.exists():
        with _LOCALTIME.open("rb") as file:
            return ZoneInfo.from_file(file)
    return UTC


def _named(name: str) -> tzinfo:
    if name.partition("/")[0] not in _NO_ZONES:
        with contextlib.suppress(ValueError, OSError, LookupError):
            # ZoneInfoNotFoundError is a LookupError.
            return ZoneInfo(name)
    found = _names().get(name.lower())
    if found is None:
        raise _unknown(name)
    return ZoneInfo(found)


@cache
def _names() -> dict[str, str]:
    """All names by their lower-case forms. Listing the names takes 0.1 s."""
    return {name.lower(): name for name in available_timezones() - _NO_ZONES}


def _unknown(name: str | None) -> UsageError:
    return UsageError(
        f"there is no time zone {name!r}",
        hint="for example Europe/Berlin, UTC or UTC+2; on a system without time zones, "
        "pip install tzdata",
    )
