"""Readings for many who ask at once: they share one, and none waits longer than allowed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from qctl.errors import QctlError, is_outage
from qctl.ops.metrics.reading import MetricsReading

# Below the 10 s that Prometheus waits unless told otherwise.
DEADLINE_S = 8.0


class _Flight:
    """A reading under way."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.reading: MetricsReading | None = None


class SharedReadings:
    """Gives readings to scrapes; never more than one is under way, however slow Redis is.

    Args:
        read: takes a reading; may raise ``QctlError``.
        deadline_s: how long a scrape waits for one.
    """

    def __init__(self, read: Callable[[], MetricsReading], *, deadline_s: float = DEADLINE_S):
        self._read = read
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._flight: _Flight | None = None
        self._errors: Counter[str] = Counter()

    def reading(self) -> MetricsReading:
        """A reading that was under way or began now; one that is not ``up`` if it failed."""
        began = time.monotonic()
        with self._lock:
            if self._flight is None:
                self._flight = _Flight()
                threading.Thread(target=self._take, args=(self._flight,), daemon=True).start()
            flight = self._flight
        if flight.done.wait(self._deadline_s) and flight.reading is not None:
            return flight.reading
        self.count_error("timeout")
        return _failed("timeout", began)

    def errors(self) -> Mapping[str, int]:
        """Failures so far, by kind."""
        with self._lock:
            return dict(self._errors)

    def count_error(self, kind: str) -> None:
        """Count a failure of another part of the server too."""
        with self._lock:
            self._errors[kind] += 1

    def _take(self, flight: _Flight) -> None:
        began = time.monotonic()
        try:
            flight.reading = self._read()
        except QctlError as error:
            kind = "unreachable" if is_outage(error) else "failed"
            flight.reading = replace(_failed(kind, began), remarks=(error.what,))
            self.count_error(kind)
        except Exception as error:
            # Whatever it is, the next scrape is answered too.
            flight.reading = replace(_failed("failed", began), remarks=(repr(error),))
            self.count_error("failed")
        finally:
            with self._lock:
                self._flight = None
            flight.done.set()


def _failed(kind: str, began: float) -> MetricsReading:
    return MetricsReading(
        datetime.now(UTC), round(time.monotonic() - began, 6), up=False, error=kind
    )
