"""Deletes a queue with all its keys, after a count of what it has.

Both the count and the deletion look at all keys of the database, in short steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from qctl.connection.address import Address, Client
from qctl.errors import InterruptedByUserError, PartialError, QctlError, RefusedError
from qctl.ops.processes.suggest import command
from qctl.ops.queues.find import find_queues, require_bullmq
from qctl.ops.queues.status import workers_of
from qctl.plurals import counted
from qctl.wire.read.clients import list_workers, worker_counts
from qctl.wire.read.snapshot import QueueSnapshot
from qctl.wire.read.whole_queue import inner_queues, kind_of, relatives_elsewhere, scan_queue
from qctl.wire.write.deletion import delete_queue, remaining


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionReport:
    """What a queue had, and what was deleted.

    Args:
        keys: kind → how many keys: ``jobs``, ``locks``, ``logs``, ``children`` (what parents have
            noted of their children), ``schedulers``, ``deduplication``, ``metrics``, ``groups`` (of
            BullMQ Pro) and ``queue`` (the lists, sorted sets and settings).
        total: how many keys there were.
        deleted: how many keys were deleted; in a dry run 0.
        schedulers: how many schedulers the queue had.
        parents_elsewhere: jobs whose parent is in another queue. The parents wait for them.
        children_elsewhere: jobs that wait for children in another queue. At most 20 pending
            children of each job are examined. The children are not deleted.
        workers: how many workers were connected; None if unknown.
        running: how many active jobs had a lock.
        complete: False if the deletion ended early; the queue then still exists.
    """

    queue: str
    prefix: str
    keys: Mapping[str, int]
    total: int
    deleted: int
    schedulers: int
    parents_elsewhere: int
    children_elsewhere: int
    workers: int | None
    running: int
    dry_run: bool
    complete: bool


class Deletion:
    """The deletion of one queue: ``count`` its keys, check, and ``delete`` them.

    ``count`` and ``delete`` call ``stop`` between their steps. If it returns True, they end.

    Raises:
        NotFoundError: there is no such queue.
        RefusedError: the queue belongs to Bull 3 or 4, or a drain works on it.
    """

    def __init__(self, client: Client, address: Address, prefix: str, queue: str) -> None:
        self._client = client
        self._address = address
        self._words = prefix, queue
        self._read()
        self._kinds: Counter[str] = Counter()
        self._parents_elsewhere = self._children_elsewhere = 0
        self.deleted = 0
        self._is_complete = False

    def _read(self) -> None:
        prefix, queue = self._words
        (snapshot,) = find_queues(self._client, prefix, [queue])
        require_bullmq([snapshot])
        if snapshot.lease is not None:
            raise RefusedError(
                f"queue {snapshot.keys.name} is being drained",
                why=f"{snapshot.lease} is at work on it",
                hint="wait until the drain has ended, or stop it with Ctrl-C",
            )
        self._snapshot, self.keys = snapshot, snapshot.keys
        self._workers = _count_workers(self._client, self._address, snapshot)

    def require_no_workers(self) -> None:
        """Read the queue again, and make sure that nobody works on it.

        Raises:
            RefusedError: workers are connected, it is unknown whether workers are connected, an
                active job has a lock, or a drain works on the queue.
        """
        self._read()
        running = len(self._snapshot.held)
        first = "stop the workers first"
        if self._workers:
            workers = counted(self._workers, "worker is", "workers are")
            what = f"{workers} connected to queue {self.keys.name}"
        elif running:
            jobs = counted(running, "job", "jobs")
            what = f"{jobs} of queue {self.keys.name} may be running: a worker holds the lock"
            first += ", and wait until the locks of their jobs run out (after 30 s by default)"
        elif self._workers is None:
            what = f"it is unknown whether workers of queue {self.keys.name} are connected"
        else:
            return
        raise RefusedError(
            what,
            why="if a worker keeps running, its jobs fail, and it may create parts of the queue "
            "again",
            hint=f"{first}; --ignore-workers deletes the queue all the same",
        )

    def count(self, stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Count the keys, a step at a time.

        Raises:
            InterruptedByUserError: ``stop`` ended the count.
            RefusedError: keys of another queue look like keys of this one.
        """
        for suffixes in scan_queue(self._client, self.keys):
            self._check(stop)
            if inner := inner_queues(self._client, self.keys, suffixes):
                raise RefusedError(
                    f"queue {inner[0].full_name} has keys that begin like those of "
                    f"{self.keys.full_name}",
                    why="it is unknown which of these keys belong to which queue",
                )
            self._kinds.update(map(kind_of, suffixes))
            parents, children = relatives_elsewhere(self._client, self.keys, suffixes)
            self._parents_elsewhere += parents
            self._children_elsewhere += children
            yield

    def delete(self, stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Delete the keys, a step at a time.

        Raises:
            InterruptedByUserError: ``stop`` ended the deletion.
            PartialError: some keys were deleted, and then Redis refused a command or could not be
                reached; or other clients have created parts of the queue again.
            QctlError: Redis refused a command or could not be reached, and no key was deleted.
        """
        try:
            for number in delete_queue(self._client, self.keys):
                self.deleted += number
                self._check(stop)
                yield
            left = remaining(self._client, self.keys)
        except InterruptedByUserError:
            raise
        except QctlError as error:
            if not self.deleted:
                raise
            raise PartialError(
                f"after {counted(self.deleted, 'key')} were deleted: {error.what}",
                why=error.why,
                hint="run the same command again to delete the rest",
            ) from error
        self._is_complete = True
        if left:
            raise PartialError(
                f"queue {self.keys.name} was deleted, but exists again",
                why=f"another client has written {', '.join(left)}",
                hint=command(self.keys.prefix, "status", self.keys.name),
            )

    @property
    def total(self) -> int:
        """How many keys were counted so far."""
        return self._kinds.total()

    def report(self, *, dry_run: bool) -> DeletionReport:
        """What was counted and deleted so far."""
        return DeletionReport(
            queue=self.keys.name,
            prefix=self.keys.prefix,
            keys=dict(self._kinds.most_common()),
            total=self.total,
            deleted=self.deleted,
            schedulers=self._snapshot.schedulers,
            parents_elsewhere=self._parents_elsewhere,
            children_elsewhere=self._children_elsewhere,
            workers=self._workers,
            running=len(self._snapshot.held),
            dry_run=dry_run,
            complete=self._is_complete,
        )

    def _check(self, stop: Callable[[], bool]) -> None:
        if stop():
            raise InterruptedByUserError(
                "interrupted",
                why=f"{counted(self.deleted, 'key was', 'keys were')} deleted before"
                if self.deleted
                else "nothing was deleted",
                hint="run the same command again to delete the rest" if self.deleted else "",
            )


def _count_workers(client: Client, address: Address, snapshot: QueueSnapshot) -> int | None:
    keys = snapshot.keys
    workers = workers_of(snapshot, list_workers(client, keys.prefix, [keys.name], address.db))
    return None if workers is None else worker_counts(workers).total()
