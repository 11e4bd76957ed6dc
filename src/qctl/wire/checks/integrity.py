"""Finds ids whose job hash is gone, in the lists and sorted sets of queues (wire format T8)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qctl.connection.address import Arg, Client
from qctl.wire.keys import QueueKeys
from qctl.wire.read.lists import windows
from qctl.wire.read.snapshot import QueueSnapshot
from qctl.wire.replies import checked, value_or
from qctl.wire.states import LISTS, SORTED_SETS, is_marker

# About how many ids are checked in all queues together.
MAX_IDS = 10_000
# The largest and the smallest number of ids to check at each end of a list or set.
_MAX_PER_END, _MIN_PER_END = 200, 5
_WINDOW = 1000
# ``waiting`` is the state of the jobs in the lists ``wait`` and ``paused``.
_STATES = ("waiting", "active", *SORTED_SETS)


@dataclass(frozen=True, slots=True, order=True)
class IdWithoutJob:
    """An id whose job hash is gone, and the list, sorted set or state that contains the id."""

    keys: QueueKeys
    state: str
    id: str


def ids_without_job(
    client: Client, queues: Sequence[QueueSnapshot], *, full: bool = False
) -> tuple[list[IdWithoutJob], int, int]:
    """The ids without a job hash, the number of ids checked, and the number of all ids.

    Args:
        full: check every id, in windows of 1,000. If False, check the ids at both ends of each
            list and set: about 10,000 ids, in at most four round trips.
    """
    found, examined, total = (_check_all if full else _check_sample)(client, queues)
    return sorted(found), examined, total


def _check_sample(
    client: Client, queues: Sequence[QueueSnapshot]
) -> tuple[list[IdWithoutJob], int, int]:
    # Ids without a hash are read again, because a job may be removed after its id was read.
    sizes = [
        (queue.keys, state, size) for queue in queues for state, size in queue.sizes.items() if size
    ]
    per_end = min(max(MAX_IDS // (2 * max(len(sizes), 1)), _MIN_PER_END), _MAX_PER_END)
    ids = _ends(client, [(keys, state) for keys, state, _ in sizes], per_end)
    missing = _without_hash(client, ids)
    if missing:
        again = _ends(client, sorted({(each.keys, each.state) for each in missing}), per_end)
        missing = _without_hash(client, [each for each in again if each in set(missing)])
    return missing, len(ids), sum(size for _, _, size in sizes)


def _check_all(
    client: Client, queues: Sequence[QueueSnapshot]
) -> tuple[list[IdWithoutJob], int, int]:
    found: set[IdWithoutJob] = set()
    examined = 0
    for queue in queues:
        for state in _STATES:
            missing: set[IdWithoutJob] = set()
            for window in _windows(client, queue.keys, state):
                examined += len(window)
                missing.update(_without_hash(client, window))
            if missing:
                windows_again = _windows(client, queue.keys, state)
                again = [each for window in windows_again for each in window if each in missing]
                found.update(_without_hash(client, again))
    return list(found), examined, examined


def _ends(
    client: Client, places: Sequence[tuple[QueueKeys, str]], per_end: int
) -> list[IdWithoutJob]:
    commands: list[tuple[Arg, ...]] = []
    for keys, state in places:
        command = "LRANGE" if state in LISTS else "ZRANGE"
        commands += [(command, keys(state), 0, per_end - 1), (command, keys(state), -per_end, -1)]
    replies = iter(client.pipeline(commands))
    return [
        IdWithoutJob(keys, state, job_id)
        for keys, state in places
        for job_id in dict.fromkeys([*value_or(next(replies), []), *value_or(next(replies), [])])
        if not is_marker(job_id)
    ]


def _windows(client: Client, keys: QueueKeys, state: str) -> Iterator[list[IdWithoutJob]]:
    for window in windows(client, keys, state, _WINDOW):
        yield [IdWithoutJob(keys, state, entry.id) for entry in window]


def _without_hash(client: Client, ids: Sequence[IdWithoutJob]) -> list[IdWithoutJob]:
    commands = [("EXISTS", each.keys(each.id)) for each in ids]
    replies = client.pipeline(commands)
    return [each for each, exists in zip(ids, replies, strict=True) if not checked(exists)]
