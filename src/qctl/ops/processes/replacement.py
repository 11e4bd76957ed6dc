"""Prove by the connections in Redis that the workers of some queues were replaced.

If the operator's own command restarts the workers, qctl sees no process, only the workers in CLIENT
LIST (wire format 7.1). Workers count as replaced when all old connections are gone and each queue
has enough new workers, which have stayed up. This proof is weaker than the one in ``restart.py``,
which watches the processes: a worker that only lost its connection and came back looks like new.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from qctl.connection.address import Client
from qctl.errors import FailedError
from qctl.ops.processes.restart import MAX_CRASHES, POLL_S, SETTLE_S, Interrupted
from qctl.ops.processes.targets import listed_workers
from qctl.plurals import counted
from qctl.wire.keys import QueueKeys, common_prefix
from qctl.wire.read.clients import (
    Connected,
    ConnectionId,
    ForeignWorker,
    WorkerClient,
    worker_counts,
)
from qctl.wire.read.info import run_ids

# The end of the hint if Redis does not list the workers.
WITHOUT_PROOF = "; or do without the proof: --no-expect"
_HINT = "see the workers' own log"
_HINT_ON_COMMAND = (
    f"{_HINT}, and whether the command restarts every worker of these queues; for more time: "
    "--ready-timeout D; for another number of workers: --expect-workers N"
)
# Seconds between two questions to the manager while workers are missing.
_ASK_S = 2.0
# Seconds between two questions to the manager once all workers are connected.
_ASK_AGAIN_S = 0.5


@dataclass(frozen=True, slots=True)
class QueueWorkers:
    """How far the workers of one queue are replaced.

    Args:
        before: how many workers were connected before the replacement.
        left: how many of the old workers are still connected.
        new: how many new workers are connected.
        expected: how many new workers are needed.
    """

    queue: str
    before: int
    left: int
    new: int
    expected: int


class Replacement:
    """Watches the workers of some queues, from before they are replaced until the new ones stay up.

    Args:
        db: the database of the queues.
        expected: how many new workers each queue needs; None: as many as the queue has now, which
            may be 0.
        whose: the connections of the workers to replace; None for all workers of the queues.
        shortcoming: asks a manager why the replacement is not complete; "" if it is complete.
            Raises FailedError if the replacement cannot succeed.
        stop: returns whether the operator wants to stop; called often.
        rest: waits a short time.
        at_least: queue → how many workers are needed even if fewer are connected now.
        watch_s: how long the new workers must stay connected, from the moment when all of them are
            connected; see ``confirm``.

    Raises:
        FailedError: Redis does not list the workers.
    """

    def __init__(
        self,
        client: Client,
        db: int,
        queues: Iterable[QueueKeys],
        expected: int | None,
        whose: Collection[ConnectionId] | None = None,
        shortcoming: Callable[[], str] | None = None,
        *,
        watch_s: float,
        at_least: Mapping[QueueKeys, int] = {},
        stop: Callable[[], bool] = lambda: False,
        rest: Callable[[], object] = lambda: time.sleep(POLL_S),
    ) -> None:
        self._client = client
        self._db = db
        self._watch_s = watch_s
        self._stop = stop
        self._rest = rest
        self._queues = tuple(queues)
        self._prefix = common_prefix(self._queues)
        self._not_meant: dict[ConnectionId, QueueKeys] = {}
        connected = self._read()
        workers: Sequence[WorkerClient] = connected.workers
        if whose is not None:
            self._not_meant = {w.id: w.keys for w in workers if w.id not in whose}
            workers = tuple(worker for worker in workers if worker.id in whose)
        self._shortcoming = shortcoming or (lambda: "")
        self._hint = _HINT if shortcoming else _HINT_ON_COMMAND
        self._lacks, self._asked_at = "", -math.inf
        self._old = {worker.id for worker in workers}
        self._before = worker_counts(workers)
        self._elsewhere = self._elsewhere_of(workers, connected.foreign)
        self._needed = {
            keys: max(self._before[keys], at_least.get(keys, 0)) if expected is None else expected
            for keys in self._queues
        }
        self._servers = run_ids(client)
        # When the last queue got enough new workers, and which new workers were connected then.
        self._complete_since: float | None = None
        self._complete: frozenset[ConnectionId] = frozenset()
        self._seen: dict[ConnectionId, QueueKeys] = {}
        # How many new connections of each queue have ended.
        self._gone: Counter[QueueKeys] = Counter()

    def replaces_all(self, keys: QueueKeys) -> bool:
        """Whether the queue had workers before, and all of them are to be replaced."""
        return self._before[keys] > 0 and keys not in self._not_meant.values()

    def stopped_beside(self) -> tuple[str, ...]:
        """Other queues that have lost workers. Jobs of these queues may have been interrupted.

        A queue in another database is named together with that database.
        """
        connected = self._read()
        now = self._elsewhere_of(connected.workers, connected.foreign)
        gone = {queue for key, queue in self._elsewhere.items() if key not in now}
        return tuple(sorted(gone))

    def read(self) -> tuple[QueueWorkers, ...]:
        """The workers as they are now.

        Raises:
            FailedError: another Redis answers now, so all connections are new; or Redis does not
                list the workers any more.
        """
        if run_ids(self._client) != self._servers:
            raise FailedError(
                "it is unknown whether the workers were replaced",
                why="Redis was restarted, or failed over, while they were being replaced, so all "
                "of their connections are new",
            )
        workers = [
            worker
            for worker in self._read().workers
            if worker.keys in self._needed and worker.id not in self._not_meant
        ]
        new = [worker for worker in workers if worker.id not in self._old]
        left = worker_counts(w for w in workers if w.id in self._old)
        self._seen |= {worker.id: worker.keys for worker in new}
        present = {worker.id for worker in new}
        self._gone = Counter(keys for each, keys in self._seen.items() if each not in present)
        self._note_complete(left.total() == 0, new)
        count = worker_counts(new)
        return tuple(
            QueueWorkers(q.label(self._prefix), self._before[q], left[q], count[q], self._needed[q])
            for q in self._queues
        )

    def wait(self, timeout_s: float) -> tuple[QueueWorkers, ...]:
        """Wait until the workers are replaced and have stayed up for ``SETTLE_S``.

        Raises:
            FailedError: as ``read``; also if it takes too long, or if new workers keep going away.
            Interrupted: ``stop`` returned True.
        """
        began = time.monotonic()
        deadline = began + timeout_s
        while True:
            now = self.read()
            since = self._complete_since
            if since is not None and time.monotonic() - since >= SETTLE_S:
                return now
            if self._stop():
                raise Interrupted
            is_late = time.monotonic() > deadline
            if is_late or time.monotonic() - max(self._asked_at, began) > _ASK_S:
                self._ask()
            if is_late:
                raise FailedError(
                    "the command succeeded, but its workers are not in place",
                    why=self._why(now) or "the new workers do not stay connected",
                    hint=self._hint,
                )
            self._raise_crashes(now)
            self._rest()

    def confirm(self) -> None:
        """Make sure that the new workers stay up for ``watch_s`` now that they run jobs.

        The time in which ``wait`` saw them all connected counts too.

        Raises:
            FailedError: as ``read``; also if a new worker has gone away since ``wait``.
            Interrupted: ``stop`` returned True.
        """
        began = self._complete_since
        assert began is not None  # noqa: S101 - `wait` has returned
        while True:
            now = self.read()
            if self._complete_since != began:
                self._ask()
                raise FailedError(
                    "the new workers did not stay up",
                    why=self._why(now)
                    or "some have crashed and were started again, or have lost their connection "
                    "and reconnected",
                    hint="see the workers' own log",
                )
            if time.monotonic() - began >= self._watch_s:
                return
            if self._stop():
                raise Interrupted
            self._rest()

    def _note_complete(self, is_old_gone: bool, new: Sequence[WorkerClient]) -> None:
        count = worker_counts(new)
        present = frozenset(worker.id for worker in new)
        is_complete = is_old_gone and all(count[q] >= n for q, n in self._needed.items())
        if is_complete and self._complete_since is None:
            # Ask only when the connections look complete, because a manager takes long to answer.
            if not self._lacks or time.monotonic() - self._asked_at > _ASK_AGAIN_S:
                self._ask()
            is_complete = not self._lacks
        if not is_complete or not self._complete <= present:
            # A worker is missing, so the time for which all must stay connected begins again.
            self._complete_since = None
        if not is_complete:
            self._complete = frozenset()
        elif self._complete_since is None:
            self._complete_since, self._complete = time.monotonic(), present

    def _raise_crashes(self, now: Sequence[QueueWorkers]) -> None:
        """Raise a FailedError if the new workers of a queue keep going away."""
        gone = {keys.label(self._prefix): count for keys, count in self._gone.items()}
        for each in now:
            # On average, more than ``MAX_CRASHES`` new workers have disconnected per needed worker.
            ended = gone.get(each.queue, 0)
            if ended > MAX_CRASHES * max(each.expected, 1):
                # The manager may know the error that ended them.
                self._ask()
                raise FailedError(
                    f"the new workers of {each.queue} keep going away",
                    why=f"{counted(ended + each.new, 'worker has', 'workers have')} connected "
                    f"since the command began, and {each.new} of them stayed"
                    + (f"; {self._lacks}" if self._lacks else ""),
                    hint="see the workers' own log; fix the app, then deploy again",
                )

    def _ask(self) -> None:
        """Ask the manager why the replacement is not complete; raises like ``shortcoming``."""
        self._lacks = self._shortcoming()
        self._asked_at = time.monotonic()

    def _why(self, now: Iterable[QueueWorkers]) -> str:
        return "; ".join(part for part in (_shortage(now), self._lacks) if part)

    def _elsewhere_of(
        self, workers: Iterable[WorkerClient], foreign: Iterable[tuple[str, ForeignWorker]]
    ) -> dict[str, str]:
        """Address of each worker of another queue → that queue."""
        others = {
            worker.address: worker.keys.label(self._prefix)
            for worker in workers
            if worker.keys not in self._queues
        }
        return others | {address: str(worker) for address, worker in foreign}

    def _read(self) -> Connected:
        return listed_workers(self._client, self._db, self._queues, or_else=WITHOUT_PROOF)


def _shortage(now: Iterable[QueueWorkers]) -> str:
    parts = []
    for each in now:
        lacks = []
        if each.left:
            lacks.append(
                f"{counted(each.left, 'old worker is', 'old workers are')} still connected"
            )
        if each.new < each.expected:
            lacks.append(f"{each.new} of {each.expected} new workers are connected")
        parts += [f"{each.queue}: {', '.join(lacks)}"] * bool(lacks)
    return "; ".join(parts)
