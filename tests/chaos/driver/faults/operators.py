"""Others operate the same queue at the same time."""

from __future__ import annotations

import time
from random import Random

from tests.chaos.driver.faults.base import Fault, Inject
from tests.chaos.driver.hits import Hit
from tests.chaos.driver.producers import QUEUE
from tests.chaos.driver.stage import Stage
from tests.labs.drains import Running


def _bullmq(*methods: str) -> Inject:
    """Somebody calls methods of BullMQ's Queue, of the version that the workers have."""

    def inject(stage: Stage, _: Running, chance: Random) -> Hit:
        began = time.time()
        for method in methods:
            stage.lab.bull(stage.version).queue(QUEUE, method, prefix=stage.lab.prefix)
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
