"""What a fault is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.chaos.driver.hits import Hit
from tests.chaos.driver.stage import Stage
from tests.labs.drains import Running

# The steps of a drain at which a fault may happen; a command that does not have a step is
# disturbed while it runs.
STEPS = ("plan", "paused", "waiting", "drained", "restarting", "ready", "resumed")
# Gets the command at work.
Inject = Callable[[Stage, Running, Random], Hit | None]


@dataclass(frozen=True)
class Fault:
    """Something bad that can happen.

    Args:
        inject: does it, and undoes what ends by itself (a pause, a delay). What happened, or None
            if there was nothing to hit: it is then tried again with the next command.
        steps: at which steps of a command it can hit something.
        managers: kinds of managers (``managers.MANAGERS``) under which it can happen; empty: all.
        redis: kinds of Redis (``stage.REDIS``) with which it can happen; empty: all.
    """

    inject: Inject
    steps: tuple[str, ...] = STEPS
    managers: frozenset[str] = frozenset()
    redis: frozenset[str] = frozenset()
