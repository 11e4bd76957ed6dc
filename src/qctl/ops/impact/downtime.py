"""How long no worker starts jobs: in a plain restart, in a drain, in a roll."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.errors import RefusedError
from qctl.manage.protocol import ManagedProcess, Rollout
from qctl.ops.drain.roll.rollable import require_rollable
from qctl.ops.jobs.estimate import all_ended_s
from qctl.ops.processes.restart import SETTLE_S
from qctl.ops.processes.targets import Connections, Target

# How long an app's start is assumed to take if its last start is unknown: minimum and maximum.
BOOT_S = (0.3, 5.0)
# If a worker's connection began later than this after the start of the process, perhaps the start
# was slow, or perhaps the worker lost its first connection and connected again.
_SURE_BOOT_S = 10.0
# A worker that connected even later than this has certainly connected again.
_MAX_BOOT_S = 60.0
# Redis counts its uptime, and the ages of connections, in whole seconds.
_ROUNDING_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Downtime:
    """How long each kind of restart takes, in seconds; None if unknown.

    Args:
        boot_s: time from the start of a process until its worker connects, minimum and maximum.
        boot_is_assumed: whether ``boot_s`` is assumed, because no last start can be timed.
        plain_s: how long a plain restart leaves the target without a worker, minimum and maximum.
            All processes are assumed to stop at once, unless the manager keeps one of them running.
        drain_wait_p50_s, drain_wait_p95_s: how long a drain waits for the running jobs. All that
            time, the queues are paused.
        drain_p50_s, drain_p95_s: that wait plus the time to restart all processes. They are
            restarted one after another, unless the manager replaces them together.
        roll_is_possible: whether the processes can be replaced one by one, without a pause.
        roll_why_not: why such a roll is impossible, or why that is unknown; "" if it is possible.
    """

    boot_s: tuple[float, float]
    boot_is_assumed: bool
    plain_s: tuple[float, float] | None
    drain_wait_p50_s: float | None
    drain_wait_p95_s: float | None
    drain_p50_s: float | None
    drain_p95_s: float | None
    roll_is_possible: bool | None
    roll_why_not: str


def downtime(
    target: Target | None,
    connections: Connections | None,
    remaining: Sequence[Sequence[float]],
    now_ms: int,
    redis_up_s: float | None,
) -> Downtime:
    """How long each kind of restart takes.

    Args:
        remaining: the result of ``remaining_runs_s`` for each running job.
        now_ms: by this host's clock, epoch milliseconds.
        redis_up_s: seconds since the latest start of a master; None if unknown.
    """
    processes = target.processes if target else ()
    boot_s, is_assumed = _boot_s(processes, connections, now_ms, redis_up_s)
    p50_s, p95_s = all_ended_s(remaining, 0.5), all_ended_s(remaining, 0.95)
    restart_s = (boot_s[1] + SETTLE_S) * _rounds(target)
    is_possible, why_not = _roll(target, connections)
    return Downtime(
        boot_s=boot_s,
        boot_is_assumed=is_assumed,
        plain_s=_plain_s(processes, boot_s),
        drain_wait_p50_s=p50_s,
        drain_wait_p95_s=p95_s,
        drain_p50_s=None if p50_s is None else round(p50_s + restart_s, 1),
        drain_p95_s=None if p95_s is None else round(p95_s + restart_s, 1),
        roll_is_possible=is_possible,
        roll_why_not=why_not,
    )


def _plain_s(
    processes: Sequence[ManagedProcess], boot_s: tuple[float, float]
) -> tuple[float, float] | None:
    if not processes:
        return None
    if all(process.target.startswith("qctl:") for process in processes):
        # The new process takes jobs before the old one stops taking them.
        return 0.0, 0.0
    if all(process.stays_served for process in processes):
        # The old process may stop as soon as the new one runs, before its worker is connected.
        return 0.0, boot_s[1]
    # The old process takes no new jobs while it finishes its own. The new one starts after that.
    limits = [process.kill_timeout_ms for process in processes]
    if None in limits:
        return None
    longest_s = max(limit for limit in limits if limit is not None) / 1000
    return boot_s[0], round(longest_s + boot_s[1], 1)


def _rounds(target: Target | None) -> int:
    """At most how many restarts must follow one another to replace all processes."""
    if target is None:
        return 1
    is_at_once = isinstance(target.manager, Rollout) and not all(
        each.stays_served for each in target.processes
    )
    return 1 if is_at_once else len(target.processes)


def _boot_s(
    processes: Sequence[ManagedProcess],
    connections: Connections | None,
    now_ms: int,
    redis_up_s: float | None,
) -> tuple[tuple[float, float], bool]:
    """How long a start takes (minimum and maximum), and whether these times are assumed.

    The duration of the last start is the age of the process minus the age of its worker's
    connection. If the worker has connected again since that start, this result is too high.
    """
    sure, limits = [], []
    for process in processes:
        workers = connections.owned.get(process.identity, ()) if connections else ()
        if not workers or process.started_at_ms is None:
            continue
        up_s = (now_ms - process.started_at_ms) / 1000
        if redis_up_s is not None and redis_up_s + _ROUNDING_S < up_s:
            # Redis has restarted since, so every worker has connected again.
            continue
        took_s = up_s - max(worker.age_s for worker in workers)
        if -1 <= took_s <= _SURE_BOOT_S and redis_up_s is not None:
            sure.append(took_s)
        elif -1 <= took_s <= _MAX_BOOT_S:
            limits.append(took_s)
    if sure:
        least, most = max(min(sure) - 1, 0.1), max(*sure, 0.0) + 2
        return (round(least, 1), round(most, 1)), False
    # Each limit is an upper bound for the start of the same app, so the lowest is the closest.
    most = max(BOOT_S[1], min(limits) + 2) if limits else BOOT_S[1]
    return (BOOT_S[0], round(most, 1)), True


def _roll(target: Target | None, connections: Connections | None) -> tuple[bool | None, str]:
    if target is None or connections is None:
        return None, "it is unknown which process would be restarted"
    try:
        require_rollable(target, connections)
    except RefusedError as error:
        return False, error.why
    return True, ""
