"""What a process manager is: it lists its processes, finds them by name and restarts single ones.

Each folder beside this file implements ``Manager`` for one kind: ``pm2/``, ``qctl/``. Operations
know managers only through this protocol. Two rules hold for all of them:

- Reading never starts a manager, and never changes anything.
- A restart is only requested. What the manager answers proves nothing: the caller watches the
  process itself until a new one runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class ManagedProcess:
    """One process under a manager.

    Args:
        target: what the operator types, e.g. ``pm2:worker``; all instances of an app share it.
        key: what the manager calls this one process, e.g. PM2's ``pm_id``.
        name: the app's name.
        namespace: PM2's namespace; "" where a manager has none.
        status: the manager's word: ``online``, ``stopped``, ``errored``, ``launching`` …
        pid: None when it does not run.
        started_at_ms: start time, epoch milliseconds; None when it does not run.
        restarts: how often the manager has restarted it.
        mode: ``fork`` or ``cluster``.
        stop_signal: what the manager sends first to stop it.
        kill_timeout_ms: how long after that the manager sends SIGKILL.
        ready_timeout_ms: how long the manager waits until the app reports that it is ready; 0 when
            it does not wait.
        cpu_percent, rss_bytes: as the manager measures them; None when it does not.
        last_start_ms: as ``started_at_ms``, also for a process that has ended.
        starts_again: whether the manager restarts it after it exits by itself, with any exit code.
        crash_until_ms: until when, in epoch milliseconds, the manager counts an exit as a crash;
            None when it does not.
        tree_kill: whether stopping it also stops its children.
        script: what it runs; distinguishes two apps with one name.
        cwd: its working folder; distinguishes them when both run ``npm``.
        error_log: the file with its stderr.
    """

    target: str
    key: str
    name: str
    namespace: str
    status: str
    pid: int | None
    started_at_ms: int | None
    restarts: int
    mode: str
    stop_signal: str
    kill_timeout_ms: int
    ready_timeout_ms: int
    cpu_percent: float | None
    rss_bytes: int | None
    last_start_ms: int | None = None
    starts_again: bool = True
    crash_until_ms: int | None = None
    tree_kill: bool = True
    script: str = field(default="", repr=False)
    cwd: str = field(default="", repr=False)
    error_log: Path | None = field(default=None, repr=False)

    def was_started_since(self, before: ManagedProcess) -> bool:
        """Whether it was started after ``before`` was read, even if it has ended again."""
        if self.pid is not None and self.pid != before.pid:
            return True
        return self.last_start_ms is not None and self.last_start_ms != before.last_start_ms


class RestartCall(Protocol):
    """A restart that was requested. Success here proves nothing: watch the process itself."""

    def error(self) -> str | None:
        """Why the manager refused.

        None while it works, when it reported success, and when its answer was lost.
        """
        ...

    def close(self) -> None:
        """Stop listening; the manager continues."""
        ...


class Manager(Protocol):
    """One process manager on this host.

    All methods raise ``UnreachableError`` if it does not run, does not answer, or does not take the
    request.
    """

    kind: str

    def processes(self) -> Sequence[ManagedProcess]:
        """All its processes."""
        ...

    def process(self, key: str) -> ManagedProcess | None:
        """One process as it is now; None if the manager does not have it."""
        ...

    def find(self, name: str) -> Sequence[ManagedProcess]:
        """The processes that ``name`` means.

        Raises:
            NotFoundError: none; the message lists the existing ones.
            RefusedError: the name means several different apps.
        """
        ...

    def begin_restart(self, process: ManagedProcess) -> RestartCall:
        """Request a restart of this one process; returns at once.

        The manager sends the stop signal, and SIGKILL after its time limit.
        """
        ...


@runtime_checkable
class Signaller(Protocol):
    """A manager that can also restart a process without its time limit for SIGKILL."""

    def begin_exit(self, process: ManagedProcess) -> RestartCall:
        """Send this one process its stop signal; returns at once.

        Nothing is killed: the process exits when its jobs have ended, and the manager starts it
        again. Must not bring the process closer to the number of crashes at which the manager gives
        up. Raises like the methods of ``Manager``.
        """
        ...
