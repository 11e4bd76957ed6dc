"""The faults: each does something bad, and says whose jobs it may cut short."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from random import Random

from tests.chaos.driver.hits import Hit
from tests.chaos.driver.stage import LOCK_MS, Stage
from tests.labs.drains import Running, is_alive

# What happened, or None if there was nothing that it could hit.
Fault = Callable[[Stage, Running, Random], Hit | None]


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


def _send(role: str, number: signal.Signals, *, cuts: bool) -> Fault:
    """Sends a signal to a process of a role; SIGSTOP ends before a lock does.

    Args:
        cuts: whether the process may leave jobs behind.
    """

    def inject(stage: Stage, running: Running, chance: Random) -> Hit | None:
        pids = _pids(stage, running, role)
        if not pids:
            return None
        pid = chance.choice(pids)
        began = time.time()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if number == signal.SIGSTOP:
            stage.stopped.add(pid)
            time.sleep(chance.uniform(0.2, 1.5))
            if is_alive(pid):
                os.kill(pid, signal.SIGCONT)
            stage.stopped.discard(pid)
        return Hit("", began, time.time(), frozenset([pid] if cuts else []))

    return inject


def _redis(*command: str) -> Fault:
    """Sends a command to Redis, with a time for MS or S in it."""

    def inject(stage: Stage, _: Running, chance: Random) -> Hit:
        began = time.time()
        seconds = chance.uniform(0.2, 1.5)
        values = {"MS": f"{seconds * 1000:.0f}", "S": f"{seconds:.2f}"}
        stage.lab.client.call(*(values.get(word, word) for word in command), timeout_s=10)
        return Hit("", began, time.time())

    return inject


def _kill_redis(stage: Stage, _: Running, chance: Random) -> Hit:
    """Kills Redis, which has an append-only file, and starts it again."""
    began = time.time()
    stage.server.kill()
    time.sleep(chance.uniform(0, 1.5))
    stage.lab.bring_redis_back()
    # What waited for its reply is unknown to its sender, so locks may run out.
    return Hit("", began, time.time() + LOCK_MS / 1000, whose="all")


_SIGNALS = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    "term": signal.SIGTERM,
    "hup": signal.SIGHUP,
}
_ROLES = ("qctl", "watchdog", "master", "child", "worker")
# The handlers of SIGTERM let jobs end. qctl's processes also handle SIGHUP; Node ends at once.
_CUTS = {("kill", "worker"), ("kill", "child"), ("hup", "worker")}

FAULTS: dict[str, Fault] = {
    **{
        f"{word}-{role}": _send(role, number, cuts=(word, role) in _CUTS)
        for word, number in _SIGNALS.items()
        for role in _ROLES
    },
    "client-kill": _redis("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
    "client-pause": _redis("CLIENT", "PAUSE", "MS", "ALL"),
    "debug-sleep": _redis("DEBUG", "SLEEP", "S"),
    "kill-redis": _kill_redis,
}
