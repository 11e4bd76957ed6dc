"""Schedulers and legacy repeatables, and whether each has its pending job (wire format 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qctl.connection.address import Arg, Client
from qctl.errors import UsageError
from qctl.wire.keys import QueueKeys, iteration_prefix
from qctl.wire.read.snapshot import QueueSnapshot
from qctl.wire.replies import checked, read_groups, read_object, to_dict, to_int, value_or
from qctl.wire.schedulers.scheduling import due_times_ms, schedule_has_ended, skipped_count
from qctl.wire.states import FINISHED

# About how many schedulers are read in all queues together.
MAX_SCHEDULERS = 5000
# The largest and the smallest number of schedulers to read of each queue.
_MAX_PER_QUEUE, _MIN_PER_QUEUE = 1000, 5
# Later than any time that a score can hold.
_NEVER_MS = 2**53
# The sorted sets in which a pending job may be; it may be in a list instead.
_PENDING_SETS = ("delayed", "prioritized")


@dataclass(frozen=True, slots=True)
class Registration:
    """A scheduler or legacy repeatable: one member of ``repeat``.

    Args:
        next_ms: when the pending job is due; None if the member's score is not a time.
        fields: the hash ``repeat:<id>``; empty if there is none.
        pending: whether the pending job waits or runs; True if the id of that job is unknown.
        limit, jobs_made: how many jobs the scheduler may make, and how many it has made. Both are
            read from ``fields`` and from the pending job's options, even if that job has ended.
    """

    keys: QueueKeys
    id: str
    next_ms: int | None
    fields: Mapping[str, str]
    pending: bool
    limit: int | None
    jobs_made: int

    @property
    def is_legacy(self) -> bool:
        """Whether this is a repeatable of an old version (wire format 6.6)."""
        return "ic" not in self.fields

    @property
    def timing(self) -> str:
        """``every 60000 ms``, or the pattern with its time zone."""
        if every := self.fields.get("every"):
            return f"every {every} ms"
        zone = self.fields.get("tz")
        return self.fields.get("pattern", "") + (f" {zone}" if zone else "")

    def has_ended(self, now_ms: int) -> bool:
        """Whether the limit or end date is reached; no more jobs are made then (format 6.4)."""
        return schedule_has_ended(
            *self._rule,
            limit=self.limit,
            jobs_made=self.jobs_made,
            end_ms=to_int(self.fields.get("endDate")),
            last_due_ms=self.next_ms,
            now_ms=now_ms,
        )

    def following_ms(self) -> int:
        """When the job after the pending one is due.

        If qctl does not understand the pattern or time zone, the result is the time of the pending
        job. If that time is unknown, or there is no further job, the result is ``_NEVER_MS``.
        """
        if self.next_ms is None:
            return _NEVER_MS
        try:
            return next(due_times_ms(*self._rule, self.next_ms), _NEVER_MS)
        except UsageError:
            return self.next_ms

    def skipped(self, now_ms: int) -> int | None:
        """How many due times have passed since the pending job was due; None if unknown."""
        if self.next_ms is None:
            return None
        return skipped_count(*self._rule, since_ms=self.next_ms, now_ms=now_ms)

    @property
    def _rule(self) -> tuple[str, str | None, int | None]:
        every_ms = to_int(self.fields.get("every"))
        return self.fields.get("pattern", ""), self.fields.get("tz"), every_ms


def read_registrations(
    client: Client, queues: Sequence[QueueSnapshot], *, full: bool = False
) -> tuple[list[Registration], int]:
    """The schedulers and legacy repeatables that are due first, and how many there are in all.

    An entry without a waiting or running job is read twice, because a worker may have replaced the
    job between two commands. An entry that is gone at the second read is left out.

    Args:
        full: read all entries. If False, read at most 1,000 of each queue and about 5,000 in all.
    """
    with_some = [queue for queue in queues if queue.schedulers]
    share = min(max(MAX_SCHEDULERS // max(len(with_some), 1), _MIN_PER_QUEUE), _MAX_PER_QUEUE)
    end = -1 if full else share - 1
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
    replies = client.pipeline(lists)
    members = [
        (keys, scheduler, to_int(score))
        for keys, reply in zip(queues, replies, strict=True)
        for scheduler, score in to_dict(value_or(reply, [])).items()
    ]
    reads: list[list[tuple[Arg, ...]]] = []
    for keys, scheduler, next_ms in members:
        job_id = f"{iteration_prefix(scheduler)}{next_ms}"
        reads.append(
            [
                ("HGETALL", keys.scheduler(scheduler)),
                ("EXISTS", keys(job_id)),
                ("HGET", keys(job_id), "opts"),
                *(("ZSCORE", keys(state), job_id) for state in (*_PENDING_SETS, *FINISHED)),
            ]
        )
    found = []
    for (keys, scheduler, next_ms), row in zip(members, read_groups(client, reads), strict=True):
        flat, exists, opts, *scores = row
        record = to_dict(value_or(flat, []))
        repeat = read_object(value_or(opts, None)).get("repeat")
        repeat = repeat if isinstance(repeat, dict) else {}
        is_in = [value_or(score, None) is not None for score in scores]
        ended = any(is_in[len(_PENDING_SETS) :]) and not any(is_in[: len(_PENDING_SETS)])
        # Lists are not read, as they may be long: a job in no sorted set is taken to be in a list.
        # If a legacy key contains colons, the id of its pending job cannot be derived.
        is_unknown = next_ms is None or ("ic" not in record and ":" in scheduler)
        pending = (bool(checked(exists)) and not ended) or is_unknown
        limit = to_int(record.get("limit") or repeat.get("limit"))
        made = max(to_int(record.get("ic")) or 0, to_int(repeat.get("count")) or 0)
        found.append(Registration(keys, scheduler, next_ms, record, pending, limit, made))
    return found
