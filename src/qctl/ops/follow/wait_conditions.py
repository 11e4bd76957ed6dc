"""The conditions of ``qctl wait``: a queue is at rest, or a job has ended."""

from __future__ import annotations

import time

from qctl.connection.address import Client
from qctl.errors import ReplyError
from qctl.ops.follow.wait import MIN_PAUSE_S, POLL_S, CheckedState
from qctl.ops.processes.suggest import command
from qctl.ops.queues.advice import NO_CHECK
from qctl.ops.queues.status import count_workers
from qctl.plurals import counted
from qctl.wire.events import STREAM_START, last_event_id, read_events
from qctl.wire.keys import QueueKeys
from qctl.wire.read.ending import Ending, ending_of, read_ending
from qctl.wire.read.snapshot import Counts, QueueSnapshot, read_snapshots
from qctl.wire.schedulers.iterations import pending_delayed


class _Condition:
    def __init__(self, client: Client, keys: QueueKeys, condition: str, db: int) -> None:
        self.keys, self.condition = keys, condition
        self._client, self._db = client, db
        self._counted_at = -POLL_S
        self._workers: int | None = None

    def _count_workers(self) -> int | None:
        """How many workers are connected; None if unknown. The count may be ``POLL_S`` old."""
        # A count is slow, because it lists all clients.
        if time.monotonic() - self._counted_at >= POLL_S:
            self._workers = count_workers(self._client, self.keys, self._db)
            self._counted_at = time.monotonic()
        return self._workers


class QueueCondition(_Condition):
    """A queue is ``idle`` or ``empty``.

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
        super().__init__(client, keys, condition, db)
        self._include_delayed = include_delayed
        self._cursor = STREAM_START
        self._checked_at = 0.0

    def check(self) -> CheckedState:
        """Whether the queue is at rest now."""
        client, keys = self._client, self.keys
        # The cursor comes first, so that ``await_event`` sees every event after the check.
        self._cursor = last_event_id(client, keys)
        self._checked_at = time.monotonic()
        (snapshot,) = read_snapshots(client, [keys])
        if isinstance(snapshot, ReplyError):
            raise snapshot
        if snapshot is None:
            return CheckedState(outcome="gone", text=f"queue {keys.name} does not exist any more")
        counts = snapshot.counts
        remaining = {"active": counts.active}
        if self.condition == "empty":
            remaining |= {"waiting": counts.waiting, "prioritized": counts.prioritized}
            if self._include_delayed:
                remaining["waiting for children"] = counts.waiting_children
                delayed = counts.delayed
                if delayed and snapshot.schedulers and not any(remaining.values()):
                    # Only if nothing else is left, because this reads every scheduler.
                    delayed -= pending_delayed(client, keys)
                remaining["delayed"] = delayed
        if not any(number > 0 for number in remaining.values()):
            return CheckedState(outcome=self.condition, text=_at_rest(counts), counts=counts)
        workers = self._count_workers()
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
        """Return after any event."""
        read_events(
            self._client, {self.keys: self._cursor}, block_ms=max(int(timeout_s * 1000), 1), count=1
        )
        pause_s = self._checked_at + MIN_PAUSE_S - time.monotonic()
        if pause_s > 0:
            time.sleep(min(pause_s, timeout_s))
        return None


class JobCondition(_Condition):
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
            if self._id in snapshot.stalled_ids:
                state = "active, but stalled: its worker is gone"
            remarks = _obstacles(snapshot, self._count_workers(), "job")
        return CheckedState(outcome=None, text=f"job {self._id} is {state}", remarks=remarks)

    def await_event(self, timeout_s: float) -> CheckedState | None:
        """Return after an event of the job."""
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
    """What keeps the jobs from ending; without numbers, so that no text is shown twice."""
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
            "active jobs have lost their worker, and whether another is connected is unknown: "
            "Redis does not answer CLIENT LIST"
        )
    elif snapshot.counts.stalled and workers and snapshot.stalled_clock.ran_recently:
        found.append("active jobs have lost their worker; other workers will put them back")
    elif snapshot.counts.stalled and workers:
        retry = command(keys.prefix, "jobs retry-stalled", keys.name)
        found.append(
            "active jobs have lost their worker, and whether another one puts them back is "
            f"unknown: {NO_CHECK}; `{retry}` puts them back"
        )
    return tuple(found)
