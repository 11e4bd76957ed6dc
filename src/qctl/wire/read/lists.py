"""Reads ids in windows: all ids in a state, or in the lists of several queues (wire format 4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from qctl.connection.address import Client
from qctl.wire.keys import JobKey, QueueKeys
from qctl.wire.replies import to_dict, value_or
from qctl.wire.states import FINISHED, LISTS, SORTED_SETS, is_marker

# The lists of each state. Jobs in the first list run first: workers take jobs from the right end of
# ``wait``, and a resume puts the jobs of ``paused`` at that end (5.20).
_LISTS_OF_STATE = {"active": ("active",), "waiting": ("paused", "wait")}
# For ``read_lists``: how many ids a window has, and how many of them repeat the previous window. No
# id is missed if workers take at most ``_OVERLAP`` ids between two reads.
_WINDOW = 2500
_OVERLAP = 250


@dataclass(frozen=True, slots=True)
class Entry:
    """An id in a state; ``score`` is None for a list."""

    id: str
    score: float | None = None


def windows(client: Client, keys: QueueKeys, state: str, size: int) -> Iterator[list[Entry]]:
    """The jobs of a state, in windows.

    Jobs that will run come in the order in which they run. Active jobs and waiting parents come
    oldest first. Finished jobs come newest first (4.4). A job that moves during the reading may
    appear twice or not at all. Markers of old BullMQ versions are left out, so any window may be
    short or empty.

    Args:
        state: ``waiting``, ``active`` or the name of a sorted set.
        size: ids per window, and per round trip.
    """
    for name in _LISTS_OF_STATE.get(state, ()):
        seen, is_over = 0, False
        while not is_over:
            ids = client.call("LRANGE", keys(name), -(seen + size), -(seen + 1))
            yield [Entry(job_id) for job_id in reversed(ids) if not is_marker(job_id)]
            seen, is_over = seen + len(ids), len(ids) < size
    seen, is_over = 0, state in _LISTS_OF_STATE
    command = "ZREVRANGE" if state in FINISHED else "ZRANGE"
    while not is_over:
        flat = client.call(command, keys(state), seen, seen + size - 1, "WITHSCORES")
        yield scored(flat)
        seen, is_over = seen + size, len(flat) < 2 * size


def scored(flat: Sequence[str]) -> list[Entry]:
    """The entries in the reply to a command that has the option ``WITHSCORES``."""
    return [Entry(job_id, float(score)) for job_id, score in to_dict(flat).items()]


def active_ids(client: Client, keys: QueueKeys) -> list[str]:
    """Ids in ``active``, in the order in which workers fetched the jobs."""
    ids = client.call("LRANGE", keys("active"), 0, -1)
    return [job_id for job_id in reversed(ids) if not is_marker(job_id)]


@dataclass(slots=True)
class ListedIds:
    """Ids in the lists of a queue. ``is_complete`` is False if a limit left out some ids."""

    ids: set[str]
    is_complete: bool = True


def read_lists(
    client: Client,
    queues: Sequence[QueueKeys],
    max_ids: int | None = None,
    only: Mapping[QueueKeys, AbstractSet[str]] | None = None,
) -> dict[QueueKeys, ListedIds]:
    """The ids in the lists of queues, from the ends where workers take jobs.

    Args:
        max_ids: about how many ids to read from the ``wait`` lists of all queues together; None for
            no limit. The same limit holds for the ``paused`` lists, and for the ``active`` lists.
            The limit for a single list is never below 500 ids.
        only: keep only these ids, and stop reading a queue when all its ids are found.
    """
    found = {keys: ListedIds(set()) for keys in queues}
    share = None if max_ids is None else max(max_ids // max(len(queues), 1), _OVERLAP * 2)
    window = _WINDOW if share is None else min(share, _WINDOW)
    pending = [(keys, name) for keys in queues for name in LISTS]
    start = 0
    while pending:
        commands = [("LRANGE", k(name), -(start + window), -(start + 1)) for k, name in pending]
        unfinished = []
        for (keys, name), reply in zip(pending, client.pipeline(commands), strict=True):
            ids = value_or(reply, [])
            found[keys].ids.update(ids if only is None else only[keys] & set(ids))
            if len(ids) == window and (only is None or len(found[keys].ids) < len(only[keys])):
                unfinished.append((keys, name))
        start += window - _OVERLAP
        if share is not None and start >= share:
            for keys, _ in unfinished:
                found[keys].is_complete = False
            break
        pending = unfinished
    return found


def in_no_sorted_set(client: Client, jobs: Sequence[JobKey]) -> list[JobKey]:
    """Those of ``jobs`` that are in no sorted set, in two round trips."""
    left = list(jobs)
    # ``completed`` and ``failed`` come first, because they usually have the most jobs.
    for names in (SORTED_SETS[:2], SORTED_SETS[2:]):
        commands = [("ZSCORE", keys(name), job_id) for keys, job_id in left for name in names]
        scores = iter(client.pipeline(commands))
        nowhere = [None] * len(names)
        left = [job for job in left if [value_or(next(scores), None) for _ in names] == nowhere]
    return left
