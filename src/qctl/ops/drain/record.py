"""Record in Redis how a drain ended, and whether the app resumes its queues when it starts.

Later commands show these records. A failure to write them does not fail the drain.
"""

from __future__ import annotations

import time
from contextlib import suppress

from qctl.connection.address import Client
from qctl.errors import QctlError, is_outage
from qctl.ops.drain.ownership import Pauses
from qctl.ops.drain.plan import DrainPlan
from qctl.ops.drain.steps import DrainReport
from qctl.wire import drain_record
from qctl.wire.drain_record import RESULTS, DrainResult, add_drain


def record_result(
    client: Client, prefix: str, report: DrainReport, error: QctlError | None
) -> None:
    """Record the result of a drain for metrics, unless Redis went away.

    Args:
        error: why the drain ended early; None if it did not.
    """
    if error is not None and is_outage(error):
        return
    with suppress(QctlError):
        add_drain(
            client,
            prefix,
            DrainResult(
                at_ms=int(time.time() * 1000),
                outcome=report.outcome,
                **{name: getattr(report, name) for name in RESULTS},
                paused_ms=round(report.paused_s * 1000),
                idle_ms=None if report.idle_s is None else round(report.idle_s * 1000),
            ),
        )


def record_starts(client: Client, plan: DrainPlan, pauses: Pauses, *, complete: bool) -> None:
    """Record whether the app resumed its paused queues when it started, for ``qctl doctor``.

    Args:
        complete: whether all processes of the app were restarted.
    """
    if plan.target is None or plan.strategy == "roll":
        return
    resumed = {keys.name for keys in pauses.resumed_at_start}
    quiet = {keys.name for keys in plan.queues if keys not in pauses.resumed_by_others}
    with suppress(QctlError):
        drain_record.record_starts(
            client,
            plan.queues[0].prefix,
            plan.target.label,
            int(time.time() * 1000),
            resumed=resumed,
            kept=quiet - resumed if complete else (),
        )
