"""Apps that crash, hang, are slow, or leave."""

from __future__ import annotations

import os
import signal
import time
from random import Random

from tests.chaos.driver.faults.base import Fault, Inject
from tests.chaos.driver.hits import Hit
from tests.chaos.driver.stage import Stage
from tests.labs.drains import Running


def _flag(name: str, whose: str, longest_s: float) -> Inject:
    """Lets a file exist for a while, which workers look for when they start or stop.

    Args:
        whose: jobs that may be cut short.
    """

    def inject(stage: Stage, _: Running, chance: Random) -> Hit:
        began = time.time()
        file = stage.flag(name)
        file.touch()
        time.sleep(chance.uniform(0.5, longest_s))
        file.unlink()
        # Who has seen it a moment ago crashes, or hangs until its manager kills it.
        return Hit(began, time.time() + stage.app.kill_after_s + 1, whose=whose)

    return inject


def _leave(stage: Stage, _: Running, chance: Random) -> Hit | None:
    """A Node worker exits with 0 at once, as one does whose event loop has nothing left to do."""
    pids = stage.workers()
    if not pids:
        return None
    pid = chance.choice(sorted(pids))
    began = time.time()
    os.kill(pid, signal.SIGUSR2)
    return Hit(began, time.time(), frozenset([pid]))


# Most hit something when workers are about to stop or to start.
_AROUND = ("drained", "restarting", "ready")

FAULTS: dict[str, Fault] = {
    "crash-loop": Fault(_flag("crash", "all", 3), _AROUND),
    "slow-boot": Fault(_flag("boot", "", 3), _AROUND),
    "hang-on-stop": Fault(_flag("hang", "node", 3), ("waiting", "drained", "restarting")),
    "exit-loop": Fault(_flag("exit", "node", 3), _AROUND),
    "exit-0": Fault(_leave),
}
