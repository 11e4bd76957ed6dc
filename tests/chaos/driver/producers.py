"""Jobs of all kinds, added while everything breaks."""

from __future__ import annotations

import contextlib
import threading
import time
from random import Random
from typing import Any

from qctl import Queue
from qctl.errors import QctlError

QUEUE = "q"
# Fails for good at its first run; `retry-failed` lets it complete.
HOPELESS = "hopeless"


class PythonProducer(threading.Thread):
    """Adds jobs of all kinds with qctl's Queue until it is stopped.

    Attributes:
        acknowledged: id → when, in seconds since 1970.
        unsure: of a job that may have been added, because no reply came; at most one.
    """

    def __init__(self, url: str, prefix: str, chance: Random, every_s: float) -> None:
        super().__init__(daemon=True)
        self._queue = Queue(QUEUE, redis_url=url, prefix=prefix)
        self._chance = chance
        self._every_s = every_s
        self._stopping = threading.Event()
        self.acknowledged: dict[str, float] = {}
        self.unsure: set[str] = set()

    def run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            job_id = f"p{number}"
            name, data, options = self._job()
            self.unsure.add(job_id)
            while not self._stopping.is_set():
                # With its id, a job can be added again if the first reply was lost.
                with contextlib.suppress(QctlError):
                    self._queue.add(name, data, job_id=job_id, **options)
                    self.acknowledged[job_id] = time.time()
                    self.unsure.discard(job_id)
                    break
                self._stopping.wait(0.05)
            self._stopping.wait(self._every_s)
        self._queue.close()

    def _job(self) -> tuple[str, dict[str, Any], dict[str, Any]]:
        # A few run so long that a drain waits for them.
        ms = self._chance.choice([self._chance.randint(5, 150)] * 14 + [1500])
        data: dict[str, Any] = {"ms": ms}
        match self._chance.randrange(8):
            case 0:
                return "prioritized", data, {"priority": 5}
            case 1:
                return "delayed", data, {"delay": 0.4}
            case 2:
                return "flaky", {**data, "fail_times": 1}, {"attempts": 3, "backoff": "fixed:200ms"}
            case 3:
                return HOPELESS, {**data, "fail_times": 1}, {}
            case _:
                return "plain", data, {}

    def stop(self) -> dict[str, float]:
        self._stopping.set()
        if self.is_alive():
            self.join(20)
        return self.acknowledged
