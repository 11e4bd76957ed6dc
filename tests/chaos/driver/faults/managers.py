"""The daemons of process managers die."""

from __future__ import annotations

import os
import signal
import time
from random import Random

from tests.chaos.driver.faults.base import Fault
from tests.chaos.driver.hits import Hit
from tests.chaos.driver.stage import LOCK_S, Stage
from tests.labs.drains import Running, is_alive, kill


def _kill(stage: Stage, _: Running, __: Random) -> Hit | None:
    """Kills the daemon. PM2's apps end with it; others go on, and are ended by ``Stage.heal``."""
    began = time.time()
    pid = stage.app.daemon
    if not pid:
        return None
    workers = frozenset(stage.workers())
    kill(pid)
    return Hit(began, time.time() + LOCK_S, workers, "node")


def _stop(stage: Stage, _: Running, chance: Random) -> Hit | None:
    """The daemon stands still for a while."""
    began = time.time()
    pid = stage.app.daemon
    if not pid:
        return None
    stage.stopped.add(pid)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(chance.uniform(0.2, 3))
    if is_alive(pid):
        os.kill(pid, signal.SIGCONT)
    stage.stopped.discard(pid)
    return Hit(began, time.time())


FAULTS: dict[str, Fault] = {
    "kill-daemon": Fault(_kill),
    "stop-daemon": Fault(_stop),
}
