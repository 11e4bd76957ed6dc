"""What a process manager offers to the operations above it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class ManagedProcess:
    """One process under a manager: a whitelist of fields, never the manager's own row.

    Args:
        target: how the operator names it, e.g. ``pm2:worker``; instances of one app share it.
        key: how the manager names this one process, e.g. PM2's ``pm_id``.
        name: the app's name.
        namespace: PM2's namespace; "" where a manager has none.
        status: the manager's word: ``online``, ``stopped``, ``errored``, ``launching`` …
        pid: None when it does not run.
        started_at_ms: when it was started, epoch milliseconds; None when it does not run.
        last_start_ms: the same, also of a process that has ended since.
        restarts: how often the manager has restarted it.
        mode: ``fork`` or ``cluster``.
        stop_signal: what the manager sends first to stop it.
        kill_timeout_ms: how long after that it sends SIGKILL.
        ready_timeout_ms: how long the manager waits for the app to report that it is ready; 0 when
            it does not wait.
        starts_again: whether its manager starts it again when it has left by itself, whatever
            its exit code.
        crash_until_ms: until when, in epoch milliseconds, its manager takes its exit for a crash;
            None when it does not.
        tree_kill: whether stopping it also stops its children.
        script: what it runs; tells two apps of one name apart.
        cwd: the folder it runs in; tells them apart when both run ``npm``.
        error_log: file with its stderr.
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
        """Whether it was started after it was read as ``before``, even if it has ended again."""
        if self.pid is not None and self.pid != before.pid:
            return True
        return self.last_start_ms is not None and self.last_start_ms != before.last_start_ms


class RestartCall(Protocol):
    """A restart under way. Its end proves nothing: watch the process itself."""

    def error(self) -> str | None:
        """Why the manager refused; None while it is at work, when it reported success, and when
        its answer was lost, after which only the process itself can tell.
        """
        ...

    def close(self) -> None:
        """Stop listening to it; the manager goes on."""
        ...


class Manager(Protocol):
    """One process manager on this host."""

    kind: str

    def processes(self) -> Sequence[ManagedProcess]:
        """All processes it manages.

        Raises:
            UnreachableError: it does not run, or does not answer. Asking never starts it.
        """
        ...

    def process(self, key: str) -> ManagedProcess | None:
        """One process as it is now; None when the manager does not have it.

        Raises:
            UnreachableError: as above.
        """
        ...

    def find(self, name: str) -> Sequence[ManagedProcess]:
        """The processes that ``name`` means.

        Raises:
            NotFoundError: there is none; the message lists those there are.
            RefusedError: the name means several different apps.
            UnreachableError: as above.
        """
        ...

    def begin_restart(self, process: ManagedProcess) -> RestartCall:
        """Ask for a restart of this one process, and return at once."""
        ...


@runtime_checkable
class Signaller(Protocol):
    """A manager whose restart kills after a time limit, and that can ask without one."""

    def begin_exit(self, process: ManagedProcess) -> RestartCall:
        """Send this one process its stop signal, and return at once.

        Nothing is killed: it leaves when its jobs have ended, and the manager starts it again. This
        must not bring the process nearer to the number of crashes at which its manager gives up.
        """
        ...
