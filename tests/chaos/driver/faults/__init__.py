"""The faults, by kind.

To add one, write a function ``(stage, running, chance) -> Hit | None`` in the file of its subject,
and add it to that file's FAULTS. It does something bad, waits for as long as that should last, and
returns a ``Hit`` that says what it excuses:

- ``Hit(began, over)``: no job may be cut short, and none may be lost;
- ``pids={…}`` or ``whose="node"|"all"``: jobs that ran in these processes between ``began`` and
  ``over`` may start again; add ``LOCK_S`` to ``over`` if locks may have run out;
- ``forgets=(T, U)``: Redis may have forgotten what it acknowledged from T to U. Jobs that were
  acknowledged in that time may be gone, and others that ran may run again. Each second too many may
  hide a loss.

It returns None if it hit nothing; that does not count. Faults of one command run in threads, at the
same time: use a connection of your own (``with stage.admin() as client``), and hold
``stage.redis_turn`` while Redis is stopped on purpose. An error of qctl (``QctlError``) counts as
"hit nothing"; any other is a violation.

What is left over, ``Stage.heal`` undoes after each command: it starts Redis, the manager, the apps
and qctl's master if they have ended, continues the processes in ``stage.stopped``, and removes the
files of ``stage.flag``.

A fault that needs a certain Redis (``stage.REDIS``, to which a kind can be added) or manager says
so in its ``Fault``; the plan then makes rounds with it. Take times and targets from ``chance``
alone, so that a seed repeats them.
"""

from __future__ import annotations

from tests.chaos.driver.faults import (
    apps,
    clocks,
    failovers,
    managers,
    network,
    operators,
    processes,
    redis,
    refusals,
)
from tests.chaos.driver.faults.base import Fault

FAULTS: dict[str, Fault] = {
    **processes.FAULTS,
    **managers.FAULTS,
    **apps.FAULTS,
    **clocks.FAULTS,
    **failovers.FAULTS,
    **operators.FAULTS,
    **redis.FAULTS,
    **refusals.FAULTS,
    **network.FAULTS,
}
