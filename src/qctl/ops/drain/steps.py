"""The steps that a drain yields, and the report at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qctl.errors import QctlError
from qctl.manage.protocol import NO_LIMIT_MS
from qctl.ops.drain.ledger import JobOutcome
from qctl.ops.processes.replacement import QueueWorkers
from qctl.ops.processes.restart import Ready

# How long a drain waits for active jobs by default.
DRAIN_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class RunningJob:
    """An active job.

    Args:
        runtime_s: time since it started; None when unknown.
        lock_ttl_ms: time until its lock expires; None without a lock.
        estimate_s: time until it ends, estimated from recent runs; None when unknown.
    """

    queue: str
    id: str
    name: str | None
    runtime_s: float | None
    lock_ttl_ms: int | None
    worker: str | None
    estimate_s: float | None


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """A process that will be restarted; see ``ManagedProcess``.

    Args:
        stop_signal, kill_timeout_ms: None if unknown.
    """

    target: str
    key: str
    pid: int | None
    status: str
    stop_signal: str | None
    kill_timeout_ms: int | None
    queues: tuple[str, ...]
    signal_trouble: str

    @property
    def is_never_killed(self) -> bool:
        """Whether the manager never sends SIGKILL."""
        return self.kill_timeout_ms is not None and self.kill_timeout_ms >= NO_LIMIT_MS


@dataclass(frozen=True, slots=True)
class Planned:
    """What a drain is going to do, with the current numbers.

    Args:
        max_unavailable: how many processes are replaced at the same time; None if qctl restarts no
            process, or if the target's manager decides this number.
    """

    step: ClassVar[str] = "plan"
    queues: tuple[str, ...]
    already_paused: tuple[str, ...]
    target: str | None
    processes: tuple[ProcessPlan, ...]
    backlog: int
    active: tuple[RunningJob, ...]
    orphans: tuple[RunningJob, ...]
    estimate_s: float | None
    warnings: tuple[str, ...]
    strategy: str = "pause"
    command: tuple[str, ...] = ()
    max_unavailable: int | None = None


@dataclass(frozen=True, slots=True)
class Paused:
    """A queue is paused.

    Args:
        changed: False when somebody else had paused the queue already.
        again: True when this drain had paused the queue before, and the pause did not last.
    """

    step: ClassVar[str] = "paused"
    queue: str
    changed: bool
    again: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """The drain waits for active jobs. This step comes once a second, and when the jobs change."""

    step: ClassVar[str] = "waiting"
    active: tuple[RunningJob, ...]
    orphans: tuple[RunningJob, ...]
    waited_s: float
    redis_away: bool = False


@dataclass(frozen=True, slots=True)
class TimeUp:
    """Jobs still run after the timeout. Because of ``--on-timeout restart``, the restart begins.

    Args:
        active: the jobs that the restart will interrupt.
    """

    step: ClassVar[str] = "time_up"
    waited_s: float
    active: tuple[RunningJob, ...]


@dataclass(frozen=True, slots=True)
class Drained:
    """No job is active except orphans, which have lost their worker."""

    step: ClassVar[str] = "drained"
    waited_s: float
    orphans: tuple[RunningJob, ...]


@dataclass(frozen=True, slots=True)
class Restarting:
    """The restart of a process begins."""

    step: ClassVar[str] = "restarting"
    target: str
    key: str
    pid: int | None


@dataclass(frozen=True, slots=True)
class RunningCommand:
    """The command that restarts the workers is about to start. Its output follows this step."""

    step: ClassVar[str] = "command"
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CommandDone:
    """The command has succeeded, and as many new workers as ``rule`` requires are connected.

    Args:
        workers, rule: see ``DrainReport``.
        took_s: the time from the start of the command until now.
    """

    step: ClassVar[str] = "command_done"
    workers: tuple[QueueWorkers, ...]
    rule: str
    took_s: float


@dataclass(frozen=True, slots=True)
class Resumed:
    """A queue runs again; ``moved`` jobs were moved out of BullMQ 5's paused list."""

    step: ClassVar[str] = "resumed"
    queue: str
    moved: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """Jobs without a worker were put back into their queue, where they run next."""

    step: ClassVar[str] = "recovered"
    queue: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Proof:
    """The evidence for the number of lost jobs.

    Args:
        checked: ``all ids``, ``counts and a sample of N jobs`` for large queues, ``a sample of N
            jobs`` where events are missing, or ``nothing``.
        ids: the number of jobs that were followed one by one.
        deleted: how many jobs are gone without a trace or an event. They do not count as lost: only
            a deliberate deletion, such as BullMQ's ``queue.drain()``, leaves no trace of a job.
        events_missed: queues whose event stream was trimmed before all of it was read.
        resumed_by_others: queues that somebody else resumed during the drain.
        why: why the number of lost jobs is in doubt; empty if it is not.
    """

    checked: str = "nothing"
    ids: int = 0
    deleted: int = 0
    events_missed: tuple[str, ...] = ()
    resumed_by_others: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """What became of one process of the target.

    Args:
        result: ``new``: the new process is up. ``failed``: see ``error``. ``asked``: the old
            process was asked to exit, but the drain ended before qctl had made sure that the new
            process is up.
            ``untouched``: the process was not restarted.
        old_pid: the pid of the process that was asked to exit; None if no process was asked.
        new_pid: the pid of the new process; None until it is up.
        error: the error if ``result`` is ``failed``, as ``error_text`` returns it; otherwise None.
    """

    target: str
    key: str
    result: str = "untouched"
    old_pid: int | None = None
    new_pid: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class DrainReport:
    """The end of a drain (see docs/cli.md).

    Args:
        outcome: ``drained``, ``restarted``, ``timeout``, ``refused`` or ``aborted``.
        prefix: the key prefix of all queues. None if they have several: then each queue is shown
            as ``NAME@PREFIX``.
        strategy: ``pause`` or ``roll``. After a roll, ``jobs`` and the counts of results include
            jobs that were not active at the start: see ``RollLedger``.
        paused_s: time from the first pause to the last resume, by Redis' clock.
        interrupted, lost: None when unknown.
        proof: the evidence for ``lost``.
        idle_s: the longest time in which nothing ran although jobs waited; None when it could not
            be measured.
        still_paused: queues that are paused at the end; None when that could not be read.
        resumed: whether the queues that this drain paused run again; None when a failover might
            undo the resume.
        command: the command that restarts the workers; empty if there is none.
        rule: how many new workers had to connect to prove that the command worked: ``as many as
            before``, ``N for each queue``, or ``not checked``; "" if there was no command or the
            proof failed.
        workers: the workers of each queue before and after the command.
        processes: the processes of the target; empty if a command restarts them.
        unserved: running queues to which no worker is connected; None when unknown.
        paused_again: how often queues had to be paused again.
        still_active: jobs that still run after a timeout.
        notes: what else the operator should know.
        error: why the drain failed; None if the drain did not fail. The last line is ``hint``,
            unless ``hint`` is empty.
        hint: what to type or change after the failure.
        begun: False if the drain was refused or failed before it changed anything.
    """

    step: ClassVar[str] = "report"
    outcome: str
    queues: tuple[str, ...]
    target: str | None
    strategy: str = "pause"
    active_at_start: int = 0
    completed: int = 0
    failed: int = 0
    retried: int = 0
    interrupted: int | None = None
    recovered: int = 0
    lost: int | None = None
    jobs: tuple[JobOutcome, ...] = ()
    paused_s: float = 0.0
    idle_s: float | None = None
    old_pids: tuple[int, ...] = ()
    new_pids: tuple[int, ...] = ()
    resumed: bool | None = False
    still_paused: tuple[str, ...] | None = None
    proof: Proof = Proof()
    unserved: tuple[str, ...] | None = None
    paused_again: int = 0
    still_active: tuple[RunningJob, ...] = ()
    notes: tuple[str, ...] = ()
    error: str | None = None
    exit_status: int = 0
    command: tuple[str, ...] = ()
    rule: str = ""
    workers: tuple[QueueWorkers, ...] = ()
    prefix: str | None = None
    hint: str = ""
    processes: tuple[ProcessResult, ...] = ()
    begun: bool = True


Step = (
    Planned
    | Paused
    | Waiting
    | TimeUp
    | Drained
    | Restarting
    | Ready
    | RunningCommand
    | CommandDone
    | Resumed
    | Recovered
    | DrainReport
)


def error_text(error: QctlError | None) -> str | None:
    """The error's ``what``, ``why`` and ``hint``, each on its own line; None without an error."""
    if error is None:
        return None
    # The name of a queue may contain line ends.
    what = error.what.replace("\n", "\\n")
    return "\n".join(part for part in (what, error.why, error.hint) if part)
