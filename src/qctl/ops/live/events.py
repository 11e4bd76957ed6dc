"""Rates of the queues in sight, and failures in all queues.

Queues are in sight while they are on the screen or chosen. Their rates and failures come from their
event streams (wire format 8), because counts do not show jobs that are removed when they end. To
follow the streams of all queues would be too expensive. So each reading also reads the failed jobs
of some of the queues that are out of sight, in turn.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from qctl.connection.address import Client
from qctl.ops.times import utc_datetime
from qctl.wire.events import (
    STREAM_START,
    Event,
    first_event_ids,
    has_missed,
    last_event_ids,
    read_events,
)
from qctl.wire.keys import QueueKeys
from qctl.wire.read.finished import failed_since

# The most events in one reading, of all queues in sight together. They take Redis less than 5 ms.
MAX_EVENTS = 3000
_MAX_EVENTS_OF_A_QUEUE = 1000
# The most queues out of sight in one reading, and the most failures that it reads from each of
# these queues. Redis needs less than 1 ms for all of them.
MAX_OTHER_QUEUES = 200
_MAX_FAILURES_OF_A_QUEUE = 5
FAILURES_KEPT = 50
_NEVER = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Rates:
    """Jobs that completed, or failed for good, per second since the last reading.

    Args:
        sampled: True if the reading did not include all events. The rates then cover only a part
            of the time, and failures may be missing.
        at_least: True if events may have been trimmed before they were read. The rates may then be
            too low, and failures may be missing.
    """

    completed_per_s: float
    failed_per_s: float
    sampled: bool = False
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that failed for good; ``at`` is None if the time is out of range."""

    queue: str
    id: str
    reason: str
    at: datetime | None


class EventRates:
    """Follows the event streams of the queues in sight."""

    def __init__(self, label_of: Callable[[QueueKeys], str]) -> None:
        self._label_of = label_of
        self._cursors: dict[QueueKeys, str] = {}
        self._read_at: dict[QueueKeys, float] = {}
        self._failures: deque[Failure] = deque(maxlen=FAILURES_KEPT)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The failures that were read last, at most ``FAILURES_KEPT``; newest first."""
        # Sorted, because failures of queues out of sight are added late.
        return tuple(sorted(self._failures, key=lambda each: each.at or _NEVER, reverse=True))

    def add_failures(self, failures: Iterable[Failure]) -> None:
        """Add failures of queues out of sight, oldest first."""
        self._failures.extendleft(failures)

    def read(self, client: Client, queues: Sequence[QueueKeys]) -> dict[QueueKeys, Rates]:
        """Read the new events of the queues in sight, and return their rates.

        A queue that was not in sight at the last reading is left out: it has no rates yet.

        Raises:
            ReplyError: Redis refuses to read a stream.
        """
        # When a queue comes back into sight, skip the events from its time out of sight.
        self._cursors = {keys: at for keys, at in self._cursors.items() if keys in queues}
        trimmed = self._trimmed(client)
        count = min(_MAX_EVENTS_OF_A_QUEUE, max(MAX_EVENTS // max(len(queues), 1), 1))
        events = read_events(client, self._cursors, count=count) if self._cursors else []
        now = time.monotonic()
        found: dict[QueueKeys, list[Event]] = {keys: [] for keys in self._cursors}
        for keys, event in events:
            found[keys].append(event)
            if event.name == "failed":
                reason = event.fields.get("failedReason", "")
                at = utc_datetime(event.at_ms)
                self._failures.appendleft(
                    Failure(self._label_of(keys), event.job_id or "?", reason, at)
                )
        rates = {}
        for keys, own in found.items():
            elapsed_s, sampled = now - self._read_at[keys], len(own) >= count
            if sampled:
                # The events cover only the time from the first event to the last.
                elapsed_s = (own[-1].at_ms - own[0].at_ms) / 1000
            elapsed_s = max(elapsed_s, 0.001)
            ends = Counter(event.name for event in own)
            completed, failed = ends["completed"] / elapsed_s, ends["failed"] / elapsed_s
            rates[keys] = Rates(completed, failed, sampled, keys in trimmed)
        # For queues that are new in sight or have unread events, continue at the stream's end.
        behind = [k for k in queues if k not in self._cursors or rates[k].sampled]
        self._cursors.update(zip(behind, last_event_ids(client, behind), strict=True))
        self._read_at = dict.fromkeys(queues, now)
        return rates

    def _trimmed(self, client: Client) -> set[QueueKeys]:
        """The queues whose events may have been trimmed before they were read."""
        # In a stream that was empty at the last reading, a trim cannot be noticed.
        followed = [keys for keys, cursor in self._cursors.items() if cursor != STREAM_START]
        starts = first_event_ids(client, followed) if followed else []
        trimmed = set()
        for keys, start in zip(followed, starts, strict=True):
            if start is None or has_missed(self._cursors[keys], start):
                trimmed.add(keys)
            if start is None:
                # The stream was emptied or deleted: report this once, then read from the new start.
                self._cursors[keys] = STREAM_START
        return trimmed


class OtherFailures:
    """Reads the failures of the queues out of sight, in turn."""

    def __init__(self, label_of: Callable[[QueueKeys], str]) -> None:
        self._label_of = label_of
        self._began_ms = int(time.time() * 1000)
        self._since_ms: dict[QueueKeys, int] = {}
        self._next = 0

    def read(
        self, client: Client, queues: Sequence[QueueKeys], in_sight: Collection[QueueKeys]
    ) -> list[Failure]:
        """New failures in those queues out of sight whose turn it is, oldest first.

        Raises:
            ReplyError: Redis refuses to read the failed jobs of a queue.
        """
        now_ms = int(time.time() * 1000)
        # For the queues in sight, EventRates has already read all failures until now.
        self._since_ms.update(dict.fromkeys(in_sight, now_ms))
        seen = set(in_sight)
        others = [keys for keys in queues if keys not in seen]
        if self._next >= len(others):
            self._next = 0
        turn = others[self._next : self._next + MAX_OTHER_QUEUES]
        self._next += len(turn)
        since_ms = {keys: self._since_ms.get(keys, self._began_ms) for keys in turn}
        jobs = failed_since(client, since_ms, _MAX_FAILURES_OF_A_QUEUE)
        for job in jobs:
            self._since_ms[job.keys] = job.at_ms
        return [
            Failure(self._label_of(job.keys), job.id, job.reason, utc_datetime(job.at_ms))
            for job in jobs
        ]
