"""How many jobs one call takes, so that Redis is never kept from others for long."""

from __future__ import annotations

import time

from qctl.connection.address import Client

# What a call may take of Redis' time. None may take 5 ms: what is far below that stays below it,
# also when Redis has to wait for a processor meanwhile.
TARGET_S = 0.00075
# The same for many short commands sent at once, of which only their caller can tell how long they
# took, on top of a round trip.
READING_S = 0.01
FIRST = 10
_MOST = 500
_PINGS = 3


class Pace:
    """Adapts the size of calls to how long Redis works at them.

    Args:
        first: the size of the first call; 1 where one job alone may take long.
        target_s: what a call may take.
        trip_s: what of a call's time is its way there and back; see ``round_trip_s``.
    """

    def __init__(self, first: int = FIRST, target_s: float = TARGET_S, trip_s: float = 0.0) -> None:
        self._target_s = target_s
        self._trip_s = trip_s
        self.size = first

    def learn(self, count: int, took_s: float) -> None:
        """Take note of how long a call for ``count`` jobs took."""
        busy_s = max(took_s - self._trip_s, 0.0)
        if busy_s > self._target_s:
            self.size = max(1, min(self.size, int(count * self._target_s / busy_s)))
        elif count >= self.size and busy_s < self._target_s / 2:
            self.size = min(_MOST, self.size * 2)


def round_trip_s(client: Client) -> float:
    """The shortest of a few PINGs, in seconds."""
    times = []
    for _ in range(_PINGS):
        began = time.monotonic()
        client.call("PING")
        times.append(time.monotonic() - began)
    return min(times)
