"""Counts and condition of many queues, in two round trips for any number of queues.

The first trip reads lengths, flags and the active ids. The second reads the locks and workers of
the active jobs, the age of the jobs that run next, and once more the active ids. A job without a
lock has stalled only if the second trip still finds its id among the active ids; otherwise it has
finished. If qctl has paused a queue, a third trip checks whether the queue is still paused by qctl
(``pause_notes``).

Nothing is written and no script is run: a user with ``@read`` alone can read snapshots.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qctl.connection.address import Arg, Client
from qctl.errors import ReplyError
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import HOLDS, UNKNOWN, Holder, parse_holder
from qctl.wire.read.stalled_check import StalledClock
from qctl.wire.replies import read_checked, to_int, value_or
from qctl.wire.states import DELAY_FACTOR, is_marker

# ``queue.rateLimit()`` sets the counter to this number, whatever the queue's maximum is (wire
# format 5.22).
MANUAL_LIMIT = 9007199254740991
# A job that has been due for longer than this is overdue. A worker that missed the marker fetches
# due jobs after at most 10 s, and clocks may differ a little.
OVERDUE_MS = 15_000
# The most events that are searched for pauses: in all queues together, and in one queue. With more
# than 1,000 paused queues, more are searched, because 5 are searched in each queue.
_MAX_EVENTS, _MAX_EVENTS_OF_ONE = 5_000, 500
# The replies of PTTL for a key that does not exist, and for a key that never expires.
_GONE, _ENDLESS = -2, -1


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The present window of the rate limit: Redis counts the jobs that start in it.

    See wire format 5.6, step 3.

    Args:
        used: jobs counted so far; None if the counter is not a number.
        maximum: the queue's maximum (``meta.max``). None if not set: each worker may have its own
            limiter, which is not in Redis.
        left_ms: time until the window ends and the count restarts.
    """

    used: int | None
    maximum: int | None
    left_ms: int

    @property
    def is_manual(self) -> bool:
        """Whether ``queue.rateLimit()`` set the limit.

        If the queue has no maximum, workers without a limiter ignore such a limit.
        """
        return self.used is not None and self.used >= MANUAL_LIMIT

    @property
    def holds(self) -> bool | None:
        """Whether no job starts before the window ends; None when that is unknown."""
        if self.is_manual:
            return True
        if self.maximum is None or self.used is None:
            return None
        return self.used >= self.maximum


# BullMQ Pro's sets of groups. A group may be waiting, rate limited, at its maximum concurrency, or
# paused.
_GROUPS = ("groups", "groups:limit", "groups:max", "groups:paused")


@dataclass(frozen=True, slots=True)
class Counts:
    """Jobs by state. ``stalled`` is the part of ``active`` without a lock."""

    waiting: int
    active: int
    stalled: int
    delayed: int
    prioritized: int
    waiting_children: int
    completed: int
    failed: int

    @property
    def running(self) -> int:
        """The active jobs with a lock."""
        return self.active - self.stalled


@dataclass(frozen=True, slots=True)
class HeldJob:
    """An active job with a lock.

    ``worker`` is None if the worker has no name. ``lock_ttl_ms`` is None if the lock never expires.
    """

    worker: str | None
    lock_ttl_ms: int | None


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """One queue at one moment.

    Args:
        format: ``bullmq``, or ``bull`` for a queue of Bull 3/4, which qctl only reads.
        client_version: version of the library with which the last Queue object was created, e.g.
            ``6.7.0``; None if unknown.
        has_groups: whether jobs may also wait in groups of BullMQ Pro (wire format 10.5). No count
            includes these jobs, and qctl never touches them.
        legacy_paused: jobs in the ``paused`` list that BullMQ 5 uses while a queue is paused;
            they are part of ``counts.waiting``.
        active_ids: ids of the jobs that were active at the beginning or end of the reading;
            ``counts.active`` is the number at the end.
        overdue: delayed jobs that have been due for more than 15 s; they stay delayed until a
            worker fetches jobs.
        oldest_waiting_ms: when the oldest waiting job was added, epoch milliseconds. Only the next
            job of each of ``wait``, ``paused`` and ``prioritized`` is considered.
        pause_note: who paused the queue, if the present pause was made with qctl; else None.
        uncertain_note: who paused the queue with qctl, if it is unknown whether that pause is over;
            else None.
        paused_since_ms: when the queue was paused, epoch milliseconds: from ``pause_note``, else
            from the queue's last events; None if not paused or unknown.
        lease: the drain that works on the queue now, or None.
        concurrency: how many jobs may be active at once over all workers; None for no limit.
        invalid_concurrency: the concurrency that is set, if it is not a number; else None. With
            such a value, BullMQ's scripts fail when jobs are added or fetched.
        rate_limit: the present window of the rate limit; None if there is none.
        held: the active jobs with a lock.
        stalled_clock: when the stalled check runs; only read while a job is active.
    """

    keys: QueueKeys
    format: str
    client_version: str | None
    paused: bool
    concurrency: int | None
    invalid_concurrency: str | None
    counts: Counts
    has_groups: bool
    legacy_paused: int
    active_ids: tuple[str, ...]
    stalled_ids: tuple[str, ...]
    schedulers: int
    overdue: int
    oldest_waiting_ms: int | None
    pause_note: Holder | None
    uncertain_note: Holder | None
    paused_since_ms: int | None
    lease: Holder | None
    rate_limit: RateLimit | None
    held: tuple[HeldJob, ...]
    stalled_clock: StalledClock

    @property
    def sizes(self) -> dict[str, int]:
        """How many jobs each list and sorted set holds."""
        return {
            "wait": self.counts.waiting - self.legacy_paused,
            "paused": self.legacy_paused,
            "active": self.counts.active,
            "delayed": self.counts.delayed,
            "prioritized": self.counts.prioritized,
            "waiting-children": self.counts.waiting_children,
            "completed": self.counts.completed,
            "failed": self.counts.failed,
        }

    @property
    def backlog(self) -> int:
        """Jobs that are ready for a worker; while the queue is paused, no worker takes them."""
        return self.counts.waiting + self.counts.prioritized

    @property
    def rate_limited_ms(self) -> int:
        """How much longer the queue is certainly rate limited; 0 if it is not, or if unknown."""
        return self.rate_limit.left_ms if self.rate_limit and self.rate_limit.holds else 0

    @property
    def is_maxed(self) -> bool:
        """Whether the global concurrency is reached: no job starts before an active one ends."""
        return self.concurrency is not None and self.counts.active >= self.concurrency


def read_snapshots(
    client: Client, queues: Sequence[QueueKeys]
) -> list[QueueSnapshot | ReplyError | None]:
    """A snapshot of each queue.

    None stands for a queue that does not exist. If a queue cannot be read, the error is returned in
    place of its snapshot, because a broken queue must not hide the others.
    """
    now_ms = int(time.time() * 1000)
    requests = [_first_trip(keys, now_ms) for keys in queues]
    replies = iter(client.pipeline([command for r in requests for command in r.values()]))
    firsts = [{label: next(replies) for label in request} for request in requests]
    paused = sum(map(_is_paused, firsts))
    count = max(min(_MAX_EVENTS // max(paused, 1), _MAX_EVENTS_OF_ONE), 5)
    followups = [_second_trip(*pair, count) for pair in zip(queues, firsts, strict=True)]
    commands = [command for followup in followups for command in followup]
    replies = iter(client.pipeline(commands))
    notes = {
        keys: first["pause_note"]
        for keys, first in zip(queues, firsts, strict=True)
        if _is_paused(first) and _note(first) is not None
    }
    pauses: Mapping[QueueKeys, str] = {}
    if notes:
        from qctl.wire.read.pause_notes import check_notes  # noqa: PLC0415 - 3 ms that few need

        pauses = check_notes(client, notes)
    return [
        _snapshot(keys, first, [next(replies) for _ in followup], pauses.get(keys))
        for keys, first, followup in zip(queues, firsts, followups, strict=True)
    ]


def are_paused(client: Client, queues: Sequence[QueueKeys]) -> list[bool]:
    """Whether each BullMQ queue is paused, in one round trip."""
    return [*map(bool, read_checked(client, [("HEXISTS", k("meta"), "paused") for k in queues]))]


def _first_trip(keys: QueueKeys, now_ms: int) -> dict[str, tuple[Arg, ...]]:
    """The commands of the first trip, in the order in which jobs move from place to place.

    Others may move jobs between two commands of a long pipeline. A job that moves on is seen where
    it was, where it went, or in both places, but it is always seen. From ``active``, a job may go
    back to an earlier place, so ``active`` is read twice: before the other places and after them.
    """
    return {
        "meta": ("HMGET", keys("meta"), "paused", "version", "concurrency", "max"),
        "active_before": ("LRANGE", keys("active"), 0, -1),
        "waiting_children": ("ZCARD", keys("waiting-children")),
        "delayed": ("ZCARD", keys("delayed")),
        "overdue": ("ZCOUNT", keys("delayed"), "-inf", (now_ms - OVERDUE_MS) * DELAY_FACTOR),
        # If a group of BullMQ Pro has waiting jobs, the group is in one of these sets.
        # One command for each set: in a cluster, the sets may be on several nodes.
        **{name: ("EXISTS", keys(name)) for name in _GROUPS},
        "prioritized": ("ZCARD", keys("prioritized")),
        "prioritized_head": ("ZRANGE", keys("prioritized"), 0, 0),
        # ``paused`` is read before and after ``wait``: in BullMQ 5, a resume renames ``paused`` to
        # ``wait``, and a pause renames ``wait`` to ``paused``.
        "paused": ("LLEN", keys("paused")),
        "paused_tail": ("LINDEX", keys("paused"), -1),
        "wait": ("LLEN", keys("wait")),
        "wait_tail": ("LINDEX", keys("wait"), -1),
        "paused_after": ("LLEN", keys("paused")),
        "active": ("LRANGE", keys("active"), 0, -1),
        "completed": ("ZCARD", keys("completed")),
        "failed": ("ZCARD", keys("failed")),
        "schedulers": ("ZCARD", keys("repeat")),
        "limiter_ms": ("PTTL", keys("limiter")),
        "has_meta": ("EXISTS", keys("meta")),
        "has_id": ("EXISTS", keys("id")),
        "has_events": ("EXISTS", keys("events")),
        "has_meta_paused": ("EXISTS", keys("meta-paused")),
        "pause_note": ("GET", keys.pause_note),
        "lease": ("GET", keys.lease),
    }


def _is_paused(first: dict[str, Any]) -> bool:
    return _error(first) is None and first["meta"][0] is not None


def _second_trip(keys: QueueKeys, first: dict[str, Any], count: int) -> list[tuple[Arg, ...]]:
    if _error(first) is not None:
        return []
    active = _jobs(first["active"])
    commands: list[tuple[Arg, ...]] = [("PTTL", keys.lock(job_id)) for job_id in active]
    commands += [("HGET", keys(job_id), "pb") for job_id in active]
    if active:
        check = keys("stalled-check")
        commands += [("LRANGE", keys("active"), 0, -1), ("GET", check), ("PTTL", check)]
    if first["limiter_ms"] > 0:
        commands.append(("GET", keys("limiter")))
    if _is_paused(first):
        commands.append(("XREVRANGE", keys("events"), "+", "-", "COUNT", count))
    return commands + [("HGET", keys(job_id), "timestamp") for job_id in _next_up(first)]


def _snapshot(
    keys: QueueKeys, first: dict[str, Any], second: list[Any], pause: str | None
) -> QueueSnapshot | ReplyError | None:
    error = _error(first)
    if error is not None:
        return error
    # A user who may read the other keys may have no right to read the events. Then it is unknown
    # when the pause began.
    events: Any = []
    if _is_paused(first):
        events = second.pop(len(second) - len(_next_up(first)) - 1)
    # WRONGTYPE is no error here. If the id of a waiting job is e.g. ``wait``, the job's key is the
    # key of a list, so the job's age is unknown. If ``limiter`` has a wrong type, its count is
    # unknown.
    errors = (r for r in second if isinstance(r, ReplyError) and r.code != "WRONGTYPE")
    error = next(errors, None)
    if error is not None:
        return error
    active = _jobs(first["active"])
    rest = iter(second)
    locks = [next(rest) for _ in active]
    workers = [value_or(next(rest), None) for _ in active]
    still_active = frozenset(next(rest)) if active else frozenset()
    last_check = (value_or(next(rest), None), next(rest)) if active else (None, 0)
    used = value_or(next(rest), None) if first["limiter_ms"] > 0 else None
    ages = list(rest)
    legacy_paused = max(first["paused"] - _trailing_marker(first["paused_tail"]), 0)
    if first["paused_after"] > first["paused"]:
        # A pause by BullMQ 5 during the reading has moved the jobs of ``wait`` to ``paused``.
        legacy_paused = first["paused_after"]
    waiting = first["wait"] - _trailing_marker(first["wait_tail"]) + legacy_paused
    stalled = tuple(
        job_id
        for job_id, lock in zip(active, locks, strict=True)
        if lock == _GONE and job_id in still_active
    )
    paused, version, concurrency, maximum = first["meta"]
    sized = ("delayed", "prioritized", "waiting_children", "completed", "failed")
    counts = Counts(waiting, len(active), len(stalled), *(first[label] for label in sized))
    # Without any sign or job, there is no queue, only a stray key that looks like one (trap T6).
    signs = (*_GROUPS, "has_meta", "has_id", "has_events", "schedulers")
    if not any(first[label] for label in signs) and counts == Counts(0, 0, 0, 0, 0, 0, 0, 0):
        return None
    # Bull 3/4 has no event stream, and no version in meta (wire format 10.3).
    is_bull = not first["has_events"] and version is None and bool(first["has_id"])
    is_bull = is_bull or bool(first["has_meta_paused"])
    times = [time for time in map(to_int, ages) if time is not None and time >= 0]
    return QueueSnapshot(
        keys=keys,
        format="bull" if is_bull else "bullmq",
        client_version=version.partition(":")[2] or version if version else None,
        paused=paused is not None or bool(first["has_meta_paused"]),
        concurrency=to_int(concurrency),
        invalid_concurrency=concurrency if to_int(concurrency) is None else None,
        counts=counts,
        has_groups=any(first[name] for name in _GROUPS),
        legacy_paused=legacy_paused,
        active_ids=tuple(dict.fromkeys([*_jobs(first["active_before"]), *active])),
        stalled_ids=stalled,
        schedulers=first["schedulers"],
        overdue=first["overdue"],
        oldest_waiting_ms=min(times, default=None),
        pause_note=_note(first) if pause == HOLDS else None,
        uncertain_note=_note(first) if pause == UNKNOWN else None,
        paused_since_ms=_paused_since_ms(_note(first) if pause == HOLDS else None, events),
        lease=parse_holder(first["lease"]),
        rate_limit=(
            RateLimit(to_int(used), to_int(maximum), first["limiter_ms"])
            if first["limiter_ms"] > 0
            else None
        ),
        held=tuple(
            HeldJob(worker, None if ttl_ms == _ENDLESS else ttl_ms)
            for worker, ttl_ms in zip(workers, locks, strict=True)
            if ttl_ms != _GONE
        ),
        stalled_clock=StalledClock(keys, to_int(last_check[0]), max(last_check[1], 0), frozenset()),
    )


def _paused_since_ms(note: Holder | None, events: Any) -> int | None:
    """When the present pause began; None if unknown.

    Args:
        note: who made that pause, if it was made with qctl.
        events: the queue's last events, newest first, or an error.
    """
    if note is not None:
        return note.at_ms
    since_ms = None
    for event_id, fields in [] if isinstance(events, ReplyError) else events:
        name = dict(zip(fields[::2], fields[1::2], strict=True)).get("event")
        if name == "resumed":
            break
        if name == "paused":
            # A queue that is paused already may be paused again: the first pause counts.
            since_ms = to_int(event_id.partition("-")[0])
    return since_ms


def _error(first: dict[str, Any]) -> ReplyError | None:
    for label, reply in first.items():
        # It is no error if a user with rights on the queues' keys cannot read qctl's own keys.
        if isinstance(reply, ReplyError) and label not in {"pause_note", "lease"}:
            return reply
    return None


def _note(first: dict[str, Any]) -> Holder | None:
    return parse_holder(first["pause_note"])


def _jobs(ids: Sequence[str]) -> list[str]:
    return [job_id for job_id in ids if not is_marker(job_id)]


def _next_up(first: dict[str, Any]) -> list[str]:
    """The id of the job that runs next in each of ``wait``, ``paused`` and ``prioritized``.

    Usually, no job of the same list or set has waited longer.
    """
    tails = (first["wait_tail"], first["paused_tail"])
    return [t for t in tails if t is not None and not is_marker(t)] + [*first["prioritized_head"]]


def _trailing_marker(tail: str | None) -> int:
    """How many markers of old BullMQ versions the list ends with: 1 or 0."""
    return 1 if tail is not None and is_marker(tail) else 0
