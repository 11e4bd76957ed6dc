"""Shares one reading among simultaneous scrapes, and limits how long a scrape waits for it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime

from qctl.errors import QctlError, is_outage
from qctl.ops.metrics.reading import MetricsReading

# Below the 10 s that Prometheus waits by default.
DEADLINE_S = 8.0


class SharedReadings:
    """Provides readings to scrapes. At most one reading runs at a time, however slow Redis is.

    Args:
        read: makes a reading; may raise ``QctlError``.
        deadline_s: the longest time that a scrape waits for a reading.
    """

    def __init__(self, read: Callable[[], MetricsReading], *, deadline_s: float = DEADLINE_S):
        self._read = read
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._running: Future[MetricsReading] | None = None
        self._errors: Counter[str] = Counter()

    def reading(self) -> MetricsReading:
        """The reading that already runs, or a new one. If it fails or is late, ``up`` is False."""
        began = time.monotonic()
        with self._lock:
            if self._running is None:
                self._running = Future()
                threading.Thread(target=self._run, args=(self._running,), daemon=True).start()
            running = self._running
        try:
            return running.result(self._deadline_s)
        except TimeoutError:
            self.count_error("timeout")
            return _failed("timeout", began)

    def errors(self) -> Mapping[str, int]:
        """Failures so far, by kind."""
        with self._lock:
            return dict(self._errors)

    def count_error(self, kind: str) -> None:
        """Count a failure of a reading, or of another part of the server."""
        with self._lock:
            self._errors[kind] += 1

    def _run(self, running: Future[MetricsReading]) -> None:
        began = time.monotonic()
        try:
            reading = self._read()
        except Exception as error:
            # An unexpected error must not leave the next scrapes without an answer.
            kind = "unreachable" if is_outage(error) else "failed"
            what = error.what if isinstance(error, QctlError) else repr(error)
            reading = _failed(kind, began, what)
            self.count_error(kind)
        with self._lock:
            self._running = None
        running.set_result(reading)


def _failed(kind: str, began: float, *remarks: str) -> MetricsReading:
    took_s = round(time.monotonic() - began, 6)
    return MetricsReading(datetime.now(UTC), took_s, up=False, error=kind, remarks=remarks)
