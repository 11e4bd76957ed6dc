"""Reads schedulers and legacy repeatable jobs, with pending jobs and due times (wire format 6)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from qctl.connection.address import Arg, Client
from qctl.errors import ReplyError
from qctl.wire.keys import QueueKeys, iteration_prefix
from qctl.wire.replies import checked, read_groups, read_values, to_dict, to_int, value_or
from qctl.wire.schedulers.scheduling import (
    Scheduler,
    is_legacy_key,
    parse_scheduler,
    parse_schedulers,
    record_commands,
)
from qctl.wire.states import LISTS, SORTED_SETS, due_ms

# At most this many schedulers are read in one round trip.
_WINDOW = 500
# At most this many entries are searched from each end of a list.
_MAX_SEARCHED = 10_000
# A queue's agenda has at most this many schedulers, those with the earliest due times.
MAX_SCHEDULERS = 200


@dataclass(frozen=True, slots=True)
class Iteration:
    """The job that a scheduler made last.

    Args:
        state: None if the job is in no state, or has no hash and is in no sorted set.
            ``unknown`` if not all lists could be searched, or if no job has the id and the id is
            only a guess.
        fields: the fields of the job's hash; empty if the hash is gone.
    """

    id: str
    state: str | None
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Registered:
    """A scheduler or a legacy repeatable job: an entry of the sorted set ``repeat``.

    Args:
        next_ms: when the pending job is or was due; None if the score is not a time.
        scheduler: None for a legacy repeatable job, or if the record is gone.
        record: the fields of the record; empty without a record, as in very old BullMQ versions.
        iteration_prefix: the beginning of the ids of its jobs; the due time follows.
    """

    id: str
    next_ms: int | None
    scheduler: Scheduler | None
    record: Mapping[str, str]
    iteration_prefix: str
    pending: Iteration


def read_registered(client: Client, keys: QueueKeys) -> Iterator[Registered]:
    """All schedulers and legacy repeatable jobs, soonest first."""
    start = 0
    while True:
        listed = client.call("ZRANGE", keys("repeat"), start, start + _WINDOW - 1, "WITHSCORES")
        yield from _read(client, keys, listed)
        if len(listed) < 2 * _WINDOW:
            return
        start += _WINDOW


def read_one(client: Client, keys: QueueKeys, scheduler_id: str) -> Registered | None:
    """The scheduler or legacy repeatable job with this id, or None."""
    score = client.call("ZSCORE", keys("repeat"), scheduler_id)
    if score is None:
        return None
    return next(_read(client, keys, [scheduler_id, str(score)]))


def pending_delayed(client: Client, keys: QueueKeys) -> int:
    """How many delayed jobs are pending jobs of schedulers or legacy repeatable jobs."""
    return sum(entry.pending.state == "delayed" for entry in read_registered(client, keys))


def _read(client: Client, keys: QueueKeys, listed: Sequence[str]) -> Iterator[Registered]:
    # If the key of a record has a wrong type, the fields are empty.
    flat = read_values(client, record_commands(keys, listed), [])
    rows = []
    for (sid, score), record in zip(to_dict(listed).items(), map(to_dict, flat), strict=True):
        rows.append((sid, score, to_int(score), record, _iteration_prefix(sid, record)))
    ids = [f"{prefix}{score if due is None else due}" for _, score, due, _, prefix in rows]
    jobs = _iterations(client, keys, ids)
    for (sid, score, due, record, prefix), job in zip(rows, jobs, strict=True):
        # The job ids of legacy repeatable jobs are not certain (wire format 6.6).
        is_guess = prefix != iteration_prefix(sid) or due is None
        is_unknown = is_guess and job.state is None and not job.fields
        pending = replace(job, state="unknown") if is_unknown else job
        yield Registered(sid, due, parse_scheduler(sid, score, record), record, prefix, pending)


def _iteration_prefix(scheduler_id: str, record: Mapping[str, str]) -> str:
    """All ids of a scheduler's jobs begin with this (wire format 6.6)."""
    if "ic" in record or not is_legacy_key(scheduler_id):
        return iteration_prefix(scheduler_id)
    name, job_id, *_ = scheduler_id.split(":")
    return iteration_prefix(_md5(name + job_id + _md5(scheduler_id)))


def _md5(text: str) -> str:
    # BullMQ uses MD5 for these ids, which are no secret.
    return hashlib.md5(text.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()


def _iterations(client: Client, keys: QueueKeys, ids: Sequence[str]) -> list[Iteration]:
    reads: list[list[tuple[Arg, ...]]] = [
        [*(("ZSCORE", keys(name), i) for name in SORTED_SETS), ("HGETALL", keys(i))] for i in ids
    ]
    found = []
    for job_id, (*scores, flat) in zip(ids, read_groups(client, reads), strict=True):
        places = zip(SORTED_SETS, map(checked, scores), strict=True)
        state = next((name for name, score in places if score is not None), None)
        found.append(Iteration(job_id, state, to_dict(value_or(flat, []))))
    unseen = [job.id for job in found if job.state is None and job.fields]
    listed = _in_lists(client, keys, unseen)
    return [replace(job, state=job.state or listed.get(job.id)) for job in found]


def _in_lists(client: Client, keys: QueueKeys, ids: Sequence[str]) -> dict[str, str]:
    """The states of the jobs that are found in lists.

    Long lists are searched only near their ends. If a list is long, or if Redis refused a search,
    the state of a job that was not found is ``unknown``.
    """
    if not ids:
        return {}
    lengths = map(checked, client.pipeline([("LLEN", keys(name)) for name in LISTS]))
    is_complete = all(length <= 2 * _MAX_SEARCHED for length in lengths)
    searches = [(job_id, name, rank) for job_id in ids for name in LISTS for rank in (1, -1)]
    replies = client.pipeline(
        [
            ("LPOS", keys(name), job_id, "RANK", rank, "MAXLEN", _MAX_SEARCHED)
            for job_id, name, rank in searches
        ]
    )
    found: dict[str, str] = {}
    for (job_id, name, _), reply in zip(searches, replies, strict=True):
        if isinstance(reply, ReplyError):
            # For example, Redis before 6.0.6 has no LPOS.
            is_complete = False
        elif reply is not None:
            found[job_id] = LISTS[name]
    return found if is_complete else dict.fromkeys(ids, "unknown") | found


@dataclass(frozen=True, slots=True)
class Agenda:
    """When jobs of one queue are due. Times are epoch milliseconds.

    Args:
        schedulers: soonest first, at most ``MAX_SCHEDULERS``; no legacy repeatable jobs.
        total_schedulers: how many schedulers and legacy repeatable jobs the queue has.
        next_delayed_ms: when the next delayed job of any kind is due; None without delayed jobs.
    """

    keys: QueueKeys
    schedulers: tuple[Scheduler, ...]
    total_schedulers: int
    next_delayed_ms: int | None


def read_agendas(client: Client, queues: Sequence[QueueKeys]) -> list[Agenda]:
    """The agenda of each queue, in two round trips."""
    reads: list[list[tuple[Arg, ...]]] = [
        [
            ("ZRANGE", keys("repeat"), 0, MAX_SCHEDULERS - 1, "WITHSCORES"),
            ("ZCARD", keys("repeat")),
            ("ZRANGE", keys("delayed"), 0, 0, "WITHSCORES"),
        ]
        for keys in queues
    ]
    rows = [[*map(checked, row)] for row in read_groups(client, reads)]
    records = read_groups(
        client, [record_commands(keys, row[0]) for keys, row in zip(queues, rows, strict=True)]
    )
    return [
        Agenda(
            keys,
            tuple(parse_schedulers(listed, [value_or(record, []) for record in own])),
            int(total),
            due_ms(float(delayed[1])) if delayed else None,
        )
        for keys, (listed, total, delayed), own in zip(queues, rows, records, strict=True)
    ]
