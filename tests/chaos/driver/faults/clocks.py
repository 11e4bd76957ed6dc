"""Clocks of workers that are wrong for a while, and then right again."""

from __future__ import annotations

import time
from random import Random

from tests.chaos.driver.faults.base import Fault
from tests.chaos.driver.hits import Hit
from tests.chaos.driver.stage import Stage
from tests.labs.drains import Running

# From less than a lock's life to more than any time that a queue knows.
_STEPS_MS = (-86_400_000, -60_000, -3000, 3000, 60_000, 86_400_000)


def _step(stage: Stage, _: Running, chance: Random) -> Hit:
    """The clocks of all workers jump, and jump back. No job is cut short by that."""
    began = time.time()
    file = stage.flag("clock")
    # A worker must not read a part of the number.
    draft = file.with_suffix(".draft")
    draft.write_text(str(chance.choice(_STEPS_MS)))
    draft.rename(file)
    time.sleep(chance.uniform(0.5, 3))
    file.unlink()
    return Hit(began, time.time())


FAULTS: dict[str, Fault] = {"step-clock": Fault(_step)}
