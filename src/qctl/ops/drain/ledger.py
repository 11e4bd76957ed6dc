"""The outcome of every job that was active when a drain began, and how long nothing ran.

The event stream is read from the drain's own ``paused`` event on. If no event reports the end of a
job, perhaps because events were trimmed, the job's state is read. All times come from Redis (from
stream ids), so the clocks of other hosts do not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from qctl.wire.events import Event
from qctl.wire.keys import JobKey, QueueKeys
from qctl.wire.read.active import ActiveJob

# The result of a job's run, by the event that ends the run.
_RESULTS = {
    "completed": "completed",
    "failed": "failed",
    "delayed": "retried",
    "waiting-children": "waiting-children",
    "removed": "removed",
}


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """A job that was active, or is lost, and what became of it.

    Args:
        result: ``completed``, ``failed``, ``retried`` (waits for another run),
            ``waiting-children``, ``removed``, ``recovered`` (had lost its worker and was put
            back), ``interrupted`` (its process ended before the job), ``running``, ``orphaned``
            (still active without a worker), ``unknown`` (Redis could not be read, the job's
            events were trimmed, or another library may keep the job where qctl does not look)
            or ``lost``.
        was: the last known state of a lost job.
    """

    queue: str
    id: str
    result: str
    was: str = "active"


class Ledger:
    """Follows the jobs of one drain through the event stream."""

    def __init__(self) -> None:
        self._outcomes: dict[JobKey, str | None] = {}
        self._running: set[JobKey] = set()
        self._interrupted: set[JobKey] = set()
        self._recovered: set[JobKey] = set()
        # Lost job → its last known state.
        self._lost: dict[JobKey, str] = {}
        # Jobs that started after the pause, so they were not active at the pause.
        self._started_since: set[JobKey] = set()
        # Jobs whose outcomes are followed although they were not active at the start.
        self._added: set[JobKey] = set()
        # Jobs that had a lock in their current run.
        self._had_lock: set[JobKey] = set()
        # When each job was last known to run, and when its run ended, by Redis' clock.
        self._last_run_ms: dict[JobKey, int] = {}
        self._ends_ms: dict[JobKey, int] = {}
        self._locks_seen: dict[JobKey, ActiveJob] = {}
        self._read_ms = 0
        self._begun_ms = 0
        self._has_missed = False
        self._is_unmeasured = False
        self._idle_since_ms: int | None = None
        self._backlog_since_ms: int | None = None
        self._longest_idle_ms = 0
        self._now_ms = 0
        self._paused = True

    def begin(self, jobs: Iterable[ActiveJob], *, backlog: int, at_ms: int) -> None:
        """Record the jobs that are active at a pause.

        Args:
            jobs: the active jobs right after the pause.
            backlog: how many jobs wait to run.
            at_ms: Redis' time of the pause.
        """
        self._now_ms = max(self._now_ms, at_ms)
        self._begun_ms = max(self._begun_ms, at_ms)
        for job in jobs:
            self._outcomes.setdefault(job.key, None)
            if not job.is_orphan:
                self._running.add(job.key)
                self._had_lock.add(job.key)
                self._last_run_ms.setdefault(job.key, at_ms)
        # ``begin`` is called for each queue. If any queue has a backlog, jobs wait.
        if backlog:
            self._backlog_since_ms = self._backlog_since_ms or at_ms
        self._idle_since_ms = None if self._running else self._idle_since_ms or at_ms

    def add_jobs(self, jobs: Iterable[JobKey]) -> None:
        """Follow these jobs, too, although they were not active at the start."""
        for job in jobs:
            if job not in self._outcomes:
                self._outcomes[job] = None
                self._added.add(job)

    def note_locks(self, jobs: Iterable[ActiveJob], at_ms: int) -> None:
        """Record the locks of the active jobs.

        If a job has lost its lock, the end of its run is unknown. The time when the job was last
        known to run counts as the end, so that ``idle_s`` is never too short.

        Args:
            at_ms: Redis' time just before the jobs were read.
        """
        for job in jobs:
            if job.key not in self._had_lock:
                continue
            before = self._locks_seen.get(job.key)
            if job.is_orphan:
                self._ended(job.key, self._last_run_ms[job.key])
            elif before is not None and job.was_renewed_since(before):
                # The lock was renewed after the last reading, so the job still ran at that time.
                self.note_running([job.key], self._read_ms)
            self._locks_seen[job.key] = job
        self._read_ms = at_ms

    def note_running(self, jobs: Iterable[JobKey], at_ms: int) -> None:
        """Record that these jobs ran at this time."""
        for job in jobs:
            self._last_run_ms[job] = max(self._last_run_ms.get(job, 0), at_ms)

    def follow(self, events: Iterable[tuple[QueueKeys, Event]]) -> None:
        """Apply events, in order."""
        for keys, event in events:
            self._now_ms = max(self._now_ms, event.at_ms)
            if event.job_id is not None:
                self._follow_job((keys, event.job_id), event)

    def _follow_job(self, job: JobKey, event: Event) -> None:
        if event.name == "active":
            self._started(job, event.at_ms)
            return
        if event.name == "added":
            # The job was added before it was read as active, so its ``active`` event comes later.
            self._running.discard(job)
            return
        if event.name == "delayed" and job not in self._running:
            # The job waits for its run. Only if the job was running does this event end a run.
            return
        left_active = event.fields.get("prev") == "active"
        result = _RESULTS.get(event.name)
        if event.name == "waiting":
            self._backlog_since_ms = self._backlog_since_ms or event.at_ms
            result = "retried" if left_active else None
        if event.name == "stalled" and self._outcomes.get(job) == "retried":
            # A stalled check, by a worker or by qctl, writes "waiting" and then "stalled".
            self._outcomes[job] = "recovered"
            self._note_put_back(job)
        if result is None:
            return
        if self._paused and left_active and job not in self._started_since:
            # The job was active at the pause, even if it ended before the active jobs were read.
            self._outcomes.setdefault(job, None)
        if job in self._outcomes and self._outcomes[job] is None:
            self._outcomes[job] = result
        self._ended(job, event.at_ms)

    def _started(self, job: JobKey, at_ms: int) -> None:
        self._running.add(job)
        if at_ms > self._begun_ms:
            # This run is new, and the lock that was read belongs to the previous run.
            self._had_lock.discard(job)
        if self._paused and job not in self._outcomes:
            # Somebody else has resumed the queue.
            self._started_since.add(job)
        self._longest_idle_ms = self._longest_until(at_ms)
        self._idle_since_ms = None

    def _ended(self, job: JobKey, at_ms: int) -> None:
        if job in self._running:
            self._ends_ms[job] = at_ms
        elif job in self._ends_ms:
            self._ends_ms[job] = min(self._ends_ms[job], at_ms)
        self._running.discard(job)
        # After the resume it is unknown whether jobs still wait, so nothing is measured.
        if self._paused and not self._running and self._ends_ms:
            self._idle_since_ms = max(self._ends_ms.values())

    def _longest_until(self, until_ms: int) -> int:
        """The longest idle time so far, including the current idle time up to ``until_ms``."""
        if self._idle_since_ms is None or self._backlog_since_ms is None:
            return self._longest_idle_ms
        since_ms = max(self._idle_since_ms, self._backlog_since_ms)
        return max(self._longest_idle_ms, until_ms - since_ms)

    def note_interrupted(self, jobs: Iterable[JobKey]) -> None:
        """Record that the process of these jobs ended before the jobs did."""
        for job in jobs:
            self._interrupted.add(job)
            if not self._paused and job in self._running:
                # It is unknown whether the job ran until the resume, or ended before it.
                self._is_unmeasured = True
            self._ended(job, self._last_run_ms.get(job, self._now_ms))

    def _note_put_back(self, job: JobKey) -> None:
        """If a job that was put back had a lock in its last run, record it as interrupted."""
        if job in self._had_lock:
            self.note_interrupted([job])

    def note_recovered(self, jobs: Iterable[JobKey]) -> None:
        """Record that this drain put these jobs back."""
        for job in jobs:
            self._recovered.add(job)
            self._note_put_back(job)

    def settle(self, job: JobKey, result: str) -> None:
        """Record what became of a job whose end no event reports."""
        self._outcomes[job] = result

    def note_resumed(self) -> None:
        """Record the resume. Jobs that start after the resume are not part of this drain."""
        self._paused = False

    @property
    def unsettled(self) -> list[JobKey]:
        """Jobs whose outcome is not known yet."""
        return [job for job, result in self._outcomes.items() if result is None]

    def note_lost(self, job: JobKey, was: str) -> None:
        """Record that a job, last known in state ``was``, is lost."""
        self._lost[job] = was

    def lost_of(self, keys: QueueKeys) -> int:
        """How many jobs of a queue are known to be lost."""
        return sum(job[0] == keys for job in {*self._lost, *self.unsettled})

    def note_missed_events(self) -> None:
        """Record that events may have been trimmed before they were read."""
        self._has_missed = True

    @property
    def active_at_start(self) -> int:
        return len(self._outcomes) - len(self._added)

    @property
    def recovered(self) -> int:
        return len(self._all_recovered)

    @property
    def _all_recovered(self) -> set[JobKey]:
        by_others = {job for job, result in self._outcomes.items() if result == "recovered"}
        return self._recovered | by_others

    @property
    def interrupted(self) -> int:
        return len(self._interrupted)

    def interrupted_under(self, prefix: str) -> int:
        """How many jobs of the queues under a prefix were interrupted."""
        return sum(keys.prefix == prefix for keys, _ in self._interrupted)

    def recovered_under(self, prefix: str) -> int:
        """How many jobs of the queues under a prefix were put back."""
        return sum(keys.prefix == prefix for keys, _ in self._all_recovered)

    def outcomes(
        self, label: Callable[[QueueKeys], str] = lambda keys: keys.name
    ) -> list[JobOutcome]:
        """All followed jobs and all lost jobs. A job that is still unsettled counts as lost.

        Args:
            label: names the queue of a job.
        """
        rows = []
        for (keys, job_id), result in self._outcomes.items():
            job = (keys, job_id)
            final = result or "lost"
            if job in self._lost:
                final = "lost"
            elif job in self._interrupted:
                final = "interrupted"
            elif job in self._recovered:
                final = "recovered"
            rows.append(JobOutcome(label(keys), job_id, final, self._lost.get(job, "active")))
        rest = self._lost.keys() - self._outcomes.keys()
        rows += [JobOutcome(label(job[0]), job[1], "lost", self._lost[job]) for job in sorted(rest)]
        return rows

    def idle_s(self, until_ms: int) -> float | None:
        """The longest time in which nothing ran although jobs waited, in seconds.

        Args:
            until_ms: Redis' time at the end of the drain. An idle time that still lasts counts
                until then.

        Returns:
            None when events are missing, or when the end of a run is unknown.
        """
        if self._has_missed or self._is_unmeasured:
            return None
        return max(self._longest_until(until_ms), 0) / 1000
