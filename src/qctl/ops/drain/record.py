"""Record in Redis how a drain ended, and whether the app resumes its queues when it starts.

Later commands show these records. A failure to write them does not fail the drain.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress

from qctl.connection.address import Client
from qctl.errors import QctlError, is_outage
from qctl.grouping import grouped
from qctl.ops.drain.ownership import Pauses
from qctl.ops.drain.plan import DrainPlan
from qctl.ops.drain.steps import DrainReport
from qctl.ops.drain.tracker import Tracker
from qctl.wire import drain_record
from qctl.wire.drain_record import RESULTS, DrainResult, add_drain


def record_result(
    client: Client, tracker: Tracker, report: DrainReport, error: QctlError | None
) -> None:
    """Record the result of a drain for metrics; do nothing if Redis went away.

    Each prefix of the drain has a record of its own, whose sums count only jobs under that prefix.

    Args:
        error: why the drain ended early; None if it did not.
    """
    if error is not None and is_outage(error):
        return
    result = DrainResult(
        at_ms=int(time.time() * 1000),
        outcome=report.outcome,
        **{name: getattr(report, name) for name in RESULTS},
        paused_ms=round(report.paused_s * 1000),
        idle_ms=None if report.idle_s is None else round(report.idle_s * 1000),
    )
    prefixes = sorted({keys.prefix for keys in tracker.queues})
    with suppress(QctlError):
        for prefix in prefixes:
            jobs = _jobs_under(tracker, prefix, report) if len(prefixes) > 1 else None
            add_drain(client, prefix, result, jobs)


def _jobs_under(tracker: Tracker, prefix: str, report: DrainReport) -> dict[str, int]:
    """Result → how many jobs under one prefix had this result; 0 if the number is unknown."""
    ledger = tracker.ledger
    results = Counter(
        job.result for job in ledger.outcomes(lambda keys: keys.prefix) if job.queue == prefix
    )
    unnamed = sum(
        jobs.lost_unnamed
        for keys, jobs in tracker.inventory.queues.items()
        if keys.prefix == prefix
    )
    return {
        **{name: results[name] for name in ("completed", "failed", "retried")},
        "interrupted": 0 if report.interrupted is None else ledger.interrupted_under(prefix),
        "recovered": ledger.recovered_under(prefix),
        "lost": 0 if report.lost is None else results["lost"] + unnamed,
    }


def record_starts(client: Client, plan: DrainPlan, pauses: Pauses, *, complete: bool) -> None:
    """Record whether the app resumed its paused queues when it started, for ``qctl doctor``.

    Args:
        complete: whether all processes of the app were restarted.
    """
    if plan.target is None or plan.strategy == "roll":
        return
    at_ms = int(time.time() * 1000)
    with suppress(QctlError):
        for prefix, queues in grouped(plan.queues, lambda keys: keys.prefix).items():
            resumed = {keys.name for keys in queues if keys in pauses.resumed_at_start}
            quiet = {keys.name for keys in queues if keys not in pauses.resumed_by_others}
            drain_record.record_starts(
                client,
                prefix,
                plan.target.label,
                at_ms,
                resumed=resumed,
                kept=quiet - resumed if complete else (),
            )
