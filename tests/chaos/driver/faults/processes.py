"""Signals to the processes of qctl and to workers."""

from __future__ import annotations

import os
import signal
import time
from random import Random

from tests.chaos.driver.commands import BULK
from tests.chaos.driver.faults.base import STEPS, Fault, Inject
from tests.chaos.driver.hits import Hit
from tests.chaos.driver.managers import KILL_AFTER_S
from tests.chaos.driver.stage import LOCK_S, Stage
from tests.labs.drains import Running, is_alive

# After SIGTERM, they let their jobs end.
_END_JOBS = frozenset({"master", "child", "worker"})


def _pids(stage: Stage, running: Running, role: str) -> list[int]:
    match role:
        case "qctl":
            return [] if running.is_over else [running.pid]
        case "watchdog":
            return running.watchdog_pids()
        case "master":
            return [stage.master] if stage.master else []
        case "child":
            return stage.children()
        case _:
            return stage.workers()


def _one(stage: Stage, running: Running, role: str, chance: Random) -> int | None:
    """The pid of a process of a role; None if there is none."""
    pids = _pids(stage, running, role)
    return chance.choice(sorted(pids)) if pids else None


def _send(role: str, number: signal.Signals, *, cuts: bool) -> Inject:
    """Sends a signal to a process of a role; SIGSTOP ends before a lock does.

    Args:
        cuts: whether the process may leave jobs behind.
    """

    def inject(stage: Stage, running: Running, chance: Random) -> Hit | None:
        pid = _one(stage, running, role, chance)
        if pid is None:
            return None
        began = time.time()
        if number == signal.SIGSTOP:
            is_hit = stage.stop_for(pid, chance.uniform(0.2, 1.5))
            return Hit(began, time.time()) if is_hit else None
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return None
        if number == signal.SIGTERM and role in _END_JOBS:
            # The next command must not meet a process that is about to leave; one may hang.
            over = time.monotonic() + KILL_AFTER_S
            while is_alive(pid) and time.monotonic() < over:
                time.sleep(0.05)
        return Hit(began, time.time(), frozenset([pid] if cuts else []))

    return inject


def _freeze(role: str) -> Inject:
    """Stops a worker for longer than its locks last; then it goes on with jobs that others have."""

    def inject(stage: Stage, running: Running, chance: Random) -> Hit | None:
        pid = _one(stage, running, role, chance)
        began = time.time()
        if pid is None or not stage.stop_for(pid, chance.uniform(LOCK_S, LOCK_S + 1.5)):
            return None
        # A worker of BullMQ may have been given a job in the meantime, which it starts now. qctl's
        # give such jobs back.
        late_s = 1 if role == "worker" else 0
        return Hit(began, time.time() + late_s, frozenset([pid]))

    return inject


def _send_to_bulk(number: signal.Signals) -> Inject:
    """Starts a bulk command and sends it a signal, at any moment of its short life."""

    def inject(stage: Stage, _: Running, chance: Random) -> Hit | None:
        began = time.time()
        for _ in range(5):
            bulk = stage.start_beside(*chance.choice(BULK))
            time.sleep(chance.uniform(0, 0.12))
            if not bulk.is_over:
                bulk.signal(number)
                bulk.finish()
                return Hit(began, time.time())
        return None

    return inject


_SIGNALS = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    "term": signal.SIGTERM,
    "hup": signal.SIGHUP,
}
# When processes of a role run. A drain has a watchdog from its pause on.
_ROLES = {"qctl": STEPS, "watchdog": STEPS[1:-1], "master": STEPS, "child": STEPS, "worker": STEPS}
# The handlers of SIGTERM let jobs end. qctl's processes also handle SIGHUP; Node ends at once.
_CUTS = {("kill", "worker"), ("kill", "child"), ("hup", "worker")}

FAULTS: dict[str, Fault] = {
    f"{word}-{role}": Fault(_send(role, number, cuts=(word, role) in _CUTS), steps)
    for word, number in _SIGNALS.items()
    for role, steps in _ROLES.items()
}
FAULTS |= {
    "freeze-worker": Fault(_freeze("worker")),
    "freeze-child": Fault(_freeze("child")),
    "kill-bulk": Fault(_send_to_bulk(signal.SIGKILL)),
    "term-bulk": Fault(_send_to_bulk(signal.SIGTERM)),
}
