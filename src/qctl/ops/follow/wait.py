"""Waiting for a queue or a job to be done, for scripts: what ``qctl wait`` does.

The event stream wakes the wait, a slow look is the net for what it does not tell, such as a lock
that runs out. Nothing is written. A Redis that goes away is sat out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from qctl.errors import (
    FailedError,
    NotFoundError,
    QctlError,
    TimedOutError,
    is_outage,
)
from qctl.ops.processes.suggest import command
from qctl.wire.keys import QueueKeys
from qctl.wire.read.ending import Ending
from qctl.wire.read.snapshot import Counts

# The slow look.
POLL_S = 5.0
# On a busy queue, news come faster than anybody needs to look.
LEAST_PAUSE_S = 0.5
# So long nothing may help a queue whose jobs have all lost their worker, before that is final: a
# worker that lost its connection, or is being restarted, is back by then.
GRACE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look.

    Args:
        outcome: how the wait ends, None while it goes on.
        text: what the outcome rests on, or what is in the way.
        remarks: what keeps it from ending by itself.
        stuck: why it never ends unless somebody does something; empty while it may.
    """

    outcome: str | None
    text: str
    remarks: tuple[str, ...] = ()
    stuck: str = ""
    counts: Counts | None = None
    ending: Ending | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A step: the wait goes on; ``text`` says what is in the way."""

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
            never existed, or ended before the oldest event that is kept), ``gone`` (the queue),
            ``stuck`` (it would never end), ``timeout``.
        text: the same for people.
        counts: of the queue at the end; None when a job was waited for.
        returnvalue, failed_reason: of the job.
    """

    queue: str
    condition: str
    outcome: str
    text: str
    waited_s: float
    counts: Counts | None
    returnvalue: Any
    failed_reason: str | None


class Target(Protocol):
    """What is waited for."""

    keys: QueueKeys
    condition: str

    def look(self) -> Seen: ...

    def news(self, timeout_s: float) -> Seen | None:
        """Return when there is something to look at, or after ``timeout_s``; the end if it is
        told.
        """
        ...


def wait_for(
    target: Target,
    *,
    timeout_s: float | None = None,
    grace_s: float = GRACE_S,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Waiting | WaitReport]:
    """Wait; the last step is the report.

    Args:
        timeout_s: the longest wait in seconds; 0 looks once, None waits for ever.
        grace_s: how long a hopeless state must last to be final.

    Raises:
        QctlError: Redis cannot be reached at the start, or was not when the time ran out.
    """
    began = clock()
    stuck_since: float | None = None
    seen: Seen | None = None
    told: Seen | None = None
    while True:
        trouble: QctlError | None = None
        try:
            seen = told or target.look()
        except QctlError as error:
            if not is_outage(error) or seen is None:
                raise
            trouble, told = error, None
        waited_s = clock() - began
        if seen.outcome is not None and trouble is None:
            yield _report(target, seen, seen.outcome, waited_s)
            return
        is_stuck = bool(seen.stuck) and trouble is None
        if not is_stuck:
            stuck_since = None
        elif stuck_since is None:
            stuck_since = clock()
        if stuck_since is not None and clock() - stuck_since >= grace_s:
            yield _report(target, seen, "stuck", waited_s, text=seen.stuck)
            return
        if timeout_s is not None and waited_s >= timeout_s:
            if trouble is not None:
                raise trouble
            yield _report(target, seen, "timeout", waited_s)
            return
        text = f"{trouble.what}; trying again" if trouble else seen.text
        yield Waiting(
            queue=target.keys.name,
            text=text,
            remarks=seen.remarks if trouble is None else (),
            waited_s=round(waited_s, 1),
        )
        left_s = POLL_S if timeout_s is None else min(POLL_S, timeout_s - waited_s)
        if stuck_since is not None:
            left_s = min(left_s, grace_s)
        told = _news(target, max(left_s, 0.001), is_away=trouble is not None)


def _news(target: Target, timeout_s: float, *, is_away: bool) -> Seen | None:
    if is_away:
        time.sleep(min(timeout_s, LEAST_PAUSE_S))
        return None
    try:
        return target.news(timeout_s)
    except QctlError as error:
        # The look that follows tells of it.
        if not is_outage(error):
            raise
        return None


def _report(
    target: Target, seen: Seen, outcome: str, waited_s: float, *, text: str = ""
) -> WaitReport:
    ending = seen.ending
    return WaitReport(
        queue=target.keys.name,
        condition=target.condition,
        outcome=outcome,
        text=text or seen.text,
        waited_s=round(waited_s, 3),
        counts=seen.counts,
        returnvalue=ending.returnvalue if ending else None,
        failed_reason=ending.failed_reason if ending else None,
    )


def error_of(report: WaitReport, prefix: str) -> QctlError | None:
    """The failure that a report is; None for a success."""
    queue = report.queue
    match report.outcome:
        case "idle" | "empty" | "completed":
            return None
        case "timeout":
            return TimedOutError(
                f"{_wanted(report)} within {report.waited_s:.1f} s",
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


def _wanted(report: WaitReport) -> str:
    kind, _, job_id = report.condition.partition("=")
    if kind == "job":
        return f"job {job_id} of queue {report.queue} was not completed"
    return f"queue {report.queue} was not {report.condition}"
