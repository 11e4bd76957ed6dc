"""Waiting for a queue or a job to be done, for scripts: what ``qctl wait`` does.

The event stream wakes the wait, a slow look is the net for what it does not tell, such as a lock
that runs out. Nothing is written. A Redis that goes away is sat out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from qctl.connect import Client
from qctl.errors import (
    ExitStatus,
    FailedError,
    NotFoundError,
    QctlError,
    ReplyError,
    TimedOutError,
)
from qctl.ops.inspect import connected_workers
from qctl.ops.lookup import command
from qctl.wire.ending import Ending, ending_told, read_ending
from qctl.wire.events import last_event_id, read_events
from qctl.wire.iterations import pending_delayed
from qctl.wire.keys import QueueKeys
from qctl.wire.snapshot import Counts, QueueSnapshot, read_snapshots

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
            if error.exit_status != ExitStatus.UNREACHABLE or seen is None:
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
        if error.exit_status != ExitStatus.UNREACHABLE:
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


class _Workers:
    """How many workers of a queue are connected, asked once a while: it lists all clients."""

    def __init__(self, client: Client, keys: QueueKeys, db: int) -> None:
        self._client, self._keys, self._db = client, keys, db
        self._asked_at = -POLL_S
        self._count: int | None = None

    def count(self) -> int | None:
        """None when Redis does not tell."""
        if time.monotonic() - self._asked_at >= POLL_S:
            keys = self._keys
            workers = connected_workers(self._client, keys.prefix, [keys.name], self._db)
            # Workers of the other queues of this prefix are among them.
            mine = None if workers is None else [w for w in workers if w.queue == keys.name]
            self._count = None if mine is None else len(mine)
            self._asked_at = time.monotonic()
        return self._count


class QueueTarget:
    """A queue that is to become ``idle`` or ``empty``.

    Args:
        condition: ``idle``: nothing is active; ``empty``: nothing is waiting, prioritized or
            active.
        include_delayed: ``empty`` also needs nothing to be delayed or waiting for children; the
            next jobs of schedulers do not count.
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
        self.keys, self.condition = keys, condition
        self._client = client
        self._include_delayed = include_delayed
        self._workers = _Workers(client, keys, db)
        self._cursor = "0-0"
        self._looked_at = 0.0

    def look(self) -> Seen:
        """Whether it is so now."""
        client, keys = self._client, self.keys
        # Before the look: what happens from here on is news.
        self._cursor = last_event_id(client, keys)
        self._looked_at = time.monotonic()
        (snapshot,) = read_snapshots(client, [keys])
        if isinstance(snapshot, ReplyError):
            raise snapshot
        if snapshot is None:
            return Seen(outcome="gone", text=f"queue {keys.name} does not exist any more")
        counts = snapshot.counts
        in_the_way = {"active": counts.active}
        if self.condition == "empty":
            in_the_way |= {"waiting": counts.waiting, "prioritized": counts.prioritized}
            if self._include_delayed:
                in_the_way["delayed"] = counts.delayed - self._of_schedulers(snapshot)
                in_the_way["waiting for children"] = counts.waiting_children
        if not any(number > 0 for number in in_the_way.values()):
            return Seen(outcome=self.condition, text=_at_rest(counts), counts=counts)
        workers = self._workers.count()
        return Seen(
            outcome=None,
            text=_listed(in_the_way),
            remarks=_hindrances(snapshot, workers, self.condition),
            stuck=self._stuck(snapshot, workers, in_the_way),
            counts=counts,
        )

    def _of_schedulers(self, snapshot: QueueSnapshot) -> int:
        return pending_delayed(self._client, self.keys) if snapshot.schedulers else 0

    def _stuck(
        self, snapshot: QueueSnapshot, workers: int | None, in_the_way: dict[str, int]
    ) -> str:
        stalled = snapshot.counts.stalled
        if workers != 0 or not stalled or stalled < sum(in_the_way.values()):
            return ""
        return (
            f"{_jobs(stalled)} of queue {self.keys.name} lost the worker, and none is connected "
            "to take up what it had: this would never end"
        )

    def news(self, timeout_s: float) -> Seen | None:
        """Any event is news; they are not read, only noticed."""
        read_events(
            self._client, {self.keys: self._cursor}, block_ms=max(int(timeout_s * 1000), 1), count=1
        )
        pause_s = self._looked_at + LEAST_PAUSE_S - time.monotonic()
        if pause_s > 0:
            time.sleep(min(pause_s, timeout_s))
        return None


class JobTarget:
    """A job that is to be completed."""

    def __init__(self, client: Client, keys: QueueKeys, job_id: str, *, db: int = 0) -> None:
        self.keys, self.condition = keys, f"job={job_id}"
        self._client, self._id = client, job_id
        self._workers = _Workers(client, keys, db)
        self._cursors: dict[QueueKeys, str] = {}

    def look(self) -> Seen:
        """How it ended, or where it is."""
        client, keys = self._client, self.keys
        if not self._cursors:
            # Before the look: what happens from here on is followed.
            self._cursors[keys] = last_event_id(client, keys)
        ending = read_ending(client, keys, self._id)
        if ending.is_final:
            return self._ended(ending)
        (snapshot,) = read_snapshots(client, [keys])
        remarks: Sequence[str] = ()
        state = ending.state
        if isinstance(snapshot, QueueSnapshot) and state != "active":
            if self._id in snapshot.stalled_ids:
                state = "active, but stalled: its worker is gone"
            remarks = _hindrances(snapshot, self._workers.count(), "job")
        return Seen(outcome=None, text=f"job {self._id} is {state}", remarks=tuple(remarks))

    def news(self, timeout_s: float) -> Seen | None:
        """Events are followed until one is about the job."""
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            events = read_events(self._client, self._cursors, block_ms=max(int(left_s * 1000), 1))
            mine = [event for _, event in events if event.job_id == self._id]
            for event in mine:
                if (ending := ending_told(event)) is not None:
                    return self._ended(ending)
            if any(event.name != "progress" for event in mine):
                return None
        return None

    def _ended(self, ending: Ending) -> Seen:
        name, job = self.keys.name, f"job {self._id}"
        text = f"{job} {ending.state}"
        if ending.state == "removed":
            text = f"{job} of queue {name} was removed before it had ended"
        elif ending.state == "missing":
            text = (
                f"no {job} in queue {name}: it never existed, was removed without an event, or "
                "ended before the oldest event that is kept"
            )
        return Seen(outcome=ending.state, text=text, ending=ending)


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


def _jobs(number: int) -> str:
    return "1 job" if number == 1 else f"{number:,} jobs"


def _hindrances(snapshot: QueueSnapshot, workers: int | None, condition: str) -> tuple[str, ...]:
    """What keeps the queue from getting done; without numbers, so that each is told once."""
    found = []
    keys = snapshot.keys
    if snapshot.paused and condition != "idle":
        by = f" by {snapshot.pause_note}" if snapshot.pause_note else ""
        resume = command(keys.prefix, "resume", keys.name)
        found.append(f"queue {keys.name} is paused{by}: what waits runs after `{resume}`")
    if workers == 0:
        found.append(f"no worker of queue {keys.name} is connected")
    if snapshot.counts.stalled and workers != 0:
        found.append("some active jobs have no worker any more: the other workers take them up")
    return tuple(found)
