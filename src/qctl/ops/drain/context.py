"""What a drain is given: fixed from its first step to its last."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from qctl.config.settings import Settings
from qctl.connection.address import Address
from qctl.errors import QctlError, ReplyError
from qctl.ops.drain.lease import Leases
from qctl.ops.drain.plan import DrainPlan, running_jobs
from qctl.ops.drain.steps import DRAIN_TIMEOUT_S, RunningJob
from qctl.ops.patience import PatientClient
from qctl.ops.processes.restart import Interrupted
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import Holder
from qctl.wire.read.active import ActiveJob


class TimedOut(Exception):  # noqa: N818 - an outcome
    """Jobs still run at the end of the time allowed.

    Args:
        active: the active jobs at the last reading.
        tokens: in a roll, the lock tokens of the jobs that the process has; None: of all jobs.
    """

    def __init__(
        self, active: Sequence[ActiveJob] = (), tokens: frozenset[str | None] | None = None
    ) -> None:
        super().__init__()
        self.active = tuple(active)
        self.tokens = tokens


# What ends a phase early. The drain then puts everything back and reports.
EARLY_ENDS = (TimedOut, Interrupted, QctlError)


@dataclass(frozen=True, slots=True)
class DrainOptions:
    """How to drain.

    Args:
        timeout_s: the longest wait for active jobs, in seconds; in a roll, for those of a process.
        restart_on_timeout: restart anyway when that is over, instead of putting things back.
        keep_paused: leave the queues paused at the end if all went well. A drain without a restart
            always does: what is drained must not fill up again before the operator has acted.
        verb: ``drain`` or ``restart``, for the pause note.
    """

    timeout_s: float = DRAIN_TIMEOUT_S
    restart_on_timeout: bool = False
    keep_paused: bool = False
    verb: str = "drain"


@dataclass(frozen=True, slots=True)
class DrainContext:
    """What every phase of one drain may use.

    Args:
        client: repeats what Redis does not answer; see there for what may be sent over it.
        holder: this drain, as pause notes and leases name it.
        stop: says whether the operator wants to stop.
    """

    client: PatientClient
    address: Address
    settings: Settings
    plan: DrainPlan
    options: DrainOptions
    holder: Holder
    stop: Callable[[], bool]
    leases: Leases

    @property
    def queues(self) -> tuple[QueueKeys, ...]:
        return self.plan.queues

    @property
    def prefix(self) -> str:
        return self.plan.queues[0].prefix

    @property
    def stays_paused(self) -> bool:
        """Whether the queues stay paused at the end, if all goes well."""
        return self.options.keep_paused or self.plan.target is None

    def redis_now_ms(self) -> int:
        """Redis' time, in epoch milliseconds."""
        try:
            seconds, micros = self.client.call("TIME")
        except ReplyError:
            # Not granted. Our own clock only matters for a span that is still open.
            return int(time.time() * 1000)
        return int(seconds) * 1000 + int(micros) // 1000

    def shown(self, jobs: Iterable[ActiveJob], *, orphans: bool = False) -> tuple[RunningJob, ...]:
        """Those of the active jobs that have a worker, or have none, as steps show them."""
        chosen = [job for job in jobs if job.is_orphan is orphans]
        return running_jobs(chosen, self.plan.durations, int(time.time() * 1000))
