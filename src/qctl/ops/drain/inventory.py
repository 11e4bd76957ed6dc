"""The jobs that queues hold during a drain, running or not, kept up to date by the event stream.

Up to ``MAX_IDS`` jobs of a queue are known by their ids. Of larger queues, the ids of some are
known, and how many there must be: the count at the start, and what every event since has changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from qctl.wire.events import Event, event_order
from qctl.wire.keys import JobKey, QueueKeys
from qctl.wire.read.census import Census
from qctl.wire.states import FINISHED

# Ids taken at the beginning: of one queue, and of all queues of a drain together. As many again may
# come with events.
MAX_IDS = 10_000
MAX_IDS_OF_ALL = 100_000
# Events after which a job is in a state, and the name of that state.
_HELD = {
    "added": "waiting",
    "waiting": "waiting",
    "delayed": "delayed",
    "waiting-children": "waiting-children",
    "active": "active",
}
_ENDED = frozenset({"completed", "failed", "removed"})
# Where a removed job was, if it was not one of the jobs counted.
_NOT_COUNTED = frozenset({*FINISHED, "unknown"})
_ITERATION = "repeat:"


@dataclass(frozen=True, slots=True)
class Balance:
    """How a count at the end compares with what it must be by the events.

    Args:
        missing: jobs whose absence no event explains; less than 0 when there are more jobs than the
            events explain.
        replaced: iterations of schedulers that may have been replaced by new ones, which has no
            event.
    """

    missing: int
    replaced: int

    @property
    def agrees(self) -> bool:
        """Whether every job is accounted for."""
        return 0 <= self.missing <= self.replaced


@dataclass(slots=True)
class _Held:
    """One queue."""

    ids: dict[str, str]
    seen: int
    max_ids: int
    is_complete: bool
    begin: Census
    begin_order: tuple[int, int]
    taken_order: tuple[int, int]
    # By scheduler its present iteration, and below those of which it runs or has run: then the next
    # one replaces nothing.
    iterations: dict[str, str]
    is_disturbed: bool = False
    end: Census | None = None
    delta: int = 0
    cleaned: int = 0
    replaced: int = 0
    due: set[str] = field(default_factory=set)

    def counts(self, event: Event) -> bool:
        at = event_order(event.id)
        return at > self.begin_order and (
            self.end is None or at <= event_order(self.end.last_event_id)
        )


class Inventory:
    """The jobs of the queues of one drain."""

    def __init__(self) -> None:
        self._queues: dict[QueueKeys, _Held] = {}
        # Only kept once somebody asks: a roll sees millions of events.
        self._moved: set[JobKey] | None = None

    def begin(
        self, keys: QueueKeys, census: Census, ids: dict[str, str], max_ids: int, taken_id: str
    ) -> None:
        """Begin with a queue.

        Args:
            census: taken before the ids, and after the event from which on events are followed.
            ids: job id → state.
            max_ids: how many were asked for.
            taken_id: the last event when all ids had been read.
        """
        waiting = census.jobs - census.counts["active"]
        self._queues[keys] = _Held(
            ids=ids,
            seen=len(ids),
            max_ids=2 * max_ids,
            is_complete=waiting <= max_ids,
            begin=census,
            begin_order=event_order(census.last_event_id),
            taken_order=event_order(taken_id),
            iterations={job_id.rpartition(":")[0]: job_id for job_id in census.iterations},
        )

    def begin_active(self, jobs: Iterable[JobKey]) -> None:
        """Take in jobs that are active as well."""
        for keys, job_id in jobs:
            held = self._queues.get(keys)
            if held is not None and job_id not in held.ids:
                held.ids[job_id] = "active"
                held.seen += 1

    def follow(self, events: Iterable[tuple[QueueKeys, Event]]) -> None:
        """Take note of events, in order."""
        for keys, event in events:
            held = self._queues.get(keys)
            if held is None:
                continue
            if held.counts(event):
                _count(held, event)
            if event.name == "resumed" and event_order(event.id) <= held.taken_order:
                held.is_disturbed = True
            job_id = event.job_id
            if job_id is None:
                continue
            if event.name in _ENDED:
                held.ids.pop(job_id, None)
            elif event.name in _HELD:
                if job_id in held.ids or len(held.ids) < held.max_ids:
                    held.seen += job_id not in held.ids
                    held.ids[job_id] = _HELD[event.name]
                else:
                    held.is_complete = False
            if self._moved is not None:
                self._moved.add((keys, job_id))

    def moved(self) -> set[JobKey]:
        """Jobs of which there were events since the last call; none at the first call."""
        moved, self._moved = self._moved, set()
        return moved or set()

    def has(self, keys: QueueKeys) -> bool:
        """Whether the queue's jobs are known at all."""
        return keys in self._queues

    def is_complete(self, keys: QueueKeys) -> bool:
        """Whether all of the queue's jobs are known by their ids."""
        return self._queues[keys].is_complete

    def is_disturbed(self, keys: QueueKeys) -> bool:
        """Whether the queue was resumed before its jobs were known: a list may be missing."""
        return self._queues[keys].is_disturbed

    def seen(self, keys: QueueKeys) -> int:
        """How many jobs are or were known by their ids."""
        return self._queues[keys].seen

    def jobs(self, keys: QueueKeys) -> list[JobKey]:
        """The jobs known by their ids that should be in some state now."""
        return [(keys, job_id) for job_id in self._queues[keys].ids]

    def state(self, job: JobKey) -> str | None:
        """The state in which a job was last; None when it has ended or is not known."""
        held = self._queues.get(job[0])
        return held.ids.get(job[1]) if held is not None else None

    def cleaned(self, keys: QueueKeys) -> int:
        """Jobs deleted by events that do not name them."""
        held = self._queues.get(keys)
        return held.cleaned if held is not None else 0

    def end(self, keys: QueueKeys, census: Census) -> None:
        """Compare with this count when the events have been followed up to its last one."""
        self._queues[keys].end = census

    def balance(self, keys: QueueKeys) -> Balance:
        """How the last count compares with what it must be."""
        held = self._queues[keys]
        end = held.end or held.begin
        return Balance(held.begin.jobs + held.delta - end.jobs, held.replaced)


def _count(held: _Held, event: Event) -> None:
    """What one event changes in the number of jobs that have not ended."""
    name, previous, job_id = event.name, event.fields.get("prev"), event.job_id or ""
    if name == "added":
        held.delta += 1
        if job_id.startswith(_ITERATION):
            scheduler = job_id.rpartition(":")[0]
            held.replaced += scheduler not in held.due
            held.due.discard(scheduler)
            held.iterations[scheduler] = job_id
    elif name == "active" and job_id.startswith(_ITERATION):
        scheduler = job_id.rpartition(":")[0]
        # An earlier iteration may run, too.
        if held.iterations.get(scheduler) == job_id:
            held.due.add(scheduler)
    elif name in FINISHED or (name == "removed" and previous not in _NOT_COUNTED):
        held.delta -= 1
    elif name == "waiting" and previous in FINISHED:
        held.delta += 1
    elif name in {"waiting", "delayed"} and previous == "unknown" and job_id not in held.ids:
        # A lost job that was put back. If it was lost during the drain, it was counted already, and
        # one job too many is expected: better than one that stands in for another.
        held.delta += 1
    elif name == "cleaned":
        count = event.fields.get("count", "")
        held.cleaned += int(count) if count.isdecimal() else 0
