"""Redis dies, stands still, or hangs up."""

from __future__ import annotations

import contextlib
import os
import time
from random import Random

from qctl.errors import QctlError
from tests.chaos.driver.faults.base import Fault, Inject
from tests.chaos.driver.hits import Hit
from tests.chaos.driver.stage import ALONE, LOCK_S, Stage
from tests.labs.drains import Running


def _command(*words: str) -> Inject:
    """Sends a command to Redis, with a time for MS or S in it."""

    def inject(stage: Stage, _: Running, chance: Random) -> Hit:
        began = time.time()
        seconds = chance.uniform(0.2, 1.5)
        values = {"MS": f"{seconds * 1000:.0f}", "S": f"{seconds:.2f}"}
        with stage.admin() as client:
            client.call(*(values.get(word, word) for word in words), timeout_s=10)
        return Hit(began, time.time())

    return inject


def _kill(stage: Stage, _: Running, chance: Random) -> Hit:
    """Kills Redis, which has an append-only file, and starts it again."""
    with stage.redis_turn:
        began = time.time()
        stage.server.kill()
        return _start_again(stage, began, chance)


def _start_again(
    stage: Stage, began: float, chance: Random, forgets: tuple[float, float] | None = None
) -> Hit:
    time.sleep(chance.uniform(0, 1.5))
    stage.lab.bring_redis_back()
    # What waited for its reply is unknown to its sender, so locks may run out.
    return Hit(began, time.time() + LOCK_S, whose="all", forgets=forgets)


def _cut_power(stage: Stage, _: Running, chance: Random) -> Hit:
    """Kills Redis and what it wrote during the last second, which was not on the disk yet."""
    with stage.redis_turn:
        began = time.time()
        (file,) = (stage.server.folder / "appendonlydir").glob("*.incr.aof")
        on_disk = file.stat().st_size
        time.sleep(chance.uniform(0, 1))
        stage.server.kill()
        os.truncate(file, on_disk)
        # Redis may write up to two seconds late.
        return _start_again(stage, began, chance, (began - 2, time.time()))


def _kill_without_file(stage: Stage, _: Running, chance: Random) -> Hit:
    """Kills Redis, which keeps nothing on its disk: it starts empty."""
    with stage.redis_turn:
        began = time.time()
        stage.server.kill()
        return _start_again(stage, began, chance, (0, time.time()))


def _shut_down(stage: Stage, _: Running, chance: Random) -> Hit:
    """Ends Redis in order, and starts it again; it forgets nothing."""
    saves = stage.scene.redis == "none"
    with stage.redis_turn:
        began = time.time()
        with stage.admin() as client, contextlib.suppress(QctlError):
            client.call("SHUTDOWN", "SAVE" if saves else "NOSAVE")
        stage.server.stop()
        hit = _start_again(stage, began, chance)
        # Otherwise a later start would bring it back.
        (stage.server.folder / "dump.rdb").unlink(missing_ok=True)
        return hit


def _flush(stage: Stage, _: Running, __: Random) -> Hit:
    """Another operator deletes everything."""
    with stage.redis_turn, stage.admin() as client:
        began = time.time()
        client.call("FLUSHALL")
        over = time.time()
    return Hit(began, over, whose="all", forgets=(0, over))


# What Redis forgets then was waited for, or was counted by a drain.
_COUNTED = ("paused", "waiting", "drained")

FAULTS: dict[str, Fault] = {
    "client-kill": Fault(_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")),
    "client-pause": Fault(_command("CLIENT", "PAUSE", "MS", "ALL")),
    "debug-sleep": Fault(_command("DEBUG", "SLEEP", "S")),
    "kill-redis": Fault(_kill, redis=frozenset({"always", "proxied"})),
    "cut-power": Fault(_cut_power, _COUNTED, redis=frozenset({"everysec"})),
    "kill-unsaved": Fault(_kill_without_file, _COUNTED, redis=frozenset({"none"})),
    "shutdown": Fault(_shut_down, redis=ALONE),
    # A round without a memory proves less, so it happens only where Redis forgets anyway.
    "flushall": Fault(_flush, _COUNTED, redis=frozenset({"none"})),
}
