"""Counts and durations of the jobs that finish while qctl follows the queues' events.

A queue's event stream keeps about 10,000 events (wire format P1), so it is enough to read the
stream every few seconds. If events may have been trimmed before they were read, a gap is counted.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from qctl.connection.address import Client
from qctl.errors import QctlError, ReplyError, is_outage
from qctl.ops.metrics.reading import OTHER, QueueLabels
from qctl.wire.events import Event, first_event_ids, has_missed, previous_id, read_events
from qctl.wire.keys import QueueKeys
from qctl.wire.read.server import clock_ms

# Upper bounds of the histogram's buckets, in seconds.
BUCKETS_S = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0)
POLL_S = 2.0
_STOP_POLL_S = 0.1
# The most queues in one read, and the most events in its reply. A read takes Redis less than 5 ms.
_BATCH = 100
_MAX_EVENTS = 2000
# After this many reads of one batch of queues, the next batch is read.
_MAX_READS = 50
# Events at the beginning or the end of an attempt.
_ATTEMPT_EVENTS = frozenset(
    {"active", "completed", "failed", "waiting", "delayed", "waiting-children", "stalled"}
)
# How many starts of running jobs are kept in memory. The oldest are forgotten first.
_MAX_STARTS = 200_000


@dataclass(slots=True)
class FinishedFigures:
    """What was counted so far for one queue, or for all queues with the label ``(other)``.

    Args:
        stalls: how often a job was found stalled.
        gaps: how often events may have been trimmed before they were read, or a stream could not
            be read.
        buckets: finished jobs by the duration of their last attempt: one count for each of
            ``BUCKETS_S``, and one for longer attempts. Jobs whose start was not seen are left out.
        duration_sum_s: the sum of these durations.
    """

    queue: str
    prefix: str
    completed: int = 0
    failed: int = 0
    stalls: int = 0
    gaps: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    duration_sum_s: float = 0.0


class FinishedJobs:
    """Counts the events of queues, by label. One thread polls; any thread may call ``figures``."""

    def __init__(self, client: Client, labels: QueueLabels) -> None:
        self._client = client
        self._labels = labels
        self._cursors: dict[QueueKeys, str] = {}
        self._broken: set[QueueKeys] = set()
        self._begin_id = ""
        self._starts: dict[tuple[QueueKeys, str], int] = {}
        self._figures: dict[QueueKeys, FinishedFigures] = {}
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Count events from now on (by Redis' clock), including events of queues created later.

        Raises:
            QctlError: Redis is away or refuses the command.
        """
        self._begin_id = previous_id(f"{clock_ms(self._client)}-0")

    def poll(self, queues: Iterable[QueueKeys]) -> None:
        """Count the new events of ``queues``, and forget all other queues, which are gone.

        Raises:
            QctlError: Redis is away or refuses a command. The next poll continues where this one
                stopped.
        """
        existing = list(queues)
        self._forget_all_but(set(existing))
        for keys in existing:
            if keys not in self._broken and keys not in self._cursors:
                self._cursors[keys] = self._begin_id
                with self._lock:
                    # Export the 0, so that Prometheus sees the first increase.
                    self._tally(keys)
        known = list(self._cursors)
        for start in range(0, len(known), _BATCH):
            self._note_gaps(known[start : start + _BATCH])
            self._follow(known[start : start + _BATCH])

    def run(
        self,
        queues: Callable[[], Iterable[QueueKeys]],
        stop: Callable[[], bool],
        failed: Callable[[], None],
    ) -> None:
        """Poll until ``stop`` returns True, even while Redis is away.

        Args:
            queues: returns the queues that exist; called before each poll.
            failed: called after each poll that failed.
        """
        while not stop():
            try:
                if not self._begin_id:
                    self.begin()
                self.poll(queues())
            except QctlError:
                failed()
            deadline = time.monotonic() + POLL_S
            while time.monotonic() < deadline and not stop():
                time.sleep(_STOP_POLL_S)

    def figures(self) -> tuple[FinishedFigures, ...]:
        """The counts so far, by label."""
        with self._lock:
            return tuple(
                replace(row, buckets=[*row.buckets], duration_sum_s=round(row.duration_sum_s, 3))
                for _, row in sorted(self._figures.items())
            )

    def _forget_all_but(self, existing: set[QueueKeys]) -> None:
        for gone in self._cursors.keys() - existing:
            del self._cursors[gone]
        self._broken &= existing
        # (other) keeps the counts of queues that are gone, because a counter must not fall.
        with self._lock:
            for gone in self._figures.keys() - existing - {OTHER}:
                del self._figures[gone]

    def _note_gaps(self, batch: Sequence[QueueKeys]) -> None:
        # Before a queue's first event, the cursor is not an event's id and cannot show a gap.
        followed = [keys for keys in batch if self._cursors[keys] != self._begin_id]
        if not followed:
            return
        starts = first_event_ids(self._client, followed)
        with self._lock:
            for keys, start in zip(followed, starts, strict=True):
                if has_missed(self._cursors[keys], start):
                    self._tally(keys).gaps += 1

    def _follow(self, batch: Sequence[QueueKeys]) -> None:
        behind = list(batch)
        for _ in range(_MAX_READS):
            if not behind:
                return
            count = max(_MAX_EVENTS // len(behind), 1)
            cursors = {keys: self._cursors[keys] for keys in behind}
            events = self._read(cursors, count)
            with self._lock:
                for keys, event in events:
                    self._count(keys, event)
            self._cursors.update(cursors)
            read = [keys for keys, _ in events]
            behind = [keys for keys in behind if read.count(keys) >= count]

    def _read(self, cursors: dict[QueueKeys, str], count: int) -> list[tuple[QueueKeys, Event]]:
        """The new events; moves ``cursors``. A stream that Redis refuses is not read again."""
        try:
            return read_events(self._client, cursors, count=count)
        except ReplyError as error:
            if is_outage(error):
                raise
        # Read each stream on its own, to find the one that Redis refuses.
        if len(cursors) > 1:
            events = []
            for keys in list(cursors):
                own = {keys: cursors.pop(keys)}
                events += self._read(own, count)
                cursors.update(own)
            return events
        (keys,) = cursors
        del cursors[keys], self._cursors[keys]
        self._broken.add(keys)
        with self._lock:
            self._tally(keys).gaps += 1
        return []

    def _tally(self, keys: QueueKeys) -> FinishedFigures:
        label = self._labels.of(keys)
        return self._figures.setdefault(label, FinishedFigures(label.name, label.prefix))

    def _count(self, keys: QueueKeys, event: Event) -> None:
        if event.job_id is None or event.name not in _ATTEMPT_EVENTS:
            return
        job = (keys, event.job_id)
        # Each of these events ends the job's current attempt, if there is one.
        started_ms = self._starts.pop(job, None)
        if event.name == "active":
            if len(self._starts) >= _MAX_STARTS:
                del self._starts[next(iter(self._starts))]
            self._starts[job] = event.at_ms
        elif event.name == "stalled":
            self._tally(keys).stalls += 1
        elif event.name in {"completed", "failed"}:
            tally = self._tally(keys)
            if event.name == "completed":
                tally.completed += 1
            else:
                tally.failed += 1
            if started_ms is not None:
                duration_s = max(event.at_ms - started_ms, 0) / 1000
                tally.buckets[bisect_left(BUCKETS_S, duration_s)] += 1
                tally.duration_sum_s += duration_s
