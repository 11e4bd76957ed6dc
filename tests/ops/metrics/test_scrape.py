"""Readings that many scrapes share."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from qctl.errors import FailedError, UnreachableError
from qctl.ops.metrics.reading import MetricsReading
from qctl.ops.metrics.scrape import SharedReadings
from tests.labs.servers import wait_until

GOOD = MetricsReading(datetime.now(UTC), 0.1, up=True)


class Source:
    """Readings that take as long as the test wants."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.taken = 0

    def read(self) -> MetricsReading:
        self.taken += 1
        assert self.go.wait(20)
        return GOOD


def test_scrapes_at_the_same_time_share_one_reading() -> None:
    source = Source()
    shared = SharedReadings(source.read)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(shared.reading) for _ in range(8)]
        wait_until(lambda: source.taken, "the reading to begin")
        source.go.set()
        assert [future.result(20) for future in asked] == [GOOD] * 8
    later = source.taken
    assert shared.reading() == GOOD
    assert source.taken == later + 1


def test_a_scrape_waits_no_longer_than_allowed_and_readings_do_not_pile_up() -> None:
    source = Source()
    shared = SharedReadings(source.read, deadline_s=0.05)
    for _ in range(3):
        reading = shared.reading()
        assert (reading.up, reading.error) == (False, "timeout")
    assert source.taken == 1
    assert shared.errors() == {"timeout": 3}
    source.go.set()
    wait_until(lambda: shared.reading().up, "a good reading")


def test_failures_are_told_and_counted_by_kind() -> None:
    errors = iter([UnreachableError("away"), FailedError("refused"), ValueError("a bug")])

    def read() -> MetricsReading:
        raise next(errors)

    shared = SharedReadings(read)
    readings = [shared.reading() for _ in range(3)]
    assert [(row.up, row.error) for row in readings] == [
        *((False, "unreachable"), (False, "failed"), (False, "failed")),
    ]
    assert shared.errors() == {"unreachable": 1, "failed": 2}
