"""The waits of ``qctl wait``: until a queue is idle or empty, or until a job has ended.

The condition is checked after events. Some changes, such as the expiry of a lock, have no event, so
it is also checked every few seconds. Nothing is written. If Redis is away at the first check or at
the timeout, the wait fails; between the two, it tries again.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from qctl.connection.address import Client
from qctl.errors import (
    FailedError,
    NotFoundError,
    QctlError,
    RefusedError,
    ReplyError,
    TimedOutError,
    is_outage,
)
from qctl.ops.processes.suggest import command
from qctl.ops.queues.advice import NO_CHECK
from qctl.ops.queues.status import count_workers
from qctl.plurals import counted
from qctl.wire.events import STREAM_START, last_event_id, read_events
from qctl.wire.keys import QueueKeys
from qctl.wire.read.ending import Ending, ending_of, read_ending
from qctl.wire.read.snapshot import Counts, QueueSnapshot, read_snapshots
from qctl.wire.schedulers.iterations import pending_delayed

# The longest time between two checks.
POLL_S = 5.0
# The shortest time between two checks of a queue, or between two attempts during an outage.
MIN_PAUSE_S = 0.5
# The wait fails when all remaining jobs have been without a worker for this long. A worker that
# restarts or reconnects is usually back sooner.
GRACE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedState:
    """The result of one check of a condition.

    Args:
        outcome: how the wait ends; None while it continues.
        text: the facts behind the outcome, or the jobs that have not ended yet.
        remarks: what keeps these jobs from ending, such as a pause.
        stuck: why the wait cannot end by itself; "" if it can.
        counts: the queue's counts, in a wait for a queue.
        ending: how the job ended, in a wait for a job.
    """

    outcome: str | None
    text: str
    remarks: tuple[str, ...] = ()
    stuck: str = ""
    counts: Counts | None = None
    ending: Ending | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The wait continues; ``text`` says what it is waiting for."""

    step: ClassVar[str] = "waiting"
    queue: str
    text: str
    remarks: tuple[str, ...]
    waited_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitReport:
    """The end of a wait.

    Args:
        condition: ``idle``, ``empty`` or ``job=ID``.
        outcome: ``idle``, ``empty``, ``completed``; ``failed``, ``removed``, ``missing`` (the job
            never existed, or ended before the oldest event that is kept), ``gone`` (the queue does
            not exist any more), ``stuck`` (the wait would never end), ``timeout``.
        text: the facts behind the outcome.
        counts: the queue's counts at the last check; None in a wait for a job.
        returnvalue, failed_reason: from the job; None in a wait for a queue.
    """

    step: ClassVar[str] = "report"
    queue: str
    condition: str
    outcome: str
    text: str
    waited_s: float
    counts: Counts | None
    returnvalue: Any
    failed_reason: str | None


class Condition(ABC):
    """What to wait for; ``condition`` is the value of the option ``--for``."""

    def __init__(self, client: Client, keys: QueueKeys, condition: str, db: int) -> None:
        self.keys, self.condition = keys, condition
        self._client, self._db = client, db
        self._counted_at = -POLL_S
        self._workers: int | None = None

    @abstractmethod
    def check(self) -> CheckedState: ...

    @abstractmethod
    def await_event(self, timeout_s: float) -> CheckedState | None:
        """Return after an event, or after ``timeout_s``.

        Returns:
            the last state, if the event itself shows how the job ended; None if a check is needed.
        """

    def _count_workers(self, snapshot: QueueSnapshot) -> int | None:
        """How many workers are connected; None if unknown. The count may be ``POLL_S`` old."""
        # A count is slow, because it lists all clients.
        if time.monotonic() - self._counted_at >= POLL_S:
            self._workers = count_workers(
                self._client, self.keys, self._db, snapshot.counts.running
            )
            self._counted_at = time.monotonic()
        return self._workers


def wait_for(
    condition: Condition,
    *,
    timeout_s: float | None = None,
    grace_s: float = GRACE_S,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Waiting | WaitReport]:
    """Wait for the condition; the last step is the report.

    Args:
        timeout_s: the longest wait in seconds; 0 checks once, None waits for ever.
        grace_s: how long a wait must be stuck before it ends as ``stuck``.

    Raises:
        QctlError: Redis is away at the start or when the time runs out, or refuses a command.
    """
    began = clock()
    stuck_since: float | None = None
    state: CheckedState | None = None
    from_event: CheckedState | None = None
    while True:
        outage: QctlError | None = None
        try:
            state = from_event or condition.check()
        except QctlError as error:
            if not is_outage(error) or state is None:
                raise
            outage = error
        waited_s = clock() - began
        if outage is not None or not state.stuck:
            stuck_since = None
        elif stuck_since is None:
            stuck_since = clock()
        outcome, text = state.outcome, state.text
        if outcome is None and stuck_since is not None and clock() - stuck_since >= grace_s:
            outcome, text = "stuck", state.stuck
        elif outcome is None and timeout_s is not None and waited_s >= timeout_s:
            if outage is not None:
                raise outage
            outcome = "timeout"
        if outcome is not None:
            ending = state.ending
            yield WaitReport(
                queue=condition.keys.name,
                condition=condition.condition,
                outcome=outcome,
                text=text,
                waited_s=round(waited_s, 3),
                counts=state.counts,
                returnvalue=ending.returnvalue if ending else None,
                failed_reason=ending.failed_reason if ending else None,
            )
            return
        yield Waiting(
            queue=condition.keys.name,
            text=f"{outage.what}; trying again" if outage else text,
            remarks=state.remarks if outage is None else (),
            waited_s=round(waited_s, 1),
        )
        left_s = POLL_S if timeout_s is None else min(POLL_S, timeout_s - waited_s)
        if stuck_since is not None:
            left_s = min(left_s, grace_s)
        from_event = _next_event(condition, max(left_s, 0.001), is_away=outage is not None)


def _next_event(condition: Condition, timeout_s: float, *, is_away: bool) -> CheckedState | None:
    if is_away:
        time.sleep(min(timeout_s, MIN_PAUSE_S))
        return None
    try:
        return condition.await_event(timeout_s)
    except QctlError as error:
        # The next check reports the outage.
        if not is_outage(error):
            raise
        return None


def error_of(report: WaitReport, prefix: str) -> QctlError | None:
    """The error to raise for a report; None for a success."""
    queue = report.queue
    match report.outcome:
        case "idle" | "empty" | "completed":
            return None
        case "timeout":
            kind, _, job_id = report.condition.partition("=")
            missed = f"queue {queue} was not {kind}"
            if kind == "job":
                missed = f"job {job_id} of queue {queue} was not completed"
            return TimedOutError(
                f"{missed} within {report.waited_s:.1f} s",
                why=report.text,
                hint=command(prefix, "status", queue),
            )
        case "removed" | "missing" | "gone":
            return NotFoundError(report.text, hint=command(prefix, "status", queue))
        case "stuck":
            return FailedError(report.text, hint=command(prefix, "jobs", "retry-stalled", queue))
        case _:
            job_id = report.condition.removeprefix("job=")
            return FailedError(
                f"job {job_id} of queue {queue} failed",
                why=report.failed_reason or "",
                hint=command(prefix, "jobs", "show", queue, job_id),
            )


class QueueCondition(Condition):
    """A queue is ``idle`` or ``empty``.

    Args:
        condition: ``idle`` (nothing is active) or ``empty`` (nothing is waiting, prioritized or
            active).
        include_delayed: ``empty`` also means that no job is delayed or waits for children; the next
            jobs of schedulers do not count.
    """

    def __init__(
        self,
        client: Client,
        keys: QueueKeys,
        condition: str,
        *,
        include_delayed: bool = False,
        db: int = 0,
    ) -> None:
        super().__init__(client, keys, condition, db)
        self._include_delayed = include_delayed
        self._cursor = STREAM_START
        self._checked_at = 0.0

    def check(self) -> CheckedState:
        """Whether the queue is idle or empty now."""
        client, keys = self._client, self.keys
        # The cursor comes first, so that ``await_event`` sees every event after the check.
        self._cursor = last_event_id(client, keys)
        self._checked_at = time.monotonic()
        (snapshot,) = read_snapshots(client, [keys])
        if isinstance(snapshot, ReplyError):
            raise snapshot
        if snapshot is None:
            return CheckedState(outcome="gone", text=f"queue {keys.name} does not exist any more")
        if self.condition == "empty" and snapshot.has_groups:
            raise RefusedError(
                f"it is unknown whether queue {keys.name} is empty",
                why="jobs may wait in its groups of BullMQ Pro, which qctl does not count",
                hint=command(keys.prefix, "wait", keys.name, "--for", "idle"),
            )
        counts = snapshot.counts
        remaining = {"active": counts.active}
        if self.condition == "empty":
            remaining |= {"waiting": counts.waiting, "prioritized": counts.prioritized}
            if self._include_delayed:
                remaining["waiting for children"] = counts.waiting_children
                delayed = counts.delayed
                if delayed and snapshot.schedulers and not any(remaining.values()):
                    # Done only if nothing else is left, because this reads every scheduler.
                    delayed -= pending_delayed(client, keys)
                remaining["delayed"] = delayed
        if not any(number > 0 for number in remaining.values()):
            return CheckedState(outcome=self.condition, text=_at_rest(counts), counts=counts)
        workers = self._count_workers(snapshot)
        stuck = ""
        if workers == 0 and counts.stalled and counts.stalled >= sum(remaining.values()):
            stuck = (
                f"{counted(counts.stalled, 'job')} of queue {keys.name} lost the worker, and no "
                "worker is connected that would put them back: the wait would never end"
            )
        return CheckedState(
            outcome=None,
            text=_listed(remaining),
            remarks=_obstacles(snapshot, workers, self.condition),
            stuck=stuck,
            counts=counts,
        )

    def await_event(self, timeout_s: float) -> CheckedState | None:
        """Return after any event, but at least ``MIN_PAUSE_S`` after the last check."""
        read_events(
            self._client, {self.keys: self._cursor}, block_ms=max(int(timeout_s * 1000), 1), count=1
        )
        pause_s = self._checked_at + MIN_PAUSE_S - time.monotonic()
        if pause_s > 0:
            time.sleep(min(pause_s, timeout_s))
        return None


class JobCondition(Condition):
    """A job has ended; only ``completed`` is a success."""

    def __init__(self, client: Client, keys: QueueKeys, job_id: str, *, db: int = 0) -> None:
        super().__init__(client, keys, f"job={job_id}", db)
        self._id = job_id
        self._cursors: dict[QueueKeys, str] = {}

    def check(self) -> CheckedState:
        """How the job ended, or its state."""
        client, keys = self._client, self.keys
        if not self._cursors:
            # The cursor comes first, so that ``await_event`` sees every event after the check.
            self._cursors[keys] = last_event_id(client, keys)
        ending = read_ending(client, keys, self._id)
        if ending.is_final:
            return self._ended(ending)
        (snapshot,) = read_snapshots(client, [keys])
        remarks: tuple[str, ...] = ()
        state = ending.state
        if isinstance(snapshot, QueueSnapshot) and state != "active":
            # ``read_ending`` reports an active job without a lock as waiting.
            if self._id in snapshot.stalled_ids:
                state = "active, but stalled: its worker is gone"
            remarks = _obstacles(snapshot, self._count_workers(snapshot), "job")
        return CheckedState(outcome=None, text=f"job {self._id} is {state}", remarks=remarks)

    def await_event(self, timeout_s: float) -> CheckedState | None:
        """Return after an event of the job, other than ``progress``."""
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            events = read_events(self._client, self._cursors, block_ms=max(int(left_s * 1000), 1))
            mine = [event for _, event in events if event.job_id == self._id]
            for event in mine:
                if (ending := ending_of(event)) is not None:
                    return self._ended(ending)
            if any(event.name != "progress" for event in mine):
                return None
        return None

    def _ended(self, ending: Ending) -> CheckedState:
        name, job = self.keys.name, f"job {self._id}"
        text = f"{job} {ending.state}"
        if ending.state == "removed":
            text = f"{job} of queue {name} was removed before it had ended"
        elif ending.state == "missing":
            text = (
                f"no {job} in queue {name}: it never existed, was removed without an event, or "
                "ended before the oldest event that is kept"
            )
        return CheckedState(outcome=ending.state, text=text, ending=ending)


def _at_rest(counts: Counts) -> str:
    left = {
        "waiting": counts.waiting,
        "prioritized": counts.prioritized,
        "delayed": counts.delayed,
        "waiting for children": counts.waiting_children,
    }
    return f"nothing is active; {_listed(left) or 'nothing'} left"


def _listed(numbers: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {what}" for what, number in numbers.items() if number > 0)


def _obstacles(snapshot: QueueSnapshot, workers: int | None, condition: str) -> tuple[str, ...]:
    """What keeps the jobs from ending.

    The texts have no numbers, because a text that differs from the last one is shown again.
    """
    found = []
    keys = snapshot.keys
    if snapshot.paused and condition != "idle":
        by = f" by {snapshot.pause_note}" if snapshot.pause_note else ""
        resume = command(keys.prefix, "resume", keys.name)
        found.append(f"queue {keys.name} is paused{by}: waiting jobs run after `{resume}`")
    if workers == 0:
        found.append(f"no worker of queue {keys.name} is connected")
    if snapshot.counts.stalled and workers is None:
        found.append(
            "active jobs have lost their worker, and it is unknown whether another is connected: "
            "CLIENT LIST does not show it"
        )
    elif snapshot.counts.stalled and workers and snapshot.stalled_clock.ran_recently:
        found.append("active jobs have lost their worker; other workers will put them back")
    elif snapshot.counts.stalled and workers:
        retry = command(keys.prefix, "jobs retry-stalled", keys.name)
        found.append(
            "active jobs have lost their worker, and it is unknown whether another one puts them "
            f"back: {NO_CHECK}; `{retry}` puts them back"
        )
    return tuple(found)
