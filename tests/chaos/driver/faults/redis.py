"""Redis dies, stands still, or hangs up."""

from __future__ import annotations

import time
from random import Random

from tests.chaos.driver.faults.base import Fault, Inject
from tests.chaos.driver.hits import Hit
from tests.chaos.driver.stage import LOCK_S, Stage
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
        time.sleep(chance.uniform(0, 1.5))
        stage.lab.bring_redis_back()
    # What waited for its reply is unknown to its sender, so locks may run out.
    return Hit(began, time.time() + LOCK_S, whose="all")


FAULTS: dict[str, Fault] = {
    "client-kill": Fault(_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")),
    "client-pause": Fault(_command("CLIENT", "PAUSE", "MS", "ALL")),
    "debug-sleep": Fault(_command("DEBUG", "SLEEP", "S")),
    "kill-redis": Fault(_kill, redis=frozenset({"always"})),
}
