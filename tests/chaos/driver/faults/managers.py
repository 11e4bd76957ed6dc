"""The daemons of process managers die."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from random import Random

from tests.chaos.driver.faults.base import Fault, Inject
from tests.chaos.driver.hits import Hit
from tests.chaos.driver.stage import LOCK_S, Stage
from tests.labs.drains import Running, is_alive, kill
from tests.labs.servers import wait_until


def _end_by(end: Callable[[int], None]) -> Inject:
    """Ends the daemon, whose pid ``end`` gets."""

    def inject(stage: Stage, _: Running, __: Random) -> Hit | None:
        began = time.time()
        pid = stage.app.daemon
        if not pid:
            return None
        workers = frozenset(stage.workers())
        end(pid)
        return Hit(began, time.time() + LOCK_S, workers, "node")

    return inject


def _terminate(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not is_alive(pid), "the manager to end")


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
    return Hit(began, time.time()) if stage.stop_for(pid, chance.uniform(0.2, 3)) else None


FAULTS: dict[str, Fault] = {
    # PM2's apps end with the daemon; others go on, and are ended by ``Stage.heal``.
    "kill-daemon": Fault(_end_by(kill)),
    "stop-daemon": Fault(_stop),
    # The daemon stops its apps first.
    "term-daemon": Fault(_end_by(_terminate)),
    "hup-daemon": Fault(_start_anew, managers=frozenset({"supervisord"})),
}
