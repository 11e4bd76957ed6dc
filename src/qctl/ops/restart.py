"""Restart one managed process and prove it: the manager's own answer is not believed.

Proved means: the old process (pid and start time) is gone, a new one is online and has stayed up,
and each queue has a worker connection that is held by the new process or, where addresses cannot be
matched, younger than the restart.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from qctl.connect import Client
from qctl.errors import FailedError, QctlError
from qctl.manage.protocol import ManagedProcess, Manager, RestartCall
from qctl.ops.steps import Ready
from qctl.wire.clients import WorkerClient, list_workers
from qctl.wire.server import run_ids

# A new process must have been up this long; PM2's own measure of "unstable" (min_uptime) is 1 s.
SETTLE_S = 1.0
# On top of the manager's own timeouts, for the new process to boot and connect.
BOOT_S = 60.0
POLL_S = 0.05
# By the manager's kind: what shows a process, its log, and starts it again.
_REMEDIES = {
    "pm2": ("pm2 describe {key}", "pm2 logs {key}", "pm2 restart {key}"),
    "qctl": ("qctl worker list", "qctl worker logs {name}", "qctl worker restart {name}"),
}
# New processes that may die before it is called a crash loop.
MAX_CRASHES = 2


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the new process must show.

    Args:
        queues: queues that need a new worker.
        by_address: whether its workers can be told by their address.
        prefix: the queues' key prefix.
        db: the queues' database.
    """

    queues: frozenset[str]
    by_address: bool
    prefix: str
    db: int


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """The operator wants to stop; the process that was being stopped has ended."""


def as_it_is_now(manager: Manager, planned: ManagedProcess) -> ManagedProcess:
    """The process, which may be another by now: a crash, or somebody's own restart.

    Raises:
        FailedError: its manager has it no more.
    """
    for process in manager.processes():
        if process.key == planned.key:
            return process
    raise FailedError(
        f"{planned.target} (id {planned.key}) is no longer under its manager",
        why="somebody deleted it during the drain",
        hint="start it again as it was started before",
    )


class Restart:
    """One process, one restart.

    Args:
        client: where workers are seen to connect.
        manager: who restarts it.
        process: what is restarted, as it was before.
        expected: what to wait for.
        stop: asked often; True means that the operator wants to stop.
        rest: passes the time between two looks; returns after about ``POLL_S``.
    """

    def __init__(
        self,
        client: Client,
        manager: Manager,
        process: ManagedProcess,
        expected: Expectation,
        stop: Callable[[], bool],
        rest: Callable[[], object] = lambda: time.sleep(POLL_S),
    ) -> None:
        from qctl.manage.sockets import is_running, started_at  # noqa: PLC0415 - psutil costs 30 ms

        self._client = client
        self._manager = manager
        self._process = process
        self._expected = expected
        self._stop = stop
        self._rest = rest
        self._is_running = is_running
        self.old_started_at = started_at(process.pid) if process.pid else None
        self._last_client_id = max((w.client_id for w in self._workers()), default=0)
        self._servers = run_ids(client)

    def run(self) -> Ready:
        """Restart it and wait for the proof.

        Raises:
            FailedError: the manager refused, the new process keeps dying, or it does not get ready.
            Interrupted: ``stop`` said so.
        """
        began = time.monotonic()
        with contextlib.closing(self._manager.begin_restart(self._process)) as call:
            self.await_old_gone(call)
            return self.await_ready(call, began)

    def old_is_gone(self) -> bool:
        """Whether the old process has ended; a reused pid does not fool it."""
        pid, started = self._process.pid, self.old_started_at
        return pid is None or started is None or not self._is_running(pid, started)

    def await_old_gone(self, call: RestartCall) -> None:
        """Wait until the old process has ended. A wish to stop is heard only after that:
        a queue resumed while its worker is being stopped could lose one more job to it.
        """
        deadline = time.monotonic() + self._process.kill_timeout_ms / 1000 + BOOT_S
        while not self.old_is_gone():
            self.raise_refusal(call)
            if time.monotonic() > deadline:
                raise FailedError(
                    f"{self._label} did not stop",
                    why=f"pid {self._process.pid} still runs after its kill timeout",
                    hint=f"look at it: {self._remedy(0)}",
                )
            self._rest()
        if self._stop():
            raise Interrupted

    def await_ready(self, call: RestartCall, began: float) -> Ready:
        """Wait until the new process is proved.

        Args:
            began: when the restart did, by the monotonic clock.

        Raises:
            FailedError: the manager refused, the new process keeps dying, or it does not get ready.
            Interrupted: ``stop`` said so.
        """
        new = self._await_new(call)
        assert new.pid is not None  # noqa: S101 - online processes have one
        return Ready(
            target=self._process.target,
            key=self._process.key,
            old_pid=self._process.pid,
            new_pid=new.pid,
            took_s=round(time.monotonic() - began, 3),
            workers=tuple(sorted(self._expected.queues)),
        )

    def _await_new(self, call: RestartCall) -> ManagedProcess:
        process = self._process
        deadline = time.monotonic() + process.ready_timeout_ms / 1000 + BOOT_S
        new_pid, up_since, crashes = None, time.monotonic(), 0
        missing = "no new process was started"
        while time.monotonic() < deadline:
            if self._stop():
                raise Interrupted
            self.raise_refusal(call)
            now = self.row()
            if now is None:
                raise FailedError(
                    f"{self._label} is no longer under its manager",
                    why="somebody deleted it, or ended its manager, during the restart",
                    hint="start it again as it was started before",
                )
            if now.status == "errored":
                raise self._crash_loop(now)
            if now.pid not in {new_pid, process.pid}:
                crashes += new_pid is not None
                new_pid, up_since = now.pid, time.monotonic()
            if crashes >= MAX_CRASHES:
                raise self._crash_loop(now)
            if new_pid is not None and now.status == "online":
                looked_at = time.monotonic()
                missing = self._missing(now)
                # The time in which Redis was away, and the look had to wait for it, does not count.
                deadline += max(time.monotonic() - looked_at - POLL_S, 0)
                if not missing and time.monotonic() - up_since >= SETTLE_S:
                    return now
            self._rest()
        raise FailedError(
            f"{self._label} was restarted but is not ready",
            why=self._with_last_words(missing),
            hint=f"look at it: {self._remedy(1)}",
        )

    def _missing(self, new: ManagedProcess) -> str:
        """What still lacks; empty when every queue has its new worker."""
        fresh = self._workers()
        if self._expected.by_address and fresh:
            from qctl.ops.attribution import holders  # noqa: PLC0415 - loads psutil, 30 ms

            mine = holders(self._client, self._expected.prefix, fresh, [new])
            fresh = [worker for worker in fresh if worker.client_id in mine]
        elif run_ids(self._client) == self._servers:
            fresh = [worker for worker in fresh if worker.client_id > self._last_client_id]
        # Else another server answers now, which numbers its connections anew, and everybody has
        # come anew.
        absent = self._expected.queues - {worker.queue for worker in fresh}
        return f"no worker has connected for {', '.join(sorted(absent))}" if absent else ""

    def _workers(self) -> Sequence[WorkerClient]:
        return (
            list_workers(
                self._client, self._expected.prefix, self._expected.queues, self._expected.db
            )
            or ()
        )

    def row(self) -> ManagedProcess | None:
        """The process as its manager has it now; None when it has it no more."""
        return next((p for p in self._manager.processes() if p.key == self._process.key), None)

    def raise_refusal(self, call: RestartCall) -> None:
        """Raise a FailedError if the manager has refused."""
        reason = call.error()
        if reason is not None:
            raise FailedError(
                f"the process manager refused to restart {self._label}",
                why=reason,
                hint=f"look at it: {self._remedy(0)}",
            )

    def _crash_loop(self, now: ManagedProcess) -> QctlError:
        return FailedError(
            f"{self._label} keeps crashing after the restart",
            why=self._with_last_words(f"its status is {now.status}"),
            hint=f"mend the app, then {self._remedy(2)}",
        )

    def _with_last_words(self, reason: str) -> str:
        words = _indented(self._manager.last_words(self._process))
        return f"{reason}; its last words:\n{words}" if words else reason

    def _remedy(self, which: int) -> str:
        remedies = _REMEDIES.get(self._manager.kind, _REMEDIES["pm2"])
        return remedies[which].format(key=self._process.key, name=self._process.name)

    @property
    def _label(self) -> str:
        return f"{self._process.target} (id {self._process.key})"


def _indented(lines: Iterable[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)
