"""Rates and failures from the event streams of the queues in sight (wire format 8).

Counters cannot give them: a job that is removed when it completes leaves none behind. Failures in
the other queues: live_failures.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from qctl.connection.address import Client
from qctl.ops.times import utc_datetime
from qctl.wire.events import Event, last_event_ids, read_events
from qctl.wire.keys import QueueKeys
from qctl.wire.read.missed_events import has_missed, read_stream_starts

# Events taken in one reading, shared by the queues in sight: keeps Redis' part below 5 ms.
MOST_EVENTS = 3000
_MOST_OF_A_QUEUE = 1000
FAILURES_KEPT = 50
_NEVER = datetime.fromtimestamp(0, UTC)
# Where an empty stream is read from.
_BEFORE_ALL = "0-0"


@dataclass(frozen=True, slots=True)
class Rates:
    """Jobs that ended per second since the reading before; a failure is one for good.

    Args:
        sampled: there were more events than are taken: the rates are those of a part of the time,
            and failures may be missing.
        at_least: events may have been cut off the stream before they were read: there may have
            been more, of failures too.
    """

    completed_per_s: float
    failed_per_s: float
    sampled: bool = False
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that failed for good."""

    queue: str
    id: str
    reason: str
    at: datetime | None


class EventRates:
    """Follows the event streams of whatever queues are in sight."""

    def __init__(self) -> None:
        self._cursors: dict[QueueKeys, str] = {}
        self._read_at: dict[QueueKeys, float] = {}
        self._failures: deque[Failure] = deque(maxlen=FAILURES_KEPT)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Those seen, newest first."""
        # Those of queues out of sight come late.
        return tuple(sorted(self._failures, key=lambda each: each.at or _NEVER, reverse=True))

    def add(self, failures: Iterable[Failure]) -> None:
        """Failures seen elsewhere, the oldest first."""
        self._failures.extendleft(failures)

    def read(self, client: Client, queues: Sequence[QueueKeys]) -> dict[QueueKeys, Rates]:
        """Rates of these queues; without those that were not in sight at the reading before.

        Raises:
            ReplyError: Redis refuses to read a stream.
        """
        # One that went out of sight starts anew when it comes back: nothing old is caught up.
        self._cursors = {keys: at for keys, at in self._cursors.items() if keys in queues}
        cut = self._cut_off(client)
        count = min(_MOST_OF_A_QUEUE, max(MOST_EVENTS // max(len(queues), 1), 1))
        events = read_events(client, self._cursors, count=count) if self._cursors else []
        now = time.monotonic()
        found: dict[QueueKeys, list[Event]] = {keys: [] for keys in self._cursors}
        for keys, event in events:
            found[keys].append(event)
            if event.name == "failed":
                self._failures.appendleft(_failure(keys, event))
        rates = {
            keys: replace(
                _rates(own, now - self._read_at[keys], sampled=len(own) >= count),
                at_least=keys in cut,
            )
            for keys, own in found.items()
        }
        behind = [k for k in queues if k not in self._cursors or rates[k].sampled]
        self._cursors.update(zip(behind, last_event_ids(client, behind), strict=True))
        self._read_at = dict.fromkeys(queues, now)
        return rates

    def _cut_off(self, client: Client) -> set[QueueKeys]:
        """The queues of whose events some may be gone that were not read yet."""
        # Of a stream that had none nothing can be said.
        followed = [keys for keys, cursor in self._cursors.items() if cursor != _BEFORE_ALL]
        starts = read_stream_starts(client, followed) if followed else []
        cut = set()
        for keys, start in zip(followed, starts, strict=True):
            if start is None or has_missed(self._cursors[keys], start):
                cut.add(keys)
            if start is None:
                # Emptied, or deleted: said once, and what comes now is all there is.
                self._cursors[keys] = _BEFORE_ALL
        return cut


def _rates(events: Sequence[Event], elapsed_s: float, *, sampled: bool) -> Rates:
    ends = Counter(event.name for event in events)
    if sampled:
        # The events cover a shorter time than has passed: from the first of them to the last.
        elapsed_s = (events[-1].at_ms - events[0].at_ms) / 1000
    elapsed_s = max(elapsed_s, 0.001)
    return Rates(ends["completed"] / elapsed_s, ends["failed"] / elapsed_s, sampled)


def _failure(keys: QueueKeys, event: Event) -> Failure:
    reason = event.fields.get("failedReason", "")
    return Failure(keys.name, event.job_id or "?", reason, utc_datetime(event.at_ms))
