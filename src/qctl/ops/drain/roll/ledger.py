"""The outcome of the jobs of a roll, during which the queues keep working.

A roll follows the jobs that are active at its start or at the end of an old process, and every job
that loses its worker during the roll. All other jobs, perhaps thousands a second, are used only to
measure how long nothing ran.
"""

from __future__ import annotations

from qctl.ops.drain.ledger import Ledger
from qctl.wire.events import Event
from qctl.wire.keys import JobKey

_FOR_GOOD = frozenset({"completed", "failed", "removed"})
# Events that end the run of an active job.
_ENDED = _FOR_GOOD | {"delayed", "waiting", "waiting-children"}


class RollLedger(Ledger):
    """The ledger of a roll.

    Attributes:
        backlog: how many jobs waited at the last count. If 0, the time since the last run does not
            count as idle, because no job waits.
    """

    def __init__(self) -> None:
        super().__init__()
        # Nothing is paused, so a job that ends may have started after the roll began.
        self._paused = False
        self._stalled: set[JobKey] = set()
        # Job → when it began to wait; holds only jobs that began to wait while nothing ran.
        self._waiting_ms: dict[JobKey, int] = {}
        self.backlog = 0

    def take_stalled(self) -> set[JobKey]:
        """The jobs that a stalled check has taken from a worker since the last call."""
        taken, self._stalled = self._stalled, set()
        return taken

    def _follow_job(self, job: JobKey, event: Event) -> None:
        if event.name == "stalled":
            self._stalled.add(job)
            self.add_jobs([job])
            self._outcomes[job] = "recovered"
        if job in self._outcomes:
            super()._follow_job(job, event)
        elif event.name == "active":
            self._started(job, event.at_ms)
        elif event.name in _ENDED and (
            event.name in _FOR_GOOD or event.fields.get("prev") == "active"
        ):
            self._ended(job, event.at_ms)
        if event.name == "waiting" and self._idle_since_ms is not None:
            self._waiting_ms.setdefault(job, event.at_ms)

    def _started(self, job: JobKey, at_ms: int) -> None:
        self._running.add(job)
        if self._idle_since_ms is not None:
            since_ms = self._waiting_ms.get(job, self._idle_since_ms)
            self._longest_idle_ms = max(self._longest_idle_ms, at_ms - since_ms)
        self._idle_since_ms = None
        self._waiting_ms.clear()

    def _ended(self, job: JobKey, at_ms: int) -> None:
        self._running.discard(job)
        if not self._running and self._idle_since_ms is None:
            self._idle_since_ms = at_ms

    def idle_s(self, until_ms: int) -> float | None:
        """See ``Ledger.idle_s``."""
        if self._has_missed:
            return None
        longest_ms = self._longest_idle_ms
        if self._idle_since_ms is not None and self.backlog:
            # If all waiting jobs came after the last run, idle time counts from the first arrival.
            added = len(self._waiting_ms)
            all_new = added >= self.backlog and added > 0
            since_ms = min(self._waiting_ms.values()) if all_new else self._idle_since_ms
            longest_ms = max(longest_ms, until_ms - since_ms)
        return max(longest_ms, 0) / 1000
