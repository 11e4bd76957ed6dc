"""The jobs of each queue, active or not, during a drain; kept up to date by the event stream.

Up to ``MAX_IDS`` jobs of a queue are followed by id. In a larger queue, these jobs are a sample, so
the expected number of all jobs is also computed: the count at the start, changed by each event.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from qctl.wire.events import Event, event_order
from qctl.wire.keys import ITERATION_PREFIX, JobKey, QueueKeys
from qctl.wire.read.census import Census
from qctl.wire.states import FINISHED

# At the start, a drain reads at most ``MAX_IDS`` ids of a queue, and ``MAX_IDS_OF_ALL`` in all.
# Events may later double the number of ids.
MAX_IDS = 10_000
MAX_IDS_OF_ALL = 100_000
# The state of a job after an event.
_STATE_AFTER = {
    "added": "waiting",
    "waiting": "waiting",
    "delayed": "delayed",
    "waiting-children": "waiting-children",
    "active": "active",
}
_ENDED = frozenset({"completed", "failed", "removed"})
# Jobs in these states are not counted, so their removal does not change the count.
_NOT_COUNTED = frozenset({*FINISHED, "unknown"})


@dataclass(slots=True)
class QueueJobs:
    """The jobs of one queue.

    Attributes:
        ids: job id → expected state, for each job that is followed by id and has not ended.
        seen: how many jobs are or were in ``ids``.
        max_ids: once ``ids`` holds this many jobs, events add no more.
        is_complete: whether all of the queue's jobs are followed by id.
        begin: the count at the start, taken before ``ids`` were read, but after the drain began to
            follow the queue's events.
        begin_order: the stream position of the last event that ``begin`` includes.
        taken_order: the stream position of the last event when all ids had been read.
        iterations: scheduler → id of its current iteration, the job that the scheduler made last.
        is_disturbed: whether the queue was resumed while ids were read, so some ids may be missing.
        end: the final count, to be set before the last events are read.
        delta: the change in the number of jobs since ``begin``.
        lost_unnamed: how many lost jobs have unknown ids; set by ``prove``.
        cleaned: how many jobs were deleted in bulk; the event of such a deletion names no job.
        replaced: at most this many scheduler iterations were replaced by newer ones. No event
            reports a replacement.
        started: schedulers whose current iteration has started. The next iteration does not
            replace such an iteration.
    """

    ids: dict[str, str]
    seen: int
    max_ids: int
    is_complete: bool
    begin: Census
    begin_order: tuple[int, int]
    taken_order: tuple[int, int]
    iterations: dict[str, str]
    is_disturbed: bool = False
    end: Census | None = None
    delta: int = 0
    lost_unnamed: int = 0
    cleaned: int = 0
    replaced: int = 0
    started: set[str] = field(default_factory=set)

    @property
    def missing(self) -> int:
        """How many fewer jobs there are than the events explain; negative if there are more."""
        end = self.end or self.begin
        return self.begin.job_count + self.delta - end.job_count

    @property
    def is_balanced(self) -> bool:
        """Whether every job is accounted for."""
        return 0 <= self.missing <= self.replaced

    def affects_balance(self, event: Event) -> bool:
        """Whether an event lies between the first and the last count."""
        at = event_order(event.id)
        return at > self.begin_order and (
            self.end is None or at <= event_order(self.end.last_event_id)
        )


class Inventory:
    """The jobs of all queues in one drain.

    Attributes:
        queues: queue → its jobs. Queues whose jobs could not be read are left out.
    """

    def __init__(self) -> None:
        self.queues: dict[QueueKeys, QueueJobs] = {}
        # None until ``moved`` is first called: before that, nobody needs the jobs, which may be
        # millions.
        self._moved: set[JobKey] | None = None

    def begin_active(self, jobs: Iterable[JobKey]) -> None:
        """Add active jobs that are not followed yet."""
        for keys, job_id in jobs:
            queue = self.queues.get(keys)
            if queue is not None and job_id not in queue.ids:
                queue.ids[job_id] = "active"
                queue.seen += 1

    def follow(self, events: Iterable[tuple[QueueKeys, Event]]) -> None:
        """Apply events, in order."""
        for keys, event in events:
            queue = self.queues.get(keys)
            if queue is None:
                continue
            if queue.affects_balance(event):
                _count(queue, event)
            if event.name == "resumed" and event_order(event.id) <= queue.taken_order:
                queue.is_disturbed = True
            job_id = event.job_id
            if job_id is None:
                continue
            if event.name in _ENDED:
                queue.ids.pop(job_id, None)
            elif event.name in _STATE_AFTER:
                if job_id in queue.ids or len(queue.ids) < queue.max_ids:
                    queue.seen += job_id not in queue.ids
                    queue.ids[job_id] = _STATE_AFTER[event.name]
                else:
                    queue.is_complete = False
            if self._moved is not None:
                self._moved.add((keys, job_id))

    def moved(self) -> set[JobKey]:
        """Jobs that had events since the last call; empty at the first call."""
        moved, self._moved = self._moved, set()
        return moved or set()


def _count(queue: QueueJobs, event: Event) -> None:
    """Apply one event to the expected number of jobs that have not ended."""
    name, previous, job_id = event.name, event.fields.get("prev"), event.job_id or ""
    if name == "added":
        queue.delta += 1
        if job_id.startswith(ITERATION_PREFIX):
            scheduler = job_id.rpartition(":")[0]
            queue.replaced += scheduler not in queue.started
            queue.started.discard(scheduler)
            queue.iterations[scheduler] = job_id
    elif name == "active" and job_id.startswith(ITERATION_PREFIX):
        scheduler = job_id.rpartition(":")[0]
        # Ignore an earlier iteration of the scheduler.
        if queue.iterations.get(scheduler) == job_id:
            queue.started.add(scheduler)
    elif name in FINISHED or (name == "removed" and previous not in _NOT_COUNTED):
        queue.delta -= 1
    elif name == "waiting" and previous in FINISHED:
        queue.delta += 1
    elif name in {"waiting", "delayed"} and previous == "unknown" and job_id not in queue.ids:
        # Somebody put a lost job back. A job that was lost before the drain is not in ``begin``, so
        # it must be counted here; otherwise it would hide the loss of another job. A job that was
        # lost during the drain is in ``begin`` already. Here it is counted twice, so one job seems
        # to be missing: a false alarm is safer than a hidden loss.
        queue.delta += 1
    elif name == "cleaned":
        count = event.fields.get("count", "")
        queue.cleaned += int(count) if count.isdecimal() else 0
