"""The data that the checks share. Each part is read once, when the first check needs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.errors import ReplyError, UnreachableError
from qctl.grouping import grouped
from qctl.ops.doctor.findings import (
    CannotCheckError,
    Finding,
    NothingToCheckError,
    denied,
)
from qctl.ops.processes.managers import managed_processes
from qctl.ops.processes.suggest import command
from qctl.ops.queues.find import Queues
from qctl.ops.queues.status import workers_of
from qctl.wire.keys import QueueKeys
from qctl.wire.read.active import ActiveJob, read_active
from qctl.wire.read.clients import (
    ConnectionId,
    WorkerClient,
    Workers,
    list_workers,
    why_unknown,
)
from qctl.wire.read.server import ServerFacts, read_servers
from qctl.wire.read.snapshot import QueueSnapshot

if TYPE_CHECKING:
    from qctl.manage.protocol import ManagedProcess


T = TypeVar("T")


def read_once(read: Callable[[Examination], T]) -> Callable[[Examination], T]:
    """Make ``read`` run only once in an examination.

    Later calls return the same value, or raise the same CannotCheckError or NothingToCheckError. A
    ReplyError becomes a CannotCheckError. After any other error, the next call reads again.
    """

    @wraps(read)
    def answer(exam: Examination) -> T:
        if read not in exam.answers:
            try:
                exam.answers[read] = read(exam)
            except ReplyError as error:
                exam.answers[read] = denied(error)
            except (CannotCheckError, NothingToCheckError) as error:
                exam.answers[read] = error
        found = exam.answers[read]
        if isinstance(found, Exception):
            raise found
        known: T = found
        return known

    return answer


@dataclass
class Examination:
    """One run of all checks, and the data that it has read so far.

    Reading data raises CannotCheckError if a server, a manager or the operating system denies the
    data. It raises NothingToCheckError if no managed process runs, or if none serves the queues.

    Args:
        queues: the queues to examine.
        chosen: the processes of ``--target``; None without ``--target``.
        full: read everything instead of samples.
        is_alone: False if other queues, under another prefix, have an Examination of their own.
        sleep: called to wait between the two readings that some checks make.
        answers: the results and errors of the functions decorated with ``read_once``.
    """

    client: Client
    address: Address
    settings: Settings
    queues: Queues
    chosen: Sequence[ManagedProcess] | None = None
    full: bool = False
    sleep: Callable[[float], None] = time.sleep
    is_alone: bool = True
    answers: dict[Callable[[Examination], Any], Any] = field(default_factory=dict, repr=False)

    # Queues

    @property
    def snapshots(self) -> tuple[QueueSnapshot, ...]:
        """The queues of BullMQ. Queues of Bull 3/4 are not examined."""
        return self.queues.bullmq

    @property
    def keys(self) -> list[QueueKeys]:
        return [snapshot.keys for snapshot in self.snapshots]

    def active(self, keys: QueueKeys) -> list[ActiveJob]:
        """The active jobs of one queue."""
        return self._active_by_queue().get(keys, [])

    @read_once
    def _active_by_queue(self) -> dict[QueueKeys, list[ActiveJob]]:
        return grouped(read_active(self.client, self.keys), lambda job: job.keys)

    def coverage(self, examined: str) -> str:
        """A remark on how much a check examined, with a hint at ``--full`` if that is not set."""
        return examined if self.full else f"{examined}; --full examines all"

    def command(self, verb: str, *words: str) -> str:
        """A qctl command for the operator to type, for the prefix of these queues."""
        return command(self.settings.prefix, verb, *words)

    def restart(self, target: str) -> str:
        """The command that drains all the examined queues of a target and restarts the target."""
        return command(self.settings.prefix if self.is_alone else None, "restart", target)

    def label(self, keys: QueueKeys) -> str:
        """The name of a queue in findings about processes."""
        return keys.name if self.is_alone else keys.full_name

    # Workers

    @property
    @read_once
    def workers(self) -> Workers:
        """The connected workers under the prefix, without those whose connection has no name."""
        names = [keys.name for keys in self.keys]
        found = list_workers(self.client, self.settings.prefix, names, self.address.db)
        if found is None:
            why, hint = why_unknown(self.settings.prefix, self.client)
            raise CannotCheckError(why, hint=hint)
        return found

    def workers_of(self, keys: QueueKeys) -> list[WorkerClient]:
        """Those of ``workers`` that serve one queue."""
        return self._workers_by_queue().get(keys.name, [])

    def all_workers_of(self, snapshot: QueueSnapshot) -> list[WorkerClient] | None:
        """Those of ``workers`` that serve one queue.

        None if this is unknown: no such worker is found, but a worker whose connection has no name
        may serve the queue.
        """
        return workers_of(snapshot, self.workers)

    @read_once
    def _workers_by_queue(self) -> dict[str, list[WorkerClient]]:
        return grouped(self.workers, lambda worker: worker.queue)

    # Processes

    @property
    @read_once
    def all_processes(self) -> Sequence[ManagedProcess]:
        """All processes of this host's process managers, whichever queues they serve."""
        processes, remarks = managed_processes(
            self.settings, lambda: [worker.address for worker in self.workers]
        )
        if remarks:
            raise CannotCheckError("; ".join(remarks))
        if not processes:
            raise NothingToCheckError(
                "no process manager on this host lists a process or runs a connected worker (the "
                f"folder of PM2 is {self.settings.pm2_home})"
            )
        return processes

    @property
    @read_once
    def served(self) -> Mapping[ManagedProcess, frozenset[str]]:
        """The names of the queues that each process serves; processes without any are left out."""
        from qctl.ops.processes.attribution import queues_served, serving  # noqa: PLC0415 - psutil, 30 ms

        processes = self.all_processes if self.chosen is None else self.chosen
        connected = queues_served(self.workers, self.holders)
        queues = [snapshot.keys for snapshot in self.snapshots]
        served = serving(processes, connected, self.settings, queues)
        found = {each: frozenset(keys.name for keys in served[each]) for each in served}
        if not found:
            raise NothingToCheckError(
                "no managed process on this host is known to serve these queues"
            )
        return found

    @property
    @read_once
    def holders(self) -> dict[ConnectionId, ManagedProcess]:
        """A worker's connection → the process in which the worker runs."""
        from qctl.ops.processes.attribution import holders  # noqa: PLC0415 - psutil, 30 ms

        try:
            return holders(self.client, self.workers, self.all_processes)
        except (CannotCheckError, NothingToCheckError, UnreachableError):
            raise
        except Exception as error:
            # psutil raises errors of many kinds.
            raise CannotCheckError(
                f"it is unknown which process serves which queue: {error}"
            ) from error

    # Servers

    @property
    @read_once
    def servers(self) -> tuple[ServerFacts, ...]:
        """The facts about each master. A fact that Redis does not show is None."""
        return read_servers(self.client)

    @property
    def now_ms(self) -> int:
        """The time by this host's clock."""
        return int(time.time() * 1000)

    @property
    def redis_now_ms(self) -> int:
        """The time by the first master's clock, or by this host's clock if that is unknown."""
        try:
            return self.now_ms + self.servers[0].clock_ahead_ms
        except CannotCheckError:
            return self.now_ms


# A check is a function. The function's name, with hyphens, is the name of the check. A check yields
# findings, and remarks (strings) on what it did not examine or could not determine.
Check = Callable[[Examination], Iterable[Finding | str]]


def name_of(check: Check) -> str:
    """``kill-timeout`` for the function ``kill_timeout``."""
    return str(getattr(check, "__name__", "check")).replace("_", "-")
