"""What all phases of a drain share, and how a phase ends early."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from qctl.config.settings import Settings
from qctl.connection.address import Address
from qctl.errors import FailedError, QctlError
from qctl.ops.drain.lease import Leases
from qctl.ops.drain.plan import DrainPlan
from qctl.ops.drain.steps import DRAIN_TIMEOUT_S
from qctl.ops.drain.tracker import Tracker
from qctl.ops.patience import PatientClient
from qctl.ops.processes.restart import Interrupted
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import Holder
from qctl.wire.read.active import ActiveJob


class TimedOut(Exception):  # noqa: N818 - an outcome
    """Jobs still run after the timeout.

    Args:
        active: the active jobs at the last reading.
        tokens: in a roll, lock tokens of jobs that the old process may still run; otherwise None.
    """

    def __init__(
        self, active: Sequence[ActiveJob] = (), tokens: frozenset[str | None] | None = None
    ) -> None:
        super().__init__()
        self.active = tuple(active)
        self.tokens = tokens


# Exceptions that end a phase early. The drain then undoes its pauses and reports.
EARLY_ENDS = (TimedOut, Interrupted, QctlError)


@dataclass(frozen=True, slots=True)
class DrainOptions:
    """How to drain.

    Args:
        timeout_s: the longest wait for active jobs; in a roll (one process at a time), per process.
        restart_on_timeout: if jobs still run after the timeout, restart anyway.
        keep_paused: leave the queues paused at the end if all went well. A drain without a restart
            always leaves them paused, so that no job starts before the operator has acted.
        verb: the command, ``drain`` or ``restart``. Redis stores it with each pause.
    """

    timeout_s: float = DRAIN_TIMEOUT_S
    restart_on_timeout: bool = False
    keep_paused: bool = False
    verb: str = "drain"


@dataclass(frozen=True, slots=True)
class DrainContext:
    """What all phases of a drain share.

    Args:
        client: repeats commands that Redis does not answer; see ``PatientClient``.
        holder: this drain, as Redis stores it with each pause and lease.
        stop: returns whether the operator wants to stop.
        tracker: follows the events of the queues.
        notes: remarks for the operator, shown in the report.
    """

    client: PatientClient
    address: Address
    settings: Settings
    plan: DrainPlan
    options: DrainOptions
    holder: Holder
    stop: Callable[[], bool]
    leases: Leases
    tracker: Tracker
    notes: list[str] = field(default_factory=list)

    @property
    def queues(self) -> tuple[QueueKeys, ...]:
        return self.plan.queues

    @property
    def prefix(self) -> str | None:
        """See ``DrainPlan.prefix``."""
        return self.plan.prefix

    def rest(self) -> None:
        """As ``idle``, unless the operator wants to stop.

        Raises:
            Interrupted: the operator wants to stop.
        """
        if self.stop():
            raise Interrupted
        self.idle()

    def idle(self) -> None:
        """Wait for a moment, see ``Tracker.rest``; start the watchdog again if it has died.

        Without a watchdog, the leases expire during a long restart.
        """
        # If it does not start, the restart goes on, and the next renewal of the leases fails.
        with suppress(FailedError):
            self.leases.keep_watchdog()
        self.tracker.rest()

    def label(self, keys: QueueKeys) -> str:
        """How messages name a queue of the drain; see ``QueueKeys.label``."""
        return self.tracker.label(keys)

    @property
    def stays_paused(self) -> bool:
        """Whether the queues stay paused at the end, if all goes well."""
        return self.options.keep_paused or not self.plan.restarts
