"""Another Redis takes over: after a crash, in agreement, or because a slot moves."""

from __future__ import annotations

import time
from random import Random

from tests.chaos.driver.faults.base import Fault
from tests.chaos.driver.hits import Hit
from tests.chaos.driver.servers import Clustered
from tests.chaos.driver.stage import LOCK_S, Stage
from tests.labs.drains import Running


def _crash(stage: Stage, _: Running, __: Random) -> Hit:
    """The server that has the queue is killed; its replica may lack its last writes."""
    with stage.redis_turn:
        began = time.time()
        return _over(stage, began, stage.several.crash())


def _hand_over(stage: Stage, _: Running, __: Random) -> Hit:
    """Another server takes over in agreement."""
    with stage.redis_turn:
        began = time.time()
        return _over(stage, began, stage.several.hand_over())


def _move_slot(stage: Stage, _: Running, chance: Random) -> Hit:
    """The queue's slot moves to another master. BullMQ's clients get errors meanwhile."""
    with stage.redis_turn:
        began = time.time()
        assert isinstance(stage.several, Clustered)
        stage.several.move_slot(chance)
        return Hit(began, time.time() + LOCK_S, whose="all", refuses=True)


def _over(stage: Stage, began: float, forgets: tuple[float, float] | None) -> Hit:
    # Two failovers at a time are more than a replica can stand.
    stage.several.heal()
    # BullMQ's clients of a cluster give up after some tries: "CLUSTERDOWN".
    gives_up = isinstance(stage.several, Clustered)
    return Hit(began, time.time() + LOCK_S, whose="all", forgets=forgets, refuses=gives_up)


_SENTINEL = frozenset({"sentinel"})
_CLUSTER = frozenset({"cluster"})

FAULTS: dict[str, Fault] = {
    "sentinel-crash": Fault(_crash, redis=_SENTINEL),
    "sentinel-failover": Fault(_hand_over, redis=_SENTINEL),
    "cluster-crash": Fault(_crash, redis=_CLUSTER),
    "cluster-failover": Fault(_hand_over, redis=_CLUSTER),
    "move-slot": Fault(_move_slot, redis=_CLUSTER),
}
