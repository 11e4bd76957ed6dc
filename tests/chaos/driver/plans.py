"""Which faults a round has, and on what it plays: the same for the same seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tests.chaos.driver.faults import FAULTS
from tests.chaos.driver.faults.base import Fault
from tests.chaos.driver.managers import MANAGERS
from tests.chaos.driver.scenes import Scene
from tests.chaos.driver.stage import REDIS

FAULTS_A_ROUND = 12


@dataclass(frozen=True)
class Plan:
    """A round to play.

    Args:
        kinds: of the faults, in order.
    """

    scene: Scene
    kinds: tuple[str, ...]


def plan_round(seed: int, number: int, faults: Sequence[str]) -> Plan:
    """The plan of a round; rounds are numbered from 1.

    Each round begins with a kind that the rounds before it have had least often, on a scene where
    it can happen, and goes on with others that can happen there: all kinds come equally often.
    """
    planned: Counter[str] = Counter()
    for earlier in range(1, number + 1):
        plan = _next_plan(Random(f"{seed}:{earlier}"), planned, faults)
        planned.update(plan.kinds)
    return plan


def _next_plan(chance: Random, planned: Counter[str], faults: Sequence[str]) -> Plan:
    order = sorted(chance.sample(list(faults), len(faults)), key=lambda kind: planned[kind])
    first = FAULTS[order[0]]
    scene = Scene(
        manager=chance.choice(sorted(first.managers or MANAGERS)),
        redis=chance.choice(sorted(first.redis or REDIS)),
        version=chance.choice([5, 6]),
        instances=chance.choice([1, 2]),
    )
    kinds = [kind for kind in order if _fits(FAULTS[kind], scene)][:FAULTS_A_ROUND]
    return Plan(scene, tuple(chance.sample(kinds, len(kinds))))


def _fits(fault: Fault, scene: Scene) -> bool:
    return (not fault.managers or scene.manager in fault.managers) and (
        not fault.redis or scene.redis in fault.redis
    )
