"""The demo's producer: adds jobs steadily, and records how many runs each job needs."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

from qctl.demo.app import QUEUE
from qctl.demo.record import SCHEDULER
from qctl.runtime.api.queue import Queue
from qctl.wire.options import Backoff
from qctl.wire.write.adding import NewJob

# The time between two jobs that the producer adds.
INTERVAL_S = 0.125
# The time between two jobs that the scheduler adds.
SCHEDULE_S = 1.0
RETRY_S = 0.5
DELAY_S = 1.5
_LOW_PRIORITY = 10
_BACKOFF = Backoff("exponential", RETRY_S)


def jobs() -> Iterator[tuple[NewJob, int]]:
    """Yield jobs without end, each with the number of runs that the job needs."""
    for number in itertools.count():
        # The jobs take 0.3 to 1.0 s, in a mixed order.
        data = {"user": number, "seconds": 0.3 + number * 3 % 8 / 10}
        match number % 8:
            case 2:
                yield NewJob("crm-sync", data, attempts=3, backoff=_BACKOFF), 2
            case 3 | 6:
                yield NewJob("newsletter", data, priority=_LOW_PRIORITY), 1
            case 5:
                yield NewJob("reminder", data, delay=DELAY_S), 1
            case _:
                yield NewJob("welcome", data), 1


class Producer(threading.Thread):
    """A thread that adds jobs until ``stop`` is called.

    Attributes:
        added: job id → the number of runs that the job needs.
    """

    def __init__(self, redis_url: str, prefix: str) -> None:
        super().__init__(name="producer", daemon=True)
        self._queue = Queue(QUEUE, redis_url=redis_url, prefix=prefix)
        self._is_stopping = threading.Event()
        self._error: Exception | None = None
        self.added: dict[str, int] = {}

    def run(self) -> None:
        try:
            self._queue.upsert_scheduler(SCHEDULER, every=SCHEDULE_S, attempts=1)
            for job, runs in jobs():
                (job_id,) = self._queue.add_bulk([job])
                self.added[job_id] = runs
                if self._is_stopping.wait(INTERVAL_S):
                    return
        except Exception as error:
            self._error = error

    def check(self) -> None:
        """Raise the error that ended the producer, if there is one."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Stop adding jobs and remove the scheduler. Raises what ``check`` raises."""
        self.stop()
        self.check()
        self._queue.remove_scheduler(SCHEDULER)

    def hand_over(self) -> None:
        """Create schedulers that add jobs after this process has ended."""
        rows = (("welcome", 0.5, 0.8), ("crm-sync", 2, 0.4), ("reminder", 3, 1))
        for name, every_s, seconds in rows:
            self._queue.upsert_scheduler(
                f"every-{every_s:g}s", every=every_s, name=name, data={"seconds": seconds},
                attempts=3, backoff=_BACKOFF,
            )  # fmt: skip

    def stop(self) -> None:
        self._is_stopping.set()
        if self.is_alive():
            self.join()

    def close(self) -> None:
        self.stop()
        self._queue.close()
