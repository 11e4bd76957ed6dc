"""How many jobs one call takes, so that Redis is never kept from others for long."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from qctl.connect import Client

T = TypeVar("T")

# What a call may take of Redis' time; well below the 5 ms that none may.
TARGET_S = 0.001
# The same for a step of jobs through a list, of which some cost is the same for any size.
MOVING_S = 0.0015
# The same for many commands sent at once, between which Redis serves its other clients.
READING_S = 0.01
FIRST = 50
_MOST = 500
_PINGS = 3


class Pace:
    """Adapts the size of calls to how long they take.

    Redis does not tell how long it worked at a call, so all of the time counts that a call takes
    longer than a PING did: a slow network makes the calls small, and never large.

    Args:
        ping_s: what the shortest round trip takes; see ``round_trip_s``.
        first: the size of the first call; small where one job alone may take long.
        target_s: what a call may take.
    """

    def __init__(self, ping_s: float, first: int = FIRST, target_s: float = TARGET_S) -> None:
        self._ping_s = ping_s
        self._target_s = target_s
        self.size = first

    def timed(self, count: int, call: Callable[[], T]) -> T:
        """Make a call for ``count`` jobs, and learn from it."""
        began = time.monotonic()
        result = call()
        self.learn(count, time.monotonic() - began)
        return result

    def learn(self, count: int, took_s: float) -> None:
        """Take note that a call for ``count`` jobs took so long."""
        busy_s = max(took_s - self._ping_s, 0.0)
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
