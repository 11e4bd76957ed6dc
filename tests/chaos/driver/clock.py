"""Whether this machine itself stood still, which looks like a fault."""

from __future__ import annotations

import threading
import time

# Locks are renewed at half of their time.
STANDSTILL_S = 1.0


class Clock(threading.Thread):
    """Notices when this machine stands still for so long that workers lose their locks.

    Attributes:
        gaps: from when to when it stood still, in seconds since 1970.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._stopping = threading.Event()
        self.gaps: list[tuple[float, float]] = []

    def run(self) -> None:
        before = time.time()
        while not self._stopping.wait(0.1):
            now = time.time()
            if now - before > STANDSTILL_S:
                self.gaps.append((before, now))
            before = now

    def stop(self) -> None:
        self._stopping.set()
        self.join(20)
