"""Counts and durations of the jobs that finish while somebody follows the queues' events.

An event stream keeps about 10,000 events of a queue (wire format P1). Followed every few seconds
that is plenty; events that were cut off before they were read show as gaps.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from qctl.connection.address import Client
from qctl.errors import QctlError, ReplyError, is_outage
from qctl.ops.metrics.reading import OTHER, Names
from qctl.wire.events import Event, read_events
from qctl.wire.keys import QueueKeys
from qctl.wire.read.missed_events import has_missed, read_stream_starts
from qctl.wire.read.server import clock_ms

# Upper bounds of the histogram's buckets, in seconds.
BUCKETS_S = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0)
# Between two looks at the streams, and between two looks at whether to stop.
POLL_S = 2.0
_HEAR_S = 0.1
# Queues in one read, and events in its answer: below 5 ms of Redis' time.
_BATCH = 100
_MOST_EVENTS = 2000
# Reads of one batch in a row, before the other queues and the clock have their turn.
_MOST_READS = 50
# Events of a job that begins or ends to run.
_MOVES = frozenset(
    {"active", "completed", "failed", "waiting", "delayed", "waiting-children", "stalled"}
)
# Running jobs whose start is remembered.
_MOST_STARTS = 200_000


@dataclass(frozen=True, slots=True)
class FinishedFigures:
    """What has happened in one queue, or in all beyond the limit, since following began.

    Args:
        stalls: times a job was found stalled.
        gaps: times that events may have been cut off before they were read.
        buckets: jobs by how long their last attempt ran, one more than ``BUCKETS_S``: the last one
            holds what is longer. Only jobs whose start was seen too.
        duration_sum_s: of the same jobs.
    """

    queue: str
    completed: int
    failed: int
    stalls: int
    gaps: int
    buckets: tuple[int, ...]
    duration_sum_s: float


@dataclass
class _Tally:
    completed: int = 0
    failed: int = 0
    stalls: int = 0
    gaps: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    duration_sum_s: float = 0.0


class Finished:
    """Follows the events of queues and counts. One thread polls, any may ask for the figures.

    Args:
        names: under which name each queue is counted.
    """

    def __init__(self, client: Client, prefix: str, names: Names) -> None:
        self._client = client
        self._prefix = prefix
        self._names = names
        self._cursors: dict[QueueKeys, str] = {}
        self._broken: set[QueueKeys] = set()
        self._begin_id = ""
        self._starts: dict[tuple[QueueKeys, str], int] = {}
        self._tallies: dict[str, _Tally] = {}
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Count from now on, by Redis' clock, also in queues that become known later.

        Raises:
            UnreachableError: Redis is away.
        """
        # The last id there can be before this millisecond.
        self._begin_id = f"{clock_ms(self._client) - 1}-{2**64 - 1}"

    def poll(self, queues: Iterable[str]) -> None:
        """Count what is new.

        Args:
            queues: names of the queues there are. All others are forgotten.

        Raises:
            UnreachableError: Redis is away; nothing is lost but what its streams cut off.
        """
        there = [QueueKeys(self._prefix, name) for name in queues]
        self._forget_all_but(set(there))
        for keys in there:
            if keys not in self._broken and keys not in self._cursors:
                self._cursors[keys] = self._begin_id
                with self._lock:
                    # A counter that is told from 0 on shows its first step too.
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
        """Begin, and poll until ``stop``; sits out whatever is wrong with Redis.

        Args:
            queues: names of the queues there are, asked before each poll.
            failed: told of each look that failed.
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
                time.sleep(_HEAR_S)

    def figures(self) -> tuple[FinishedFigures, ...]:
        """The counts so far, of the queues that are followed."""
        with self._lock:
            return tuple(
                FinishedFigures(
                    name,
                    tally.completed,
                    tally.failed,
                    tally.stalls,
                    tally.gaps,
                    tuple(tally.buckets),
                    round(tally.duration_sum_s, 3),
                )
                for name, tally in sorted(self._tallies.items())
            )

    def _forget_all_but(self, there: set[QueueKeys]) -> None:
        for gone in self._cursors.keys() - there:
            del self._cursors[gone]
        self._broken &= there
        # What the others came to stays in their sum.
        told = {keys.name for keys in there} | {OTHER}
        with self._lock:
            for name in self._tallies.keys() - told:
                del self._tallies[name]

    def _note_gaps(self, batch: Sequence[QueueKeys]) -> None:
        # A stream that has had no event yet, or none since we began, has lost none.
        followed = [keys for keys in batch if self._cursors[keys] != self._begin_id]
        if not followed:
            return
        starts = read_stream_starts(self._client, followed)
        with self._lock:
            for keys, start in zip(followed, starts, strict=True):
                if has_missed(self._cursors[keys], start):
                    self._tally(keys).gaps += 1

    def _follow(self, batch: Sequence[QueueKeys]) -> None:
        behind = list(batch)
        for _ in range(_MOST_READS):
            if not behind:
                return
            most = max(_MOST_EVENTS // len(behind), 1)
            before = {keys: self._cursors[keys] for keys in behind}
            events = self._read(before, most)
            with self._lock:
                for keys, event in events:
                    self._count(keys, event)
            self._cursors.update(before)
            read = [keys for keys, _ in events]
            behind = [keys for keys in behind if read.count(keys) >= most]

    def _read(self, cursors: dict[QueueKeys, str], most: int) -> list[tuple[QueueKeys, Event]]:
        """New events; a stream that cannot be read is left out from now on."""
        try:
            return read_events(self._client, cursors, count=most)
        except ReplyError as error:
            if is_outage(error):
                raise
            if len(cursors) > 1:
                return self._read_each(cursors, most)
        (keys,) = cursors
        del cursors[keys], self._cursors[keys]
        self._broken.add(keys)
        with self._lock:
            self._tally(keys).gaps += 1
        return []

    def _read_each(self, cursors: dict[QueueKeys, str], most: int) -> list[tuple[QueueKeys, Event]]:
        events = []
        for keys in list(cursors):
            own = {keys: cursors.pop(keys)}
            events += self._read(own, most)
            cursors.update(own)
        return events

    def _tally(self, keys: QueueKeys) -> _Tally:
        return self._tallies.setdefault(self._names.of(keys.name), _Tally())

    def _count(self, keys: QueueKeys, event: Event) -> None:
        if event.job_id is None or event.name not in _MOVES:
            return
        job = (keys, event.job_id)
        # Wherever the job goes, the attempt that had begun is over.
        started_ms = self._starts.pop(job, None)
        if event.name == "active":
            if len(self._starts) >= _MOST_STARTS:
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
