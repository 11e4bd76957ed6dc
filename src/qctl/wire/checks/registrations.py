"""Schedulers and legacy repeatables with the job that keeps each alive (wire format 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qctl.connection.address import Arg, Client
from qctl.errors import UsageError
from qctl.wire.keys import QueueKeys
from qctl.wire.read.snapshot import QueueSnapshot
from qctl.wire.replies import checked, to_dict, to_int, value_or
from qctl.wire.schedulers.cron import next_time_ms
from qctl.wire.states import FINISHED

# Schedulers looked at over all queues together, and of one queue.
BUDGET = 5000
_MOST, _LEAST = 1000, 5
# Later than any time that Redis can hold as a score.
_NEVER_MS = 2**53
_PENDING = ("delayed", "prioritized")


@dataclass(frozen=True, slots=True)
class Registration:
    """One member of ``repeat``.

    Args:
        next_ms: the time of its pending job; None for a score that is not a time.
        fields: of its record.
        pending: whether that job is still to run, or runs; true where it cannot be looked up.
    """

    keys: QueueKeys
    id: str
    next_ms: int | None
    fields: Mapping[str, str]
    pending: bool

    @property
    def is_legacy(self) -> bool:
        """Whether it is a repeatable of old versions (6.6)."""
        return "ic" not in self.fields

    @property
    def timing(self) -> str:
        """``every 60000 ms``, or the pattern with its time zone."""
        if every := self.fields.get("every"):
            return f"every {every} ms"
        zone = self.fields.get("tz")
        return self.fields.get("pattern", "") + (f" {zone}" if zone else "")

    def has_ended(self, now_ms: int) -> bool:
        """Whether no further job is due: its limit or its end date is reached (6.4)."""
        limit, made = to_int(self.fields.get("limit")), to_int(self.fields.get("ic"))
        if limit is not None and (made or 0) >= limit:
            return True
        end = to_int(self.fields.get("endDate"))
        if end is None:
            return False
        return now_ms > end or (self.next_ms is not None and self.following_ms() > end)

    def following_ms(self, after_ms: int | None = None) -> int:
        """Its time after that of the pending job, or after another of its times.

        The same time where its pattern or time zone is not known here; infinitely late, in effect,
        where there is no further one.
        """
        slot_ms = self.next_ms if after_ms is None else after_ms
        if slot_ms is None:
            return _NEVER_MS
        every = to_int(self.fields.get("every"))
        if every is not None:
            return slot_ms + every
        try:
            pattern, zone = self.fields.get("pattern", ""), self.fields.get("tz")
            following = next_time_ms(pattern, zone, slot_ms)
        except UsageError:
            return slot_ms
        return _NEVER_MS if following is None else following

    def skipped(self, now_ms: int, most: int) -> int | None:
        """How many of its times have passed since that of the pending job, ``most`` at most; None
        where that time, its pattern or its time zone is not known here.
        """
        if self.next_ms is None:
            return None
        every = to_int(self.fields.get("every"))
        if every is not None:
            return min(max(now_ms - self.next_ms, 0) // every, most) if every > 0 else None
        slot_ms = self.next_ms
        for count in range(most):
            following_ms = self.following_ms(slot_ms)
            if following_ms <= slot_ms:
                return None
            if following_ms > now_ms:
                return count
            slot_ms = following_ms
        return most


def read_registrations(
    client: Client, queues: Sequence[QueueSnapshot], *, full: bool = False
) -> tuple[list[Registration], int]:
    """Those whose time comes first, in three round trips; and how many there are in all.

    A registration whose job is neither pending nor running is read twice: a worker replaces job and
    time together, but not while we read.

    Args:
        full: read all of them.
    """
    with_some = [queue for queue in queues if queue.schedulers]
    most = min(max(BUDGET // max(len(with_some), 1), _LEAST), _MOST)
    end = -1 if full else most - 1
    total = sum(queue.schedulers for queue in with_some)
    found = _read(client, [queue.keys for queue in with_some], end)
    if dead := {(each.keys, each.id) for each in found if not each.pending}:
        again = _read(client, sorted({keys for keys, _ in dead}), end)
        renewed = {(each.keys, each.id): each for each in again}
        found = [
            renewed.get((each.keys, each.id), each) if (each.keys, each.id) in dead else each
            for each in found
            if each.pending or (each.keys, each.id) in renewed
        ]
    return found, total


def _read(client: Client, queues: Sequence[QueueKeys], end: int) -> list[Registration]:
    lists = [("ZRANGE", keys("repeat"), 0, end, "WITHSCORES") for keys in queues]
    replies = client.pipeline(lists) if lists else []
    members = [
        (keys, scheduler, to_int(score))
        for keys, reply in zip(queues, replies, strict=True)
        for scheduler, score in to_dict(value_or(reply, [])).items()
    ]
    commands: list[tuple[Arg, ...]] = []
    for keys, scheduler, next_ms in members:
        job_id = f"repeat:{scheduler}:{next_ms}"
        commands += [
            ("HGETALL", keys.scheduler(scheduler)),
            ("EXISTS", keys(job_id)),
            *(("ZSCORE", keys(state), job_id) for state in (*_PENDING, *FINISHED)),
        ]
    answers = iter(client.pipeline(commands) if commands else ())
    found = []
    for keys, scheduler, next_ms in members:
        record, exists = to_dict(value_or(next(answers), [])), checked(next(answers))
        scores = [value_or(next(answers), None) is not None for _ in (*_PENDING, *FINISHED)]
        ended = any(scores[len(_PENDING) :]) and not any(scores[: len(_PENDING)])
        # In no set and there: it waits or runs, which a long list would have to be searched for.
        # Jobs of the oldest form of key have another id, which the record does not tell.
        is_unknown = next_ms is None or ("ic" not in record and ":" in scheduler)
        pending = (bool(exists) and not ended) or is_unknown
        found.append(Registration(keys, scheduler, next_ms, record, pending))
    return found
