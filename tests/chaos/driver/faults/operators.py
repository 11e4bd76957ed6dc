"""Others operate the same queue at the same time."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from random import Random

from tests.chaos.driver.faults.base import Fault, Inject
from tests.chaos.driver.hits import Hit
from tests.chaos.driver.producers import QUEUE
from tests.chaos.driver.stage import Stage
from tests.labs.drains import Running
from tests.labs.node import NodeError
from tests.labs.servers import wait_until


def _bullmq(*methods: str) -> Inject:
    """Somebody calls methods of BullMQ's Queue, of the version that the workers have."""

    def inject(stage: Stage, _: Running, chance: Random) -> Hit:
        began = time.time()
        bull = stage.lab.bull(stage.version)

        def is_done(method: str) -> bool:
            # Redis may refuse it because of another fault.
            with contextlib.suppress(NodeError):
                bull.queue(QUEUE, method, prefix=stage.lab.prefix)
                return True
            return False

        for method in methods:
            wait_until(partial(is_done, method), f"BullMQ's {method}", every_s=0.2)
            time.sleep(chance.uniform(0.1, 1.5))
        return Hit(began, time.time())

    return inject


def _qctl(*lines: str) -> Inject:
    """Somebody runs other commands of qctl, one after the other."""

    def inject(stage: Stage, _: Running, chance: Random) -> Hit:
        began = time.time()
        for line in lines:
            stage.start_beside(*line.split()).finish()
            time.sleep(chance.uniform(0.1, 1))
        return Hit(began, time.time())

    return inject


_DRAIN = f"drain {QUEUE} --yes --timeout 5s --output ndjson"

FAULTS: dict[str, Fault] = {
    "other-pause": Fault(_bullmq("pause", "resume")),
    "other-resume": Fault(_bullmq("resume")),
    "second-pause": Fault(_qctl(f"pause {QUEUE}", f"resume {QUEUE}")),
    "second-resume": Fault(_qctl(f"resume {QUEUE} --force")),
    "second-drain": Fault(_qctl(_DRAIN, f"resume {QUEUE}")),
}
