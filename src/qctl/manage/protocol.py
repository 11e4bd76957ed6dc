"""The interface of process managers: list processes, find processes by name, restart processes.

Each folder beside this file implements ``Manager`` for one kind, such as ``pm2/``. Operations
know managers only through the protocols of this file. Two rules hold for every manager:

- Reading never starts a manager, and never changes anything.
- A restart is only requested. The manager's answer proves nothing: the caller watches until a new
  process runs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

# A day: stands for "no time limit" in ``kill_timeout_ms``.
NO_LIMIT_MS = 86_400_000
# How long to wait for a process to stop if its kill timeout is unknown, or if it has none. This is
# longer than the default of any manager: the longest is systemd's, 90 s.
_UNKNOWN_STOP_S = 180.0
# See ``ManagedProcess.identity``.
Identity = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ManagedProcess:
    """One process under a manager.

    Args:
        target: what the operator types, e.g. ``pm2:worker``; the same for all instances of an app.
        key: the manager's id of this one process, e.g. PM2's ``pm_id``. A process of another
            manager may have the same; see ``identity``.
        name: the app's name.
        namespace: PM2's namespace; "" where a manager has none.
        status: ``online``, ``stopped``, ``stopping``, ``launching``, ``errored`` (the manager has
            given up), or another word of the manager.
        pid: on this host; None when the process does not run, or runs on another host.
        started_at_ms: start time, epoch milliseconds; None when the process does not run.
        restarts: how often the manager has restarted the process; None if it keeps no count.
        mode: ``fork`` or ``cluster``.
        stop_signal: what the manager sends first to stop the process; "" if unknown.
        kill_timeout_ms: how long after the stop signal the manager sends SIGKILL; None if unknown,
            ``NO_LIMIT_MS`` if it never does.
        ready_timeout_ms: how long the manager waits for the app to be ready; 0 if it does not wait.
        cpu_percent, rss_bytes: as the manager measures them; None when not measured.
        last_start_ms: like ``started_at_ms``, but kept when the process ends; None if unknown.
        starts_again: whether the manager restarts the process after every exit, whatever the code.
        came_back: whether the manager made the last start because the process had ended by itself;
            False if unknown.
        crash_until_ms: until when (epoch ms) an exit counts as a crash; None if never or unknown.
        tree_kill: whether stopping the process also stops its children.
        script: the app's program; distinguishes two apps with one name.
        cwd: the working folder; distinguishes two apps with one name that both run ``npm``.
        error_log: the file with the stderr of the process.
        addresses: IP addresses that only this process has, e.g. those of its container. If
            ``pid`` is None, they show which connections the process holds. If there is a pid, qctl
            reads the connections in the process's network namespace instead, because another
            network may have the same addresses.
        stays_served: whether at least one process of the target always runs while the manager
            restarts the target. That process may be new, with a worker that is not connected yet.
        signals_children: whether the stop signal also reaches the process's children.
        signal_trouble: why the stop signal may not reach the workers; "" if it should reach them.
        restart_trouble: why a restart by the manager would not replace the process; "" if it would.
    """

    target: str
    key: str
    name: str
    namespace: str
    status: str
    pid: int | None
    started_at_ms: int | None
    restarts: int | None
    mode: str
    stop_signal: str
    kill_timeout_ms: int | None
    ready_timeout_ms: int
    cpu_percent: float | None
    rss_bytes: int | None
    last_start_ms: int | None = None
    starts_again: bool = True
    came_back: bool = False
    crash_until_ms: int | None = None
    tree_kill: bool = True
    script: str = field(default="", repr=False)
    cwd: str = field(default="", repr=False)
    error_log: Path | None = field(default=None, repr=False)
    addresses: tuple[str, ...] = ()
    signal_trouble: str = ""
    restart_trouble: str = ""
    signals_children: bool = False
    stays_served: bool = False

    @property
    def kind(self) -> str:
        """The kind of the process's manager, e.g. ``pm2``."""
        return self.target.partition(":")[0]

    @property
    def identity(self) -> Identity:
        """Kind and key, which together are unique among the processes of all managers."""
        return self.kind, self.key

    @property
    def max_stop_s(self) -> float:
        """How long to wait at most until the process has stopped, in seconds.

        An app without a kill timeout may ignore the stop signal for ever, so this wait is limited.
        qctl's own processes always stop, so they have the whole time of ``NO_LIMIT_MS``.
        """
        known_ms = self.kill_timeout_ms
        is_endless = known_ms is not None and known_ms >= NO_LIMIT_MS and self.kind != "qctl"
        return _UNKNOWN_STOP_S if known_ms is None or is_endless else known_ms / 1000

    @property
    def runs(self) -> bool:
        """Whether the process runs, here or on another host."""
        is_started = self.pid is not None or self.started_at_ms is not None
        return is_started or self.status == "online"

    def was_started_since(self, before: ManagedProcess) -> bool:
        """Whether the process was started after ``before`` was read, even if it has ended again."""
        if self.pid is not None and self.pid != before.pid:
            return True
        return self.last_start_ms is not None and self.last_start_ms != before.last_start_ms


class RestartCall(Protocol):
    """A requested restart. Its success proves nothing: the caller watches the process itself."""

    def error(self) -> str | None:
        """Why the manager refused.

        None while the manager has not answered, after a success, and if the answer was lost.
        """
        ...

    def close(self) -> None:
        """Stop waiting for the answer; the manager continues the restart."""
        ...


class Manager(Protocol):
    """One process manager, which is also a ``Restarter`` or a ``Rollout``.

    All methods raise ``UnreachableError`` if the manager does not run, does not answer, or does not
    accept the request.
    """

    kind: str

    def processes(self) -> Sequence[ManagedProcess]:
        """The processes of this manager; each manager documents which ones it leaves out."""
        ...

    def find(self, name: str) -> Sequence[ManagedProcess]:
        """The processes that ``name`` means.

        Raises:
            NotFoundError: no process has this name; the message lists what exists.
            RefusedError: several different apps have this name.
        """
        ...

    def targets(self) -> Sequence[str]:
        """The targets that an operator can name, e.g. ``pm2:worker``."""
        ...


@runtime_checkable
class Restarter(Manager, Protocol):
    """A manager that restarts each process on its own."""

    def process(self, key: str) -> ManagedProcess | None:
        """One process as it is now; None if the manager does not have it."""
        ...

    def begin_restart(self, process: ManagedProcess) -> RestartCall:
        """Request a restart of this one process; returns at once.

        The manager sends the stop signal. If the process still runs ``kill_timeout_ms`` later, the
        manager sends SIGKILL.
        """
        ...


@runtime_checkable
class Locator(Protocol):
    """A manager with many processes that are no workers, such as all services of a host."""

    def holding(self, pids: Collection[int], hosts: Collection[str]) -> Sequence[ManagedProcess]:
        """The processes that hold worker connections.

        Args:
            pids: processes of this host that hold worker connections; may be descendants of the
                manager's own processes.
            hosts: IP addresses of worker connections that no process of this host holds.
        """
        ...


@runtime_checkable
class Rollout(Manager, Protocol):
    """A manager that replaces all processes of a target together, old ones by new ones."""

    def restart_command(self, name: str) -> tuple[str, ...]:
        """The command, with its arguments, that replaces the processes that ``name`` means.

        The exit code of the command proves nothing.

        Raises:
            RefusedError: the manager would not replace all these processes.
        """
        ...

    def shortcoming(self, name: str, before: Sequence[ManagedProcess]) -> str:
        """Why, according to the manager, the replacement is not complete; "" if it is complete.

        Args:
            before: the processes before ``restart_command`` was run.

        Raises:
            FailedError: the replacement cannot succeed, for example because a new process keeps
                crashing; the error shows the last lines that the process printed.
        """
        ...


@runtime_checkable
class LogSource(Protocol):
    """A manager that keeps the output of its processes itself, so there is no log file to read."""

    def log_since(self, process: ManagedProcess, since_s: float) -> list[str]:
        """The last lines that the process, or its successor, has printed; oldest first.

        Args:
            since_s: lines from before this time (epoch seconds) are left out.
        """
        ...


@runtime_checkable
class Signaller(Restarter, Protocol):
    """A manager that can also stop a process and start it again without ever using SIGKILL."""

    def begin_exit(self, process: ManagedProcess) -> RestartCall:
        """Send this one process its stop signal; returns at once.

        Nothing is killed: the process exits when its jobs have ended, and the manager starts it
        again. This exit must not count as a crash, because managers give up after several crashes.
        Raises like the methods of ``Manager``.
        """
        ...

    def why_not_rollable(self, process: ManagedProcess) -> str:
        """Why this manager cannot stop the process by ``begin_exit``; "" if it can."""
        ...
