"""Decides how many jobs one call changes or reads, so that Redis soon serves other clients."""

from __future__ import annotations

import time

from qctl.connection.address import Client

# How long Redis should work at one call. qctl's limit is 5 ms. The target is much lower, because
# the limit includes the time in which Redis waits for a processor.
TARGET_S = 0.00075
# The target for a pipeline of short commands. The client measures this time, so it includes the
# network.
READING_S = 0.01
# How many jobs the first call has, and the maximum for every call.
FIRST_SIZE = 10
MAX_SIZE = 500
_PINGS = 3


class Pace:
    """Adapts the number of jobs in a call (``size``) to how long Redis works at the calls.

    Args:
        first_size: how many jobs the first call has; 1 if a single job may take long.
        target_s: how long Redis should work at one call.
        trip_s: the round trip, which is part of each measured time; see ``round_trip_s``.
    """

    def __init__(
        self, first_size: int = FIRST_SIZE, target_s: float = TARGET_S, trip_s: float = 0.0
    ) -> None:
        self._target_s = target_s
        self._trip_s = trip_s
        self.size = first_size

    def learn(self, count: int, took_s: float) -> None:
        """Adapt ``size`` to how long a call for ``count`` jobs took."""
        busy_s = max(took_s - self._trip_s, 0.0)
        if busy_s > self._target_s:
            self.size = max(1, min(self.size, int(count * self._target_s / busy_s)))
        # Only a full call shows that more jobs would still be fast enough.
        elif count >= self.size and busy_s < self._target_s / 2:
            self.size = min(MAX_SIZE, self.size * 2)


def round_trip_s(client: Client) -> float:
    """The shortest of a few PINGs, in seconds."""
    times = []
    for _ in range(_PINGS):
        began = time.monotonic()
        client.call("PING")
        times.append(time.monotonic() - began)
    return min(times)
