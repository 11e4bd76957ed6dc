"""The proof at the end of a drain: where each job is now, where the event stream does not say."""

from __future__ import annotations

import time
from collections.abc import Callable

from qctl.connect import Client
from qctl.ops.ledger import JobKey, Ledger
from qctl.wire.lists import locate

# A job may move from one list to the next between two reads; in no list this often, it is gone.
LOOKS = 4
LOOK_AGAIN_S = 0.05


def settle(client: Client, ledger: Ledger) -> None:
    """Find out about the jobs whose end the event stream has not told.

    One that is in no state, and whose end nothing explains, stays unsettled, which means lost.
    """
    for job in ledger.unsettled:
        state, locked = _where(client, job)
        if state == "active":
            ledger.settle(job, "running" if locked else "orphaned")
        elif state in {"waiting", "delayed", "prioritized"}:
            ledger.settle(job, "retried")
        elif state is not None:
            ledger.settle(job, state)


def vanished(client: Client, ledger: Ledger, follow: Callable[[], object]) -> list[JobKey]:
    """Jobs that went back into the queue and are in no state now; there should be none.

    Args:
        follow: takes new events into the ledger. Called after the look at the states: a job that
            ran again and was removed in the meantime has told so by then.
    """
    nowhere = [job for job in ledger.put_back() if _where(client, job)[0] is None]
    if nowhere:
        follow()
    return [job for job in nowhere if not ledger.has_ended(job)]


def _where(client: Client, job: JobKey) -> tuple[str | None, bool]:
    keys, job_id = job
    for look in range(LOOKS):
        if look:
            time.sleep(LOOK_AGAIN_S)
        found = locate(client, keys, job_id)
        if found.state is not None:
            return found.state, found.lock_token is not None
    return None, False
