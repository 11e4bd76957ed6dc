"""Finds the state of one job, and reads all that Redis has about it (wire format 4.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qctl.connection.address import Client
from qctl.errors import ReplyError
from qctl.wire.jobs import lock_reads, parse_lock
from qctl.wire.keys import JobKey, QueueKeys
from qctl.wire.read.lists import Entry, windows
from qctl.wire.replies import checked, read_groups, to_dict, value_or
from qctl.wire.states import FINISHED, LISTS, SORTED_SETS, due_ms

# How many entries at each end of a list are searched first, before the whole list. One end takes
# Redis half a millisecond.
_END = 15_000
# Ids per reply, if Redis has no command to search a list.
_WINDOW = 2500


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """All that Redis has about one id.

    Args:
        state: as BullMQ decides it (4.1), or None when the id is in no list and no sorted set.
        due_ms: when a delayed job is due, epoch milliseconds.
        fields: the fields of the job's hash; empty when the hash is gone or is not a job's.
        children: how many children are unfinished, processed, ignored and failed, in this order.
        log_rows: rows in the job's log.
    """

    state: str | None
    due_ms: int | None
    fields: Mapping[str, str]
    lock_token: str | None
    lock_ttl_ms: int | None
    children: tuple[int, int, int, int]
    log_rows: int

    @property
    def listed_state(self) -> str | None:
        """One of ``STATES``: the state, but ``stalled`` for an active job without a lock."""
        return "stalled" if self.state == "active" and self.lock_token is None else self.state


def locate(client: Client, keys: QueueKeys, job_id: str) -> Whereabouts:
    """Read one job and find its state, in one to three round trips (more before Redis 6.0.6).

    A job that moves from one list to another during the search may be found in neither list. So a
    job in no state is searched for once more.
    """
    found = _locate_once(client, keys, job_id)
    return _locate_once(client, keys, job_id) if found.state is None and found.fields else found


def _locate_once(client: Client, keys: QueueKeys, job_id: str) -> Whereabouts:
    replies = client.pipeline(
        [
            *(("ZSCORE", keys(name), job_id) for name in SORTED_SETS),
            ("HGETALL", keys(job_id)),
            *lock_reads(keys, job_id),
            ("SCARD", keys(f"{job_id}:dependencies")),
            ("HLEN", keys(f"{job_id}:processed")),
            # BullMQ keeps ignored failures in ``failed``, all others in ``unsuccessful``.
            ("HLEN", keys(f"{job_id}:failed")),
            ("ZCARD", keys(f"{job_id}:unsuccessful")),
            ("LLEN", keys.logs(job_id)),
        ]
    )
    scores = dict(zip(SORTED_SETS, map(checked, replies), strict=False))
    flat, token, ttl, *sizes = replies[len(SORTED_SETS) :]
    # Like BullMQ, look for the job in ``waiting-children``, the last sorted set, after the lists.
    state = next((name for name in SORTED_SETS[:4] if scores[name] is not None), None)
    if state is None:
        # Lists are searched only if needed, because the search through a long list is slow.
        state = _state_in_lists(client, keys, job_id)
    if state is None and scores["waiting-children"] is not None:
        state = "waiting-children"
    due = scores["delayed"] if state == "delayed" else None
    lock_token, lock_ttl_ms = parse_lock(token, ttl)
    *children, log_rows = (0 if isinstance(size, ReplyError) else int(size) for size in sizes)
    # The id may be the name of a key of the queue, such as ``meta``. The hash is a job's if it has
    # a timestamp, or if the id is in a state: then a worker would run the hash as a job.
    fields = to_dict(value_or(flat, []))
    return Whereabouts(
        state=state,
        due_ms=due_ms(float(due)) if due is not None else None,
        fields=fields if state is not None or "timestamp" in fields else {},
        lock_token=lock_token,
        lock_ttl_ms=lock_ttl_ms,
        children=(children[0], children[1], children[2], children[3]),
        log_rows=log_rows,
    )


def find_in_state(client: Client, keys: QueueKeys, state: str, ids: Iterable[str]) -> list[Entry]:
    """Those of ``ids`` that are in ``state``.

    The result for a sorted set has the order of ``windows``; for a list, it is sorted by id.

    Args:
        state: ``waiting``, ``active`` or the name of a sorted set.
    """
    names = sorted(ids)
    if state not in SORTED_SETS:
        return [Entry(job_id) for job_id in names if _state_in_lists(client, keys, job_id) == state]
    scores = client.pipeline([("ZSCORE", keys(state), job_id) for job_id in names])
    found = [
        Entry(job_id, float(score))
        for job_id, score in zip(names, map(checked, scores), strict=True)
        if score is not None
    ]
    return sorted(found, key=lambda entry: entry.score or 0.0, reverse=state in FINISHED)


def _state_in_lists(client: Client, keys: QueueKeys, job_id: str) -> str | None:
    """The state of the list that has the id; None if no list has it."""
    return states_in_lists(client, [(keys, job_id)], max_searches=1).get((keys, job_id))


def states_in_lists(
    client: Client, jobs: Sequence[JobKey], *, max_searches: int
) -> dict[JobKey, str]:
    """The states of the jobs that are in a list, in two round trips (more before Redis 6.0.6).

    The ends of all lists are searched before the rest.

    Args:
        max_searches: for how many of the jobs that are not at the ends (``_END``) the whole lists
            are searched. Any other job in the middle of a long list is missing from the result.
    """
    ends = [(name, ("RANK", rank, "MAXLEN", _END)) for name in LISTS for rank in (1, -1)]
    found: dict[JobKey, str] = {}
    left = list(jobs)
    for searches in (ends, [(name, ()) for name in LISTS]):
        reads = [
            [("LPOS", keys(name), job_id, *options) for name, options in searches]
            for keys, job_id in left
        ]
        for job, replies in zip(left, read_groups(client, reads), strict=True):
            for (name, _), reply in zip(searches, replies, strict=True):
                if isinstance(reply, ReplyError) and "unknown command" in reply.raw.lower():
                    return _states_without_lpos(client, jobs)
                if checked(reply) is not None:
                    found.setdefault(job, LISTS[name])
        left = [job for job in left if job not in found][:max_searches]
        if not left:
            break
    return found


def _states_without_lpos(client: Client, jobs: Sequence[JobKey]) -> dict[JobKey, str]:
    """What ``states_in_lists`` returns, for Redis before 6.0.6, which has no LPOS."""
    found: dict[JobKey, str] = {}
    for keys in {keys for keys, _ in jobs}:
        wanted = {job_id for queue, job_id in jobs if queue == keys}
        for state in dict.fromkeys(LISTS.values()):
            for window in windows(client, keys, state, _WINDOW):
                for entry in window:
                    if entry.id in wanted:
                        found.setdefault((keys, entry.id), state)
    return found
