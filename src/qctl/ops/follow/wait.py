"""Waits until a queue is at rest or a job has ended, for ``qctl wait``.

The condition is checked after each event of the queue, and every few seconds because some changes
have no event, such as a lock that runs out. Nothing is written. An outage of Redis does not end the
wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from qctl.errors import FailedError, NotFoundError, QctlError, TimedOutError, is_outage
from qctl.ops.processes.suggest import command
from qctl.wire.keys import QueueKeys
from qctl.wire.read.ending import Ending
from qctl.wire.read.snapshot import Counts

# The longest and the shortest time between two checks.
POLL_S = 5.0
MIN_PAUSE_S = 0.5
# A wait fails when all remaining jobs have had no worker for this long: by then, a worker that is
# restarting, or has lost its connection, is back.
GRACE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedState:
    """The result of one check of a condition.

    Args:
        outcome: how the wait ends; None while it continues.
        text: the facts behind the outcome, or the jobs that the wait is waiting for.
        remarks: what keeps these jobs from ending, such as a pause.
        stuck: why the wait cannot end by itself; "" if it can.
        counts: those of the queue, for a wait for a queue.
        ending: how the job ended, for a wait for a job.
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
        text: the outcome as a sentence.
        counts: those of the queue at the last check; None for a wait for a job.
        returnvalue, failed_reason: those of the job; None for a wait for a queue.
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


class Condition(Protocol):
    """What to wait for; ``condition`` is its text, as after ``--for``."""

    keys: QueueKeys
    condition: str

    def check(self) -> CheckedState: ...

    def await_event(self, timeout_s: float) -> CheckedState | None:
        """Return after an event, or after ``timeout_s``.

        Returns:
            the last state, if the event itself shows how the job ended; else None: call ``check``.
        """
        ...


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
            outage, from_event = error, None
        waited_s = clock() - began
        if state.outcome is not None and outage is None:
            yield _report(condition, state, state.outcome, waited_s)
            return
        if outage is not None or not state.stuck:
            stuck_since = None
        elif stuck_since is None:
            stuck_since = clock()
        if stuck_since is not None and clock() - stuck_since >= grace_s:
            yield _report(condition, state, "stuck", waited_s, text=state.stuck)
            return
        if timeout_s is not None and waited_s >= timeout_s:
            if outage is not None:
                raise outage
            yield _report(condition, state, "timeout", waited_s)
            return
        text = f"{outage.what}; trying again" if outage else state.text
        yield Waiting(
            queue=condition.keys.name,
            text=text,
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


def _report(
    condition: Condition, state: CheckedState, outcome: str, waited_s: float, *, text: str = ""
) -> WaitReport:
    ending = state.ending
    return WaitReport(
        queue=condition.keys.name,
        condition=condition.condition,
        outcome=outcome,
        text=text or state.text,
        waited_s=round(waited_s, 3),
        counts=state.counts,
        returnvalue=ending.returnvalue if ending else None,
        failed_reason=ending.failed_reason if ending else None,
    )


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
