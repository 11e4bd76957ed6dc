"""How long nobody takes jobs, by what the last start of a process shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qctl.manage.kubernetes.manager import Kubernetes
from qctl.manage.pm2.manager import Pm2
from qctl.ops.impact.downtime import BOOT_S, Downtime, downtime
from qctl.ops.processes.targets import Connections, Target
from qctl.wire.read.clients import WorkerClient, Workers
from tests.labs.build import Q
from tests.labs.impact import NOW, PROCESS

UP_S = 300


def boot(
    *ages_s: int, redis_up_s: float | None = 86_400, up_s: int = UP_S
) -> tuple[tuple[float, float], bool]:
    """Of an app whose processes run for ``up_s``, each with a connection of that age."""
    processes = [
        replace(PROCESS, key=str(number), started_at_ms=NOW - up_s * 1000)
        for number in range(len(ages_s))
    ]
    owned = {
        process.identity: (WorkerClient(Q, None, number, f"127.0.0.1:{number}", age_s, 1),)
        for number, (process, age_s) in enumerate(zip(processes, ages_s, strict=True))
    }
    workers = tuple(worker for each in owned.values() for worker in each)
    target = Target("pm2:app", Pm2(Path("/nonexistent")), tuple(processes), ())
    told = downtime(target, Connections(Workers(workers), owned, {}), [], NOW, redis_up_s)
    return told.boot_s, told.boot_is_assumed


@pytest.mark.parametrize(
    ("ages_s", "expected"), [((UP_S - 1,), (0.1, 3.0)), ((UP_S - 8, UP_S - 2), (1.0, 10.0))]
)
def test_a_connection_from_the_start_shows_how_long_it_took(
    ages_s: tuple[int, ...], expected: tuple[float, float]
) -> None:
    assert boot(*ages_s) == (expected, False)


def test_a_connection_that_may_have_been_renewed_is_a_limit_and_no_figure() -> None:
    # A slow start, or CLIENT KILL 47 s behind a quick one.
    assert boot(UP_S - 47) == ((BOOT_S[0], 49.0), True)
    assert boot(UP_S - 47, UP_S - 20) == ((BOOT_S[0], 22.0), True)
    # One process shows it.
    assert boot(UP_S - 47, UP_S - 2) == ((1.0, 4.0), False)
    assert boot(UP_S - 100) == (BOOT_S, True)


def test_a_connection_is_not_older_than_redis() -> None:
    assert boot(UP_S - 47, redis_up_s=UP_S - 45) == (BOOT_S, True)
    assert boot(UP_S - 4, redis_up_s=UP_S - 3.5) == (BOOT_S, True)
    # Both were started at the same time; Redis counts whole seconds.
    assert boot(UP_S - 2, redis_up_s=UP_S - 1) == ((1.0, 4.0), False)
    # Where Redis does not tell, nobody knows whether it was there before.
    assert boot(UP_S - 7, redis_up_s=None) == ((BOOT_S[0], 9.0), True)


def of(manager: Any, count: int, **changes: Any) -> Downtime:
    """Of an app with ``count`` processes and no running job; each start takes up to 5 s."""
    processes = tuple(replace(PROCESS, key=str(number), **changes) for number in range(count))
    return downtime(Target("any:app", manager, processes, ()), None, [], NOW, None)


def test_a_rollout_that_keeps_a_pod_leaves_a_gap_of_one_start_at_most() -> None:
    kept = of(Kubernetes(), 2, stays_served=True, kill_timeout_ms=None)
    assert kept.plain_s == (0.0, BOOT_S[1])
    # As if all pods stopped at once, each after 1.6 s.
    assert of(Kubernetes(), 2).plain_s == (BOOT_S[0], 6.6)
    assert of(Kubernetes(), 2, kill_timeout_ms=None).plain_s is None


def test_a_drain_lasts_until_the_last_process_is_replaced() -> None:
    one = of(Pm2(Path("/nonexistent")), 1).drain_p50_s
    assert one is not None
    assert of(Pm2(Path("/nonexistent")), 3).drain_p50_s == 3 * one
    assert of(Kubernetes(), 3, stays_served=True).drain_p50_s == 3 * one
    assert of(Kubernetes(), 3).drain_p50_s == one
