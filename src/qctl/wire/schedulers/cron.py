"""Finds when a cron pattern is next due in a time zone, also when the zone's clock changes.

As in BullMQ, patterns have five fields, or six with seconds first; ``@hourly``, ``@daily``,
``@weekly``, ``@monthly`` and ``@yearly`` stand for whole patterns. A day field is unrestricted if
it is a bare ``*`` or ``?``, but not if it is ``*/2`` or ``1-31``. If both day fields are
restricted, a day has to match only one of them. If the clock skips a due time, the job runs as if
the clock had not changed ("30 2 * * *" runs at 03:30). If the clock shows a due time twice, the job
runs only the first time; with a pattern for every hour, the job runs both times.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from functools import lru_cache

from qctl.errors import UsageError
from qctl.wire.schedulers.zones import time_zone

# BullMQ 5 and 6 know these names.
_COMMON = {
    "@yearly": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@hourly": "0 * * * *",
}
# Only BullMQ 6 knows these names.
_NEWER = {
    "@annually": "0 0 1 1 *",
    "@minutely": "* * * * *",
    "@secondly": "* * * * * *",
    "@weekdays": "0 0 * * 1-5",
    "@weekends": "0 0 * * 0,6",
}
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_DAYS_IN_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
# Sunday is 0 or 7.
_SUNDAY_AGAIN = 7
_UNRESTRICTED = ("*", "?")
_MAX_LENGTH = 1024
# 29 February may be 8 years away, and a fifth Monday in February may be 40 years away.
_MAX_YEARS = 50
_ITEM = re.compile(
    r"(?:(?P<all>[*?])|(?P<low>\d{1,4})(?:-(?P<high>\d{1,4}))?)(?:/(?P<step>\d{1,4}))?"
)


class _PatternError(Exception):
    """A pattern is wrong; the text of the exception says why."""


@dataclass(frozen=True, slots=True)
class Cron:
    """A parsed pattern.

    Args:
        days: days of the month; None if unrestricted.
        has_last_day: whether the last day of the month matches, in addition to ``days``.
        weekdays: days of the week, where 0 is Sunday; None if unrestricted.
        last_weekdays: days of the week that match only in the last seven days of the month.
        nth: 2 if only the second of these ``weekdays`` in a month matches, such as the second
            Monday; 0 if all of them match.
        refused: why no new scheduler may have this pattern, although workers still run existing
            schedulers with it; usually empty.
    """

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int] | None
    has_last_day: bool
    months: frozenset[int]
    weekdays: frozenset[int] | None
    last_weekdays: frozenset[int]
    nth: int
    refused: str

    @property
    def is_hourly(self) -> bool:
        """Whether the pattern is for every hour."""
        return len(self.hours) == 24

    def matches(self, day: date) -> bool:
        """Whether a day matches; its month is not checked."""
        by_month = self.days is None or day.day in self.days
        if self.has_last_day and (day + timedelta(days=1)).day == 1:
            by_month = True
        if self.weekdays is None:
            return by_month
        weekday = day.isoweekday() % 7
        by_week = weekday in self.weekdays and (not self.nth or -(-day.day // 7) == self.nth)
        if weekday in self.last_weekdays and (day + timedelta(days=7)).month != day.month:
            by_week = True
        return by_week or (by_month and self.days is not None)

    def shown_after(self, moment: datetime) -> datetime | None:
        """The next due time on a clock that never changes; None if none is within 50 years."""
        moment = moment.replace(microsecond=0) + timedelta(seconds=1)
        day, earliest = moment.date(), moment.time()
        while day.year <= moment.year + _MAX_YEARS:
            if day.month not in self.months:
                day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
            elif self.matches(day) and (found := self._time_from(earliest)):
                return datetime.combine(day, found)
            else:
                day += timedelta(days=1)
            earliest = time()
        return None

    def _time_from(self, earliest: time) -> time | None:
        """The day's first due time at or after ``earliest``; None if there is none."""
        start = (earliest.hour, earliest.minute, earliest.second)
        for hour in self.hours:
            for minute in self.minutes if hour >= start[0] else ():
                if (hour, minute) < start[:2]:
                    continue
                for second in self.seconds:
                    if (hour, minute, second) >= start:
                        return time(hour, minute, second)
        return None


def next_time_ms(pattern: str, tz: str | None, after_ms: int) -> int | None:
    """The first due time later than ``after_ms`` (epoch ms); None if there is none.

    Args:
        pattern: a cron pattern, even one that only BullMQ 5 or only BullMQ 6 understands.
        tz: a time zone, e.g. ``Europe/Berlin``; None for this machine's.

    Raises:
        UsageError: qctl does not understand the pattern or does not know the time zone.
    """
    cron, zone = parse(pattern), time_zone(tz)
    try:
        return _next_ms(cron, zone, after_ms)
    except (OverflowError, ValueError):
        # Beyond the year 9999.
        return None


def check_pattern(pattern: str) -> None:
    """Check that BullMQ 5 and 6 both understand a pattern, and in the same way.

    Raises:
        UsageError: a version does not understand the pattern, or they understand it differently.
    """
    if why := parse(pattern).refused:
        raise _not_understood(pattern, why)


def _next_ms(cron: Cron, zone: tzinfo, after_ms: int) -> int | None:
    after = datetime.fromtimestamp(after_ms / 1000, zone)
    # First find the next due time as if the clock never changed.
    shown = cron.shown_after(after.replace(tzinfo=None))
    # In an hour that the clock shows a second time, only a pattern for every hour is due again.
    fold = after.fold if cron.is_hourly else 0
    while shown is not None and _instant_ms(shown, zone, fold) <= after_ms:
        shown = cron.shown_after(shown)
    due = None if shown is None else _instant_ms(shown, zone, fold)
    repeated = _in_repeated_hour(cron, zone, after_ms) if cron.is_hourly else None
    return min((ms for ms in (due, repeated) if ms is not None), default=None)


def _in_repeated_hour(cron: Cron, zone: tzinfo, after_ms: int) -> int | None:
    """The first due time after the clock is set back; None if it is not set back within 3 hours."""

    def offset(at_ms: int) -> timedelta:
        return datetime.fromtimestamp(at_ms / 1000, zone).utcoffset() or timedelta()

    before, back = after_ms, after_ms + 3 * 3_600_000
    if offset(back) >= offset(before):
        return None
    # Search for the whole second at which the clock is set back.
    before, back = before // 1000, back // 1000
    while back - before > 1:
        middle = (before + back) // 2
        if offset(middle * 1000) == offset(after_ms):
            before = middle
        else:
            back = middle
    put_back = datetime.fromtimestamp(back, zone)
    shown = cron.shown_after(put_back.replace(tzinfo=None) - timedelta(seconds=1))
    return None if shown is None else _instant_ms(shown, zone, 1)


def _instant_ms(shown: datetime, zone: tzinfo, fold: int) -> int:
    # If the clock shows a time twice, ``fold`` chooses the first or the second one. If the clock
    # skips the time, the result is as if the clock had not changed.
    at = shown.replace(tzinfo=zone, fold=fold)
    first, second = at.replace(fold=0).utcoffset(), at.replace(fold=1).utcoffset()
    is_skipped = first is not None and second is not None and first < second
    return round(at.replace(fold=0 if is_skipped else fold).timestamp() * 1000)


# Parsing


@lru_cache(maxsize=256)
def parse(pattern: str) -> Cron:
    """The parsed pattern.

    Raises:
        UsageError: qctl does not understand the pattern.
    """
    try:
        return _parse(pattern)
    except _PatternError as error:
        raise _not_understood(pattern, str(error)) from None


def _not_understood(pattern: str, why: str) -> UsageError:
    return UsageError(
        f"the cron pattern {pattern!r} is not understood",
        why=why,
        hint='five fields, or six with seconds first, for example "30 2 * * MON-FRI"',
    )


def _parse(pattern: str) -> Cron:
    refused: list[str] = []
    if pattern in _NEWER:
        refused.append(f"only BullMQ 6 knows {pattern}; write {_NEWER[pattern]!r}")
    if len(pattern) > _MAX_LENGTH:
        refused.append(f"BullMQ 6 reads at most {_MAX_LENGTH:,} characters")
    texts = (_COMMON | _NEWER).get(pattern, pattern).split()
    if not 1 <= len(texts) <= 6:
        raise _PatternError(f"it has {len(texts)} fields")
    if len(texts) < 5:
        refused.append(f"it has {len(texts)} fields")
    # The first fields may be missing: then the seconds are 0, and the other fields are *.
    texts = ["0", "*", "*", "*", "*", "*"][: 6 - len(texts)] + texts
    if any("?" in text for text in (*texts[:3], texts[4])):
        refused.append("BullMQ 5 understands ? only in the day fields")
    second, minute, hour, day, month, weekday = texts
    seconds = _values(second, "second", 0, 59, refused)
    minutes = _values(minute, "minute", 0, 59, refused)
    hours = _values(hour, "hour", 0, 23, refused)
    months = _values(_numbered(month, _MONTHS, 1), "month", 1, 12, refused)
    days, last_days = _without(day, r"L", refused)
    longest = max(_DAYS_IN_MONTH[month - 1] for month in months)
    month_days = _values(days, "day of the month", 1, 31, []) if days else []
    # If the pattern names a single month, BullMQ 6 accepts a repeated day that this month does not
    # have, such as 31,31 in April.
    max_day = longest if len(months) == 1 else 31
    _refuse_twice([value for value in month_days if value <= max_day], refused)
    weekday, nth = _nth(_numbered(weekday, _WEEKDAYS, 0))
    weekday, last = _without(weekday, r"[0-7]L", refused)
    weekdays = _values(weekday, "day of the week", 0, _SUNDAY_AGAIN, refused) if weekday else []
    if len(months) == 1 and not last_days and min(month_days) > longest:
        if texts[5] in _UNRESTRICTED:
            raise _PatternError("there is no such day in that month")
        refused.append("BullMQ 5 refuses a day that the month does not have")
    # BullMQ 5 treats a list of 29 or more days, or of all weekdays 0 to 7, like *.
    looks_unrestricted = len(month_days) + len(last_days) >= 29 or len(weekdays) + len(last) == 8
    if day not in _UNRESTRICTED and texts[5] not in _UNRESTRICTED and (looks_unrestricted or nth):
        refused.append("BullMQ 5 and 6 read it differently; write * for one of the day fields")
    return Cron(
        tuple(sorted(seconds)),
        tuple(sorted(minutes)),
        tuple(sorted(hours)),
        None if day in _UNRESTRICTED else frozenset(month_days),
        bool(last_days),
        frozenset(months),
        None if texts[5] in _UNRESTRICTED else frozenset(value % 7 for value in weekdays),
        frozenset(int(text[0]) % 7 for text in last),
        nth,
        "; ".join(dict.fromkeys(refused)),
    )


def _numbered(text: str, names: list[str], first: int) -> str:
    def number(found: re.Match[str]) -> str:
        try:
            return str(names.index(found[0].lower()) + first)
        except ValueError:
            raise _PatternError(f"{found[0]!r} is not a name of a month or a weekday") from None

    return re.sub(r"[A-Za-z]{3}", number, text)


def _nth(text: str) -> tuple[str, int]:
    """``5#2`` gives 5 and 2; a text without ``#`` gives the same text and 0."""
    if "#" not in text:
        return text, 0
    if not (found := re.fullmatch(r"([0-7])#0*([1-5])", text)):
        raise _PatternError("# must follow one day of the week and precede a number from 1 to 5")
    return found[1], int(found[2])


def _without(text: str, form: str, refused: list[str]) -> tuple[str, list[str]]:
    """Split a list: the items that do not match the expression ``form``, and those that do."""
    items = text.split(",")
    last = [item for item in items if re.fullmatch(form, item)]
    _refuse_twice(last, refused)
    found = set(last)
    return ",".join(item for item in items if item not in found), last


def _values(text: str, what: str, min_value: int, max_value: int, refused: list[str]) -> list[int]:
    values: list[int] = []
    for item in text.split(","):
        if not (parts := _ITEM.fullmatch(item)):
            raise _PatternError(f"{item!r} is not valid for the {what}")
        step = int(parts["step"] or 1)
        low = min_value if parts["all"] else int(parts["low"])
        is_open = parts["all"] or parts["step"]
        high = int(parts["high"] or (max_value if is_open else low))
        if step < 1 or not min_value <= low <= high <= max_value:
            raise _PatternError(
                f"{item!r} is not valid for the {what}: values are {min_value} to {max_value}"
            )
        found = [*range(low, high + 1, step)]
        if max_value == high == _SUNDAY_AGAIN:
            if not (is_open or parts["high"]):
                found = [0]
            elif found[-1] == _SUNDAY_AGAIN and low > 0:
                # The range ends with 7, which means Sunday. Add 0, too: another item for Sunday, 0
                # or 7, also adds 0, and is then noticed as a duplicate.
                found.append(0)
            elif low > 0:
                refused.append(
                    f"BullMQ 5 and 6 read {item!r} differently: only one of them includes Sunday"
                )
        values += found
    _refuse_twice(values, refused)
    return values


def _refuse_twice(values: list[int] | list[str], refused: list[str]) -> None:
    if len(set(values)) < len(values):
        refused.append("BullMQ 6 refuses a pattern with the same value twice")
