"""Restart one managed process and prove it, without relying on the manager's own answer.

A restart is proved when the old process (pid and start time) is gone, a new one is online and has
stayed up, and each queue has a worker connection of the new process. If addresses do not show which
process holds a connection, any connection that is younger than the restart counts.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

from qctl.connection.address import Client
from qctl.durations import duration
from qctl.errors import FailedError, QctlError, TimedOutError
from qctl.manage.kinds import KINDS
from qctl.manage.last_words import LogWatch
from qctl.manage.protocol import NO_LIMIT_MS, ManagedProcess, RestartCall, Restarter
from qctl.ops.patience import Pulse
from qctl.ops.processes.stopped import STOPPED_S, StoppedError, deleted, label, remedy
from qctl.plurals import counted
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import WorkerClient, list_all_workers
from qctl.wire.read.info import run_ids

# A new process must have been up this long before the queues are resumed. PM2 calls a process
# unstable if it ends within 1 s.
SETTLE_S = 1.0
# Time for the new process to boot and connect, on top of the manager's own timeouts.
BOOT_S = 60.0
# Expected time from one reading to the next, at most. If it takes longer, for example because Redis
# is away, the new process gets the excess as extra time.
READING_S = 1.0
# Each old process gets at least this time to stop, even if the drain's time limit is shorter.
# Nearly all kill timeouts are shorter than this.
MIN_STOP_S = 180.0
# If the operator wants to stop, but SIGKILL is due within this time, qctl first waits for SIGKILL.
# If qctl resumed the queues sooner, the old process could take jobs that SIGKILL would interrupt.
LAST_WAIT_S = 10.0
# The rest between two readings.
POLL_S = 0.05
# When this many new processes have died, qctl reports a crash loop.
MAX_CRASHES = 2


@dataclass(frozen=True, slots=True)
class Ready:
    """The restart is proved: the old process is gone; the new one is up, with workers connected."""

    step: ClassVar[str] = "ready"
    target: str
    key: str
    old_pid: int | None
    new_pid: int
    took_s: float
    workers: tuple[str, ...]


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """The operator wants to stop."""


class NotReplacedError(FailedError):
    """The manager refused the restart. The old process may run: see ``Restart.old_is_gone``."""


class _NewProcesses:
    """The processes that were started since the restart was requested.

    Args:
        before: the process as it was before the restart.

    Attributes:
        crashes: how many new processes have ended.
    """

    def __init__(self, before: ManagedProcess) -> None:
        self._before = before
        self._first: ManagedProcess | None = None
        self._pid: int | None = None
        self._up_since = 0.0
        self._connected_since: float | None = None
        self.crashes = 0

    def update(self, now: ManagedProcess) -> bool:
        """Record ``now``, a reading of the process; return whether it shows a new process."""
        if self._first is None and not now.was_started_since(self._before):
            return False
        self._first = self._first or now
        if now.pid != self._pid:
            self.crashes += self._pid is not None
            self._pid, self._up_since = now.pid, time.monotonic()
            self._connected_since = None
        # Several processes may have started and ended between two readings.
        if now.restarts is not None and self._first.restarts is not None:
            self.crashes = max(self.crashes, now.restarts - self._first.restarts)
        return True

    def note_workers(self, *, are_connected: bool) -> None:
        """Record whether the workers of the latest process are connected."""
        if not are_connected:
            self._connected_since = None
        elif self._connected_since is None:
            self._connected_since = time.monotonic()

    @property
    def up_s(self) -> float:
        """How long the latest process has been seen, in seconds."""
        return time.monotonic() - self._up_since

    @property
    def connected_s(self) -> float:
        """How long the workers have been seen connected, in seconds; 0 if they are not."""
        return time.monotonic() - self._connected_since if self._connected_since else 0.0


class Restart:
    """One restart of one process.

    Several restarts can be carried out at the same time, because the methods that wait are
    generators. Each yields None where the caller must rest, for about ``POLL_S``.

    Args:
        client: the connection on which to look for new workers.
        process: the process as it was before the restart.
        stop: returns whether the operator wants to stop; called often.
        queues: queues that need a new worker.
        by_address: whether addresses show which workers a process holds.
        prefix: the prefix that messages leave out; see ``QueueKeys.label``.
        db: the queues' database.
        timeout_s: the time limit of the drain. The old process may take this long to stop, or
            ``MIN_STOP_S`` if that is longer.
        watch_s: how long the new process must stay up with its workers connected; see ``confirm``.
        pulse: shows whether the manager answers.
    """

    def __init__(
        self,
        client: Client,
        manager: Restarter,
        process: ManagedProcess,
        stop: Callable[[], bool],
        *,
        queues: frozenset[QueueKeys],
        by_address: bool,
        prefix: str | None,
        db: int,
        timeout_s: float,
        watch_s: float,
        pulse: Pulse,
    ) -> None:
        from qctl.manage.host import is_running, read_birth_s  # noqa: PLC0415 - psutil costs 30 ms
        from qctl.ops.processes.attribution import children_holding  # noqa: PLC0415

        self._client = client
        self._manager = manager
        self.pulse = pulse
        self._process = process
        self._queues = queues
        self._by_address = by_address
        self._prefix = prefix
        self._db = db
        self._watch_s = watch_s
        # How long the old process may take to stop. ``_await_old_gone`` waits ``BOOT_S`` longer.
        self.patience_s = min(process.max_stop_s, max(timeout_s, MIN_STOP_S))
        self._asked_s = time.time()
        self._stop = stop
        self._is_running = is_running
        self.old_birth_s = read_birth_s(process.pid) if process.pid else None
        self._log = LogWatch(manager, process)
        self._started = _NewProcesses(process)
        workers = self._workers() or ()
        # Each master of a cluster numbers its own connections, so later ones may be lower.
        self._connected_before = {w.id for w in workers}
        # Some managers stop only the process itself, and its workers may run in a child.
        children = children_holding(workers, process.pid) if by_address and process.pid else ()
        births_s = {pid: read_birth_s(pid) for pid in children}
        self._children = {pid: birth_s for pid, birth_s in births_s.items() if birth_s is not None}
        self._servers = run_ids(client)

    def run(self) -> Generator[None, None, Ready]:
        """Restart the process and wait until the restart is proved.

        Raises:
            NotReplacedError: the manager refused.
            FailedError: the old process does not stop, or the new one dies or does not get ready.
            TimedOutError: the old process has not stopped within the drain's time limit.
            Interrupted: ``stop`` returned True.
        """
        began, self._asked_s = time.monotonic(), time.time()
        with contextlib.closing(self._manager.begin_restart(self._process)) as call:
            yield from self._await_old_gone(call)
            return (yield from self.await_ready(call, began))

    def old_is_gone(self) -> bool:
        """Whether the old process, and each child of it that held a worker, has ended."""
        return self._main_is_gone() and not self._children_left()

    def _main_is_gone(self) -> bool:
        pid, birth_s = self._process.pid, self.old_birth_s
        return pid is None or birth_s is None or not self._is_running(pid, birth_s)

    def _children_left(self) -> list[int]:
        """Pids of the old process's children that held its workers and still run."""
        return [pid for pid, birth_s in self._children.items() if self._is_running(pid, birth_s)]

    def _await_old_gone(self, call: RestartCall) -> Generator[None, None, None]:
        """Wait until the old process has ended; raises as ``run`` does.

        If the operator wants to stop, the wait ends at once, unless SIGKILL is due soon.
        """
        began = time.monotonic()
        killed = began + self._process.max_stop_s + STOPPED_S
        deadline = began + self.patience_s + BOOT_S
        while not self.old_is_gone():
            self.raise_refusal(call)
            now = time.monotonic()
            if now > killed and self._main_is_gone():
                raise self._workers_left()
            if now > deadline:
                raise self._not_stopped()
            if self._stop() and not killed - LAST_WAIT_S <= now <= killed:
                raise Interrupted
            yield
        if self._stop():
            raise Interrupted

    def _not_stopped(self) -> FailedError | TimedOutError:
        pid, waited = self._process.pid, duration(self.patience_s + BOOT_S)
        why = f"pid {pid} still runs {waited} after the stop signal"
        if self.patience_s < self._process.max_stop_s:
            stop_signal = self._process.stop_signal or "its stop signal"
            return TimedOutError(
                f"{self._label} has not stopped in time",
                why=why,
                hint=f"let the app exit on {stop_signal}, or shorten the time until SIGKILL; to "
                "wait longer: --timeout D",
            )
        hint = f"see {self._remedy('show')}"
        return FailedError(f"{self._label} did not stop", why=why, hint=hint)

    def still_stopping(self) -> str:
        """What will happen to the old process, as a message; "" if it has ended."""
        if self.old_is_gone():
            return ""
        limit_ms = self._process.kill_timeout_ms
        until = "it is unknown when its manager kills it"
        if limit_ms is not None and limit_ms >= NO_LIMIT_MS:
            until = "its manager does not kill it"
        elif limit_ms is not None:
            kill_s = self._asked_s + limit_ms / 1000
            at = datetime.fromtimestamp(kill_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            until = f"SIGKILL comes at {at}"
            if (left_s := kill_s - time.time()) > 0:
                until += f", in {duration(left_s)}"
        return (
            f"{self._label} is still being stopped by its manager: pid {self._process.pid} runs "
            f"until it exits; {until}. Jobs that it takes until then may be interrupted. Its "
            "manager starts it again afterwards, which qctl does not check"
        )

    def _workers_left(self) -> FailedError:
        """The error for workers that go on although the manager has ended their process."""
        pids = " ".join(map(str, self._children_left()))
        return FailedError(
            f"old workers of {self._label} still run",
            why=f"its manager ended only pid {self._process.pid}; the workers run in children of "
            f"that process: {pids}",
            hint=f"let the manager signal the children too; to end these now: kill {pids}",
        )

    def await_ready(self, call: RestartCall, began: float) -> Generator[None, None, Ready]:
        """Wait until the restart is proved; raises as ``run`` does.

        Args:
            began: when the restart began, by the monotonic clock.
        """
        started = self._started

        def is_settled() -> bool:
            # After a crash, it is not enough that the process is up: its workers must be connected
            # for as long.
            since_s = started.connected_s if started.crashes else started.up_s
            return since_s >= SETTLE_S

        new_pid = yield from self._await_up(is_settled, call)
        return Ready(
            target=self._process.target,
            key=self._process.key,
            old_pid=self._process.pid,
            new_pid=new_pid,
            took_s=round(time.monotonic() - began, 3),
            workers=self._labels(self._queues),
        )

    def confirm(self) -> Generator[None, None, int]:
        """Make sure that the new process has stayed up for ``watch_s`` since its workers connected.

        Some apps die soon after they have connected. Call this when the queues have been resumed,
        so that no job has to wait for this check.

        Returns:
            the pid of the new process. It differs from the pid in ``Ready`` if that process has
            crashed since then.

        Raises:
            FailedError, Interrupted: as ``run``.
        """
        return (yield from self._await_up(lambda: self._started.connected_s >= self._watch_s))

    def _await_up(
        self, is_settled: Callable[[], bool], call: RestartCall | None = None
    ) -> Generator[None, None, int]:
        deadline = time.monotonic() + self._process.ready_timeout_ms / 1000 + BOOT_S
        started = self._started
        missing = "no new process was started"
        while (read_at := time.monotonic()) < deadline:
            if self._stop():
                raise Interrupted
            if call is not None:
                self.raise_refusal(call)
            now = self.row()
            if now is None:
                raise deleted(self._manager, self._process)
            # ``update`` returns False while the row is from before the restart.
            if started.update(now):
                self._raise_end(now)
                if now.status == "online":
                    missing = self._missing(now)
                    started.note_workers(are_connected=not missing)
                    if not missing and is_settled():
                        assert now.pid is not None  # noqa: S101 - online processes have one
                        return now.pid
            yield
            deadline += max(time.monotonic() - read_at - READING_S, 0)
        raise FailedError(
            f"{self._label} was restarted but is not ready",
            why=self._with_last_words(missing),
            hint=f"see {self._remedy('log')}",
        )

    def _raise_end(self, now: ManagedProcess) -> None:
        """Raise a FailedError if the new process has ended for good."""
        died = self._started.crashes
        if now.status == "errored" or died >= MAX_CRASHES:
            so_far = f"{counted(died, 'new process has', 'new processes have')} died; "
            raise FailedError(
                f"{self._label} keeps crashing after the restart",
                why=self._with_last_words(f"{so_far if died else ''}its status is {now.status}"),
                hint=f"fix the app, then {self._remedy('restart')}",
            )
        if now.status == "stopped" and now.pid is None:
            who = (
                "somebody stopped it"
                if now.starts_again
                else "it has ended and its manager does not start it again, or somebody stopped it"
            )
            raise StoppedError(
                f"{self._label} was started and is stopped again",
                why=self._with_last_words(who),
                hint=f"see {self._remedy('log')}; to start it: {self._remedy('start')}",
            )

    def _missing(self, new: ManagedProcess) -> str:
        """Which queues lack a new worker, as a message; empty if no queue does."""
        fresh = self._workers() or ()
        if self._by_address and fresh:
            from qctl.ops.processes.attribution import holders  # noqa: PLC0415 - loads psutil, 30 ms

            mine = holders(self._client, fresh, [new])
            fresh = [worker for worker in fresh if worker.id in mine]
        elif run_ids(self._client) == self._servers:
            before = self._connected_before
            fresh = [w for w in fresh if w.id not in before]
        # If the run ids differ, another Redis server answers now, so all connections are new.
        absent = self._queues - {worker.keys for worker in fresh}
        return f"no worker has connected for {', '.join(self._labels(absent))}" if absent else ""

    def _workers(self) -> Sequence[WorkerClient] | None:
        connected = list_all_workers(self._client, self._queues, self._db)
        return None if connected is None else connected.workers

    def _labels(self, queues: Iterable[QueueKeys]) -> tuple[str, ...]:
        return tuple(keys.label(self._prefix) for keys in sorted(queues))

    def row(self) -> ManagedProcess | None:
        """The process as its manager reports it now; None if it was deleted."""
        with self.pulse.asking(KINDS[self._manager.kind].title):
            return self._manager.process(self._process.key)

    def raise_refusal(self, call: RestartCall) -> None:
        """Raise a NotReplacedError if the manager refused the restart."""
        reason = call.error()
        if reason is None:
            return
        if self._manager.kind == "qctl" and not self.old_is_gone():
            raise NotReplacedError(
                f"{self._label} was not replaced; the old process keeps working",
                why=reason,
                hint=f"see {self._remedy('log')}; fix the app, then {self._remedy('restart')}",
            )
        raise NotReplacedError(
            f"the process manager refused to restart {self._label}",
            why=reason,
            hint=f"see {self._remedy('show')}",
        )

    def _with_last_words(self, reason: str) -> str:
        words = self._log.last_words()
        workers: Sequence[WorkerClient] | None = None
        with contextlib.suppress(QctlError):
            workers = self._workers()
        if workers is not None and (unserved := self._queues - {w.keys for w in workers}):
            reason += f"; no worker of {', '.join(self._labels(unserved))} is connected now"
        return "\n".join([*words, reason])

    def _remedy(self, verb: str) -> str:
        return remedy(self._process, verb)

    @property
    def _label(self) -> str:
        return label(self._process)
