"""The demo's producer: adds jobs steadily, and knows how many runs each should take."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

from qctl.demo.app import QUEUE
from qctl.demo.record import SCHEDULER
from qctl.runtime.api.queue import Queue
from qctl.wire.options import Backoff
from qctl.wire.write.adding import NewJob

INTERVAL_S = 0.125
SCHEDULE_S = 1.0
RETRY_S = 0.5
DELAY_S = 1.5
_PRIORITY = 10
_BACKOFF = Backoff("exponential", RETRY_S)


def jobs() -> Iterator[tuple[NewJob, int]]:
    """Jobs without end in rounds of 8, each with the number of runs that it should take."""
    for number in itertools.count():
        # 0.3 to 1.0 s in a mixed order.
        data = {"user": number, "seconds": 0.3 + number * 3 % 8 / 10}
        match number % 8:
            case 2:
                yield NewJob("sync", data, attempts=3, backoff=_BACKOFF), 2
            case 3 | 6:
                yield NewJob("newsletter", data, priority=_PRIORITY), 1
            case 5:
                yield NewJob("reminder", data, delay=DELAY_S), 1
            case _:
                yield NewJob("welcome", data), 1


class Producer(threading.Thread):
    """Adds jobs until it is stopped.

    Attributes:
        added: id → runs that the job should take.
    """

    def __init__(self, redis_url: str, prefix: str) -> None:
        super().__init__(name="producer", daemon=True)
        self._queue = Queue(QUEUE, redis_url=redis_url, prefix=prefix)
        self._done = threading.Event()
        self._error: Exception | None = None
        self.added: dict[str, int] = {}

    def run(self) -> None:
        try:
            self._queue.upsert_scheduler(SCHEDULER, every=SCHEDULE_S, attempts=1)
            for job, runs in jobs():
                (job_id,) = self._queue.add_bulk([job])
                self.added[job_id] = runs
                if self._done.wait(INTERVAL_S):
                    return
        except Exception as error:
            self._error = error

    def check(self) -> None:
        """Raise the ``QctlError`` that ended the producer, if any."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Stop adding jobs and remove the scheduler. Raises like ``check``."""
        self.stop()
        self.check()
        self._queue.remove_scheduler(SCHEDULER)

    def hand_over(self) -> None:
        """Create schedulers that add jobs after this process has ended."""
        for name, every_s, seconds in (("welcome", 0.5, 0.8), ("sync", 2, 0.4), ("reminder", 3, 1)):
            self._queue.upsert_scheduler(
                f"every-{every_s:g}s", every=every_s, name=name, data={"seconds": seconds},
                attempts=3, backoff=_BACKOFF,
            )  # fmt: skip

    def stop(self) -> None:
        self._done.set()
        if self.is_alive():
            self.join()

    def close(self) -> None:
        self.stop()
        self._queue.close()
