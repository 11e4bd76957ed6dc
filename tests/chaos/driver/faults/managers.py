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
from tests.labs.servers import wait_until


def _kill(stage: Stage, _: Running, __: Random) -> Hit | None:
    """Kills the daemon. PM2's apps end with it; others go on, and are ended by ``Stage.heal``."""
    began = time.time()
    pid = stage.app.daemon
    if not pid:
        return None
    workers = frozenset(stage.workers())
    kill(pid)
    return Hit(began, time.time() + LOCK_S, workers, "node")


def _end(stage: Stage, _: Running, __: Random) -> Hit | None:
    """Asks the daemon to end; it stops its apps first."""
    began = time.time()
    pid = stage.app.daemon
    if not pid:
        return None
    workers = frozenset(stage.workers())
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not is_alive(pid), "the manager to end")
    return Hit(began, time.time() + LOCK_S, workers, "node")


def _start_anew(stage: Stage, _: Running, __: Random) -> Hit | None:
    """Asks supervisord to stop everything and to start it again."""
    began = time.time()
    pid = stage.app.daemon
    before = frozenset(stage.workers())
    if not pid or not before:
        return None
    os.kill(pid, signal.SIGHUP)
    # Another fault may end it first.
    wait_until(lambda: not is_alive(pid) or not before & {*stage.workers()}, "its apps to end")
    return Hit(began, time.time() + LOCK_S, before, "node")


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
    "term-daemon": Fault(_end),
    "hup-daemon": Fault(_start_anew, managers=frozenset({"supervisord"})),
}
