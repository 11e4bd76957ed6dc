"""Counts and durations of the jobs that finish while qctl follows the queues' events.

A queue's event stream keeps about 10,000 events (wire format P1), which is plenty for a reader that
comes every few seconds. Events that were trimmed before they were read are counted as gaps.
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
# Queues in one read, and events in its reply: below 5 ms of Redis' time.
_BATCH = 100
_MAX_EVENTS = 2000
# Reads of one batch in a row before the next batch has its turn.
_MAX_READS = 50
# Events after which an attempt has begun or ended.
_MOVES = frozenset(
    {"active", "completed", "failed", "waiting", "delayed", "waiting-children", "stalled"}
)
# Running jobs whose start is kept in memory.
_MAX_STARTS = 200_000


@dataclass(slots=True)
class FinishedFigures:
    """What has happened in one queue, or in all beyond the limit, since the follower began.

    Args:
        stalls: how often a job was found stalled.
        gaps: how often events may have been trimmed before they were read.
        buckets: jobs by the duration of their last attempt: one count for each of ``BUCKETS_S``,
            and one for what is longer. Only jobs whose start was seen, too.
        duration_sum_s: of the same jobs.
    """

    queue: str
    completed: int = 0
    failed: int = 0
    stalls: int = 0
    gaps: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    duration_sum_s: float = 0.0


class FinishedJobs:
    """Follows the events of queues and counts. One thread polls, any thread may ask for figures.

    Args:
        labels: the label under which each queue is counted.
    """

    def __init__(self, client: Client, prefix: str, labels: QueueLabels) -> None:
        self._client = client
        self._prefix = prefix
        self._labels = labels
        self._cursors: dict[QueueKeys, str] = {}
        self._broken: set[QueueKeys] = set()
        self._begin_id = ""
        self._starts: dict[tuple[QueueKeys, str], int] = {}
        self._figures: dict[str, FinishedFigures] = {}
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Count from now on, by Redis' clock, also in queues that are made later.

        Raises:
            UnreachableError: Redis is away.
        """
        self._begin_id = previous_id(f"{clock_ms(self._client)}-0")

    def poll(self, queues: Iterable[str]) -> None:
        """Count the new events.

        Args:
            queues: names of the queues that exist. All others are forgotten.

        Raises:
            UnreachableError: Redis is away. The next poll goes on where this one ended.
        """
        existing = [QueueKeys(self._prefix, name) for name in queues]
        self._forget_all_but(set(existing))
        for keys in existing:
            if keys not in self._broken and keys not in self._cursors:
                self._cursors[keys] = self._begin_id
                with self._lock:
                    # Exported from 0 on, so that Prometheus sees the first increase.
                    self._tally(keys)
        known = list(self._cursors)
        for start in range(0, len(known), _BATCH):
            self._note_gaps(known[start : start + _BATCH])
            self._follow(known[start : start + _BATCH])

    def run(
        self,
        queues: Callable[[], Iterable[str]],
        stop: Callable[[], bool],
        failed: Callable[[], None],
    ) -> None:
        """Poll until ``stop``, also while Redis is away.

        Args:
            queues: gives the names of the queues that exist, before each poll.
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
        """The counts so far, of the queues that are followed."""
        with self._lock:
            return tuple(
                replace(row, buckets=[*row.buckets], duration_sum_s=round(row.duration_sum_s, 3))
                for _, row in sorted(self._figures.items())
            )

    def _forget_all_but(self, existing: set[QueueKeys]) -> None:
        for gone in self._cursors.keys() - existing:
            del self._cursors[gone]
        self._broken &= existing
        # The sum of the others keeps its part of a queue that is gone.
        kept = {keys.name for keys in existing} | {OTHER}
        with self._lock:
            for name in self._figures.keys() - kept:
                del self._figures[name]

    def _note_gaps(self, batch: Sequence[QueueKeys]) -> None:
        # Without an event since we began, nothing can have been missed.
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
            before = {keys: self._cursors[keys] for keys in behind}
            events = self._read(before, count)
            with self._lock:
                for keys, event in events:
                    self._count(keys, event)
            self._cursors.update(before)
            read = [keys for keys, _ in events]
            behind = [keys for keys in behind if read.count(keys) >= count]

    def _read(self, cursors: dict[QueueKeys, str], count: int) -> list[tuple[QueueKeys, Event]]:
        """New events. A stream that cannot be read is not read again."""
        try:
            return read_events(self._client, cursors, count=count)
        except ReplyError as error:
            if is_outage(error):
                raise
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
        label = self._labels.of(keys.name)
        return self._figures.setdefault(label, FinishedFigures(label))

    def _count(self, keys: QueueKeys, event: Event) -> None:
        if event.job_id is None or event.name not in _MOVES:
            return
        job = (keys, event.job_id)
        # Any of these events ends the attempt that had begun.
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
