"""Runs an action on the jobs of one queue after another, as one run with one progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from qctl.connection.address import Client
from qctl.errors import InterruptedByUserError, QctlError, is_outage
from qctl.ops.bulk.actions import Action, Selection
from qctl.ops.bulk.model import BulkProgress, BulkReport
from qctl.ops.bulk.run import BulkRun
from qctl.wire.keys import QueueKeys
from qctl.wire.read.snapshot import QueueSnapshot


@dataclass(frozen=True, slots=True)
class BulkQueue:
    """A queue, and how many jobs the action visits in it: those in the state, or the named ids."""

    keys: QueueKeys
    total: int
    paused: bool

    @classmethod
    def of(cls, snapshot: QueueSnapshot, selection: Selection) -> BulkQueue:
        """The queue as a snapshot shows it."""
        state = selection.state
        total = (
            len(selection.ids)
            if state is None
            else int(getattr(snapshot.counts, state.replace("-", "_")))
        )
        return cls(snapshot.keys, total, snapshot.paused)


class BulkRuns:
    """An action over the same selection in several queues. Iterating over it does the work.

    The limit of the selection is the limit of all queues together.

    Args:
        dry_run, rate, stop: as for ``BulkRun``.

    Attributes:
        reports: of the queues that the run has visited so far, in their order.
        failures: the queues in which the action failed, if there are several queues. The action
            went on with the other queues.
    """

    def __init__(
        self,
        client: Client,
        queues: Sequence[BulkQueue],
        action: Action,
        selection: Selection,
        *,
        dry_run: bool = False,
        rate: float | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._client = client
        self._queues = queues
        self._action = action
        self._selection = selection
        self._dry_run = dry_run
        self._rate = rate
        self._stop = stop
        # The newest run, and how many reports there were before it. Both are in one tuple, so that
        # ``progress`` in another thread counts each queue exactly once.
        self._newest: tuple[int, BulkRun] | None = None
        self._total = sum(queue.total for queue in queues)
        self.reports: list[BulkReport] = []
        self.failures: dict[QueueKeys, QctlError] = {}

    def progress(self) -> BulkProgress:
        """How far the run is in all queues together; safe to call from another thread."""
        newest = self._newest
        steps: list[BulkProgress | BulkReport] = []
        if newest is not None:
            count_before, run = newest
            steps = [*self.reports[:count_before], run.progress()]
        scanned = sum(step.scanned for step in steps)
        return BulkProgress(
            queue=steps[-1].queue if steps else "",
            prefix=steps[-1].prefix if steps else "",
            scanned=scanned,
            matched=sum(step.matched for step in steps),
            done=sum(step.done for step in steps),
            below_count=sum(step.below_count for step in steps),
            total=max(self._total, scanned),
        )

    def __iter__(self) -> Iterator[BulkProgress | BulkReport]:
        """Do the work. For each queue, yield progress while it runs, then the queue's report.

        Raises:
            InterruptedByUserError, PartialError, QctlError: as ``BulkRun``. With several queues,
                an error that concerns only one of them goes to ``failures`` instead.
        """
        for queue in self._queues:
            before = self._done_count
            run = BulkRun(
                self._client,
                queue.keys,
                self._action,
                replace(self._selection, limit=self._limit_left()),
                queue.total,
                dry_run=self._dry_run,
                rate=self._rate,
                stop=self._stop,
                changed_before=before,
            )
            self._newest = (len(self.reports), run)
            error: QctlError | None = None
            try:
                yield from run
            except QctlError as raised:
                error = raised
            finally:
                report = run.report(error.what if error is not None else None)
                self.reports.append(report)
            if error is not None:
                # A PartialError says what was done, and has the outage as its cause.
                is_away = any(map(is_outage, filter(None, (error, error.__cause__))))
                is_of_all = is_away or isinstance(error, InterruptedByUserError)
                if is_of_all or len(self._queues) == 1:
                    raise error
                self.failures[queue.keys] = error
            yield report

    @property
    def _done_count(self) -> int:
        return sum(report.done + report.below_count for report in self.reports)

    def _limit_left(self) -> int | None:
        limit = self._selection.limit
        return None if limit is None else limit - sum(report.done for report in self.reports)
