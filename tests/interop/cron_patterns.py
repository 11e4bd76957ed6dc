"""Random cron patterns, time zones and starts, of all kinds that BullMQ reads or might read."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

from qctl.wire.schedulers.zones import time_zone

ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Pacific/Apia",
    "Australia/Sydney", "America/St_Johns", "Africa/Casablanca", "Asia/Tokyo", "America/Sao_Paulo",
    "utc+3", "UTC-03:30", "europe/paris", "US/Pacific",
]  # fmt: skip
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_PREDEFINED = [
    "@yearly", "@monthly", "@weekly", "@daily", "@hourly", "@annually", "@minutely", "@secondly",
    "@weekdays", "@weekends", "@reboot", "@DAILY",
]  # fmt: skip
_FROM = datetime(2024, 1, 1, tzinfo=UTC).timestamp()
_TO = datetime(2037, 1, 1, tzinfo=UTC).timestamp()


def random_case(random: Random) -> tuple[str, str, int]:
    """A pattern, a time zone and a start in epoch ms."""
    zone = random.choice(ZONES)
    start_ms = int(random.uniform(_FROM, _TO) * 1000)
    while datetime.fromtimestamp(start_ms / 1000, time_zone(zone)).fold:
        # An hour that the clock shows a second time, in which they differ on purpose.
        start_ms += 3_600_000
    if random.random() < 0.5:
        # Whole seconds are a special case.
        start_ms -= start_ms % 1000
    if random.random() < 0.02:
        return random.choice(_PREDEFINED), zone, start_ms
    fields = [
        _field(random, 0, 59),
        _field(random, 0, 23),
        _day_of_month(random),
        _field(random, 1, 12, _MONTHS, open_share=0.6),
        _day_of_week(random),
    ]
    if random.random() < 0.2:
        fields.insert(0, _field(random, 0, 59))
    elif random.random() < 0.02:
        del fields[: random.randint(1, 4)]
    return " ".join(fields), zone, start_ms


def _day_of_month(random: Random) -> str:
    if random.random() < 0.08:
        return random.choice(["L", "?", "L,15", "1-31", "*/1", "31", "LW", "15W", "L-2", "32"])
    return _field(random, 1, 31, open_share=0.4)


def _day_of_week(random: Random) -> str:
    if random.random() < 0.12:
        return random.choice(
            ["5L", "FRIL", "1,5L", "MON#2", "5#5", "7#1", "0#6", "1#2,3", "L", "?", "0-7", "1-7"]
        )
    return _field(random, 0, 7, _WEEKDAYS, open_share=0.4)


def _field(
    random: Random, least: int, most: int, names: list[str] | None = None, open_share: float = 0.3
) -> str:
    if random.random() < open_share:
        return "*"
    items = random.choice([1] * 8 + [2, 3])
    return ",".join(_item(random, least, most, names) for _ in range(items))


def _item(random: Random, least: int, most: int, names: list[str] | None) -> str:
    def value(low: int = least) -> str:
        number = random.randint(low, most)
        if random.random() < 0.01:
            return random.choice(["60", "x", "-1", "", "H", "01"])
        if names and random.random() < 0.3 and number - (least == 1) < len(names):
            name = names[number - (least == 1)]
            return random.choice([name, name.upper(), name.title()])
        return str(number)

    step = random.choice([1, 2, 2, 3, 5, 7, 10, 15, 20, 90])
    match random.choice(
        ["one", "one", "range", "range", "star", "star-step", "range-step", "from"]
    ):
        case "one":
            return value()
        case "range":
            low = random.randint(least, most)
            return f"{low}-{value(low)}"
        case "range-step":
            low = random.randint(least, most)
            return f"{low}-{value(low)}/{step}"
        case "from":
            return f"{value()}/{step}"
        case "star":
            return "*"
        case _:
            return f"*/{step}"
