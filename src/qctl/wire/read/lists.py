"""Where a job stands: ids by state in windows, and the state of one job (wire format 4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qctl.connection.address import Arg, Client
from qctl.errors import ReplyError
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import checked, to_dict, value_or
from qctl.wire.states import FINISHED, LISTS, SORTED_SETS, due_ms, is_marker

# Next to run first: a resume moves ``paused`` to where ``wait`` is taken from (5.20).
_LISTS_OF = {"active": ("active",), "waiting": ("paused", "wait")}
# Entries of a list that one command looks through, and that one command sends: each takes Redis
# half a millisecond.
SEARCHED = 15_000
_SENT = 2_500
# Of those sent, read again with the next ones: others may delete so many before them meanwhile.
_OVERLAP = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """An id in a state's list; ``score`` is None where the list has none."""

    id: str
    score: float | None = None


def windows(client: Client, keys: QueueKeys, state: str, size: int) -> Iterator[list[Entry]]:
    """The jobs of a state, next to run or oldest first, finished ones newest first (4.4).

    A job that moves while this reads may come twice or not at all. Markers of old versions are
    left out, so that a window may be short or empty before the end.

    Args:
        state: ``waiting``, ``active`` or the name of a sorted set.
        size: ids per window, and per round trip.
    """
    for suffix in _LISTS_OF.get(state, ()):
        yield from _list_windows(client, keys(suffix), size)
    if state not in _LISTS_OF:
        yield from _zset_windows(client, keys(state), size, newest_first=state in FINISHED)


def _list_windows(client: Client, key: str, size: int) -> Iterator[list[Entry]]:
    seen = 0
    while True:
        ids = client.call("LRANGE", key, -(seen + size), -(seen + 1))
        yield [Entry(job_id) for job_id in reversed(ids) if not is_marker(job_id)]
        seen += len(ids)
        if len(ids) < size:
            return


def _zset_windows(
    client: Client, key: str, size: int, *, newest_first: bool
) -> Iterator[list[Entry]]:
    command = "ZREVRANGE" if newest_first else "ZRANGE"
    start = 0
    while True:
        flat = client.call(command, key, start, start + size - 1, "WITHSCORES")
        yield [Entry(job_id, float(score)) for job_id, score in to_dict(flat).items()]
        start += size
        if len(flat) < 2 * size:
            return


def find(client: Client, keys: QueueKeys, state: str, ids: Iterable[str]) -> list[Entry]:
    """Those of the ids that stand in a state; in the order of ``windows``, in lists in their own.

    Args:
        state: ``waiting`` or the name of a sorted set.
    """
    names = sorted(ids)
    if state in _LISTS_OF:
        return [Entry(job_id) for job_id in names if _in_lists(client, keys, job_id) == state]
    scores = client.pipeline([("ZSCORE", keys(state), job_id) for job_id in names])
    found = [
        Entry(job_id, float(score))
        for job_id, score in zip(names, map(checked, scores), strict=True)
        if score is not None
    ]
    return sorted(found, key=lambda entry: entry.score or 0.0, reverse=state in FINISHED)


def active_ids(client: Client, keys: QueueKeys) -> list[str]:
    """Ids in ``active``, those fetched first first."""
    ids = client.call("LRANGE", keys("active"), 0, -1)
    return [job_id for job_id in reversed(ids) if not is_marker(job_id)]


def stalled_ids(client: Client, keys: QueueKeys) -> list[str]:
    """Ids in ``active`` that have no lock, those fetched first first."""
    active = active_ids(client, keys)
    if not active:
        return []
    # The list once more behind the locks: a job that finished between the two has no lock either,
    # but has left the list; it is fine.
    locks = [("EXISTS", keys.lock(job_id)) for job_id in active]
    *found, still_there = client.pipeline([*locks, ("LRANGE", keys("active"), 0, -1)])
    there = frozenset(checked(still_there))
    return [
        job_id
        for job_id, lock in zip(active, found, strict=True)
        if not checked(lock) and job_id in there
    ]


def known_schedulers(client: Client, keys: QueueKeys, ids: Sequence[str]) -> frozenset[str]:
    """Those of the scheduler ids that still exist, as the stalled check decides it (5.13)."""
    commands: list[tuple[Arg, ...]] = []
    for scheduler in ids:
        commands += [("EXISTS", keys.scheduler(scheduler)), ("ZSCORE", keys("repeat"), scheduler)]
    replies = client.pipeline(commands) if commands else []
    return frozenset(
        scheduler
        for index, scheduler in enumerate(ids)
        if checked(replies[2 * index]) or checked(replies[2 * index + 1]) is not None
    )


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """All that Redis has about one id.

    Args:
        state: as BullMQ decides it (4.1), or None when the id stands in no list.
        due_ms: when a delayed job is due, epoch milliseconds.
        fields: of the job hash; empty when it is gone.
        children: unfinished, processed, ignored and failed children, in this order.
        log_rows: rows in the job's log.
    """

    state: str | None
    due_ms: int | None
    fields: Mapping[str, str]
    lock_token: str | None
    lock_ttl_ms: int | None
    children: tuple[int, int, int, int]
    log_rows: int


def locate(client: Client, keys: QueueKeys, job_id: str) -> Whereabouts:
    """Read one job and find where it stands, in at most two round trips."""
    lock = keys.lock(job_id)
    replies = client.pipeline(
        [
            *(("ZSCORE", keys(name), job_id) for name in SORTED_SETS),
            ("HGETALL", keys(job_id)),
            ("GET", lock),
            ("PTTL", lock),
            ("SCARD", keys(f"{job_id}:dependencies")),
            ("HLEN", keys(f"{job_id}:processed")),
            ("HLEN", keys(f"{job_id}:failed")),
            ("ZCARD", keys(f"{job_id}:unsuccessful")),
            ("LLEN", keys.logs(job_id)),
        ]
    )
    scores = dict(zip(SORTED_SETS, map(checked, replies), strict=False))
    flat, token, ttl, *sizes = replies[len(SORTED_SETS) :]
    state = next((name for name in SORTED_SETS[:4] if scores[name] is not None), None)
    if state is None:
        # Only now: looking through a long list costs Redis time.
        state = _in_lists(client, keys, job_id)
    if state is None and scores["waiting-children"] is not None:
        state = "waiting-children"
    due = scores["delayed"] if state == "delayed" else None
    token = value_or(token, "")
    *children, log_rows = (_size(size) for size in sizes)
    return Whereabouts(
        state=state,
        due_ms=due_ms(float(due)) if due is not None else None,
        fields=_fields(flat, state),
        lock_token=token,
        lock_ttl_ms=ttl if token is not None and checked(ttl) >= 0 else None,
        children=(children[0], children[1], children[2], children[3]),
        log_rows=log_rows,
    )


def has_ended(client: Client, keys: QueueKeys, job_id: str) -> bool:
    """Whether the job is finished for good, or gone."""
    completed, failed, exists = map(
        checked,
        client.pipeline(
            [
                ("ZSCORE", keys("completed"), job_id),
                ("ZSCORE", keys("failed"), job_id),
                ("EXISTS", keys(job_id)),
            ]
        ),
    )
    return completed is not None or failed is not None or not exists


def _fields(flat: Any, state: str | None) -> dict[str, str]:
    # The key of an "id" such as ``wait`` is a list, and ``meta`` a hash that is no job.
    if isinstance(flat, ReplyError):
        if flat.code == "WRONGTYPE":
            return {}
        raise flat
    fields = to_dict(flat)
    # An id in a list is what a worker would take, however little its hash has.
    return fields if state is not None or "timestamp" in fields else {}


def _size(reply: Any) -> int:
    return 0 if isinstance(reply, ReplyError) else int(reply)


def _in_lists(client: Client, keys: QueueKeys, job_id: str) -> str | None:
    """The state of the list that has the id; looks through both ends before the middle."""
    commands: list[tuple[Arg, ...]] = []
    for key in map(keys, LISTS):
        commands += [
            ("LLEN", key),
            ("LPOS", key, job_id, "MAXLEN", SEARCHED),
            ("LPOS", key, job_id, "RANK", -1, "MAXLEN", SEARCHED),
        ]
    replies = client.pipeline(commands)
    for index, (name, state) in enumerate(LISTS.items()):
        length, head, tail = replies[3 * index : 3 * index + 3]
        # Redis before 6.0.6 has no LPOS.
        is_old = isinstance(head, ReplyError) and "unknown command" in head.raw.lower()
        seen = 0 if is_old else SEARCHED
        if not is_old and (checked(head) is not None or checked(tail) is not None):
            return state
        if (is_old or checked(length) > 2 * seen) and any(
            positions(client, keys(name), [job_id], seen)
        ):
            return state
    return None


def positions(
    client: Client, key: str, ids: Iterable[str], start: int = 0
) -> Iterator[dict[str, int]]:
    """Where in a list some entries are, from the head; a round trip an item, which may be empty.

    Adds at the head meanwhile move entries away from it: then one may be further in by now, and
    one may be seen twice, but none is missed.

    Args:
        start: how far in to begin.
    """
    wanted = set(ids)
    while wanted:
        window = client.call("LRANGE", key, start, start + _SENT - 1)
        found = {}
        if not wanted.isdisjoint(window):
            found = {job_id: start + i for i, job_id in enumerate(window) if job_id in wanted}
        yield found
        wanted.difference_update(found)
        if len(window) < _SENT:
            return
        start += _SENT - _OVERLAP
