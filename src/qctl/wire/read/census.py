"""Counts and lists the unfinished jobs of a queue, and finds jobs in no state (wire format 4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice

from qctl.connection.address import Client
from qctl.wire import scripts
from qctl.wire.keys import JobKey, QueueKeys, iteration_prefix
from qctl.wire.read.lists import in_no_sorted_set, read_lists, windows
from qctl.wire.replies import read_groups, to_dict, value_or

# Jobs move in this order, so a job that moves during the reading is seen in its next state.
_READ_ORDER = ("waiting-children", "delayed", "prioritized", "waiting")
# The keys of census.lua, in its order.
_KEYS = (
    *("wait", "paused", "active", "prioritized", "delayed", "waiting-children"),
    *("events", "repeat"),
)
# How many ids one round trip reads, and how many schedulers of a queue are read at most.
_WINDOW = 2500
_MAX_SCHEDULERS = 1000
# How many jobs one round trip searches for.
_BATCH = 1000

# What is left of a job that is in no state: no hash, the hash of an ended job, or another hash.
DELETED = "deleted"
ENDED = "finished"
STRAY = "stray"


@dataclass(frozen=True, slots=True)
class Census:
    """The unfinished jobs of a queue at one moment.

    Args:
        counts: by state, ``active`` included.
        last_event_id: id of the newest event at that moment; ``0-0`` if there was none.
        iterations: ids of the pending jobs of up to 1,000 schedulers.
    """

    counts: dict[str, int]
    last_event_id: str
    iterations: frozenset[str]

    @property
    def job_count(self) -> int:
        return sum(self.counts.values())


def read_census(client: Client, keys: QueueKeys) -> Census:
    """Count a queue's unfinished jobs with one run of a script, which does not read the jobs.

    Raises:
        ReplyError: a key has a wrong type, or the user may not run scripts.
    """
    wait, paused, active, prioritized, delayed, children, last, schedulers = scripts.run(
        client, "census", [keys(name) for name in _KEYS], [_MAX_SCHEDULERS]
    )
    counts = {
        "waiting-children": children,
        "delayed": delayed,
        "prioritized": prioritized,
        "waiting": wait + paused,
        "active": active,
    }
    pending = frozenset(
        iteration_prefix(name) + at_ms for name, at_ms in to_dict(schedulers).items()
    )
    return Census(counts, str(last), pending)


def read_ids(
    client: Client, keys: QueueKeys, counts: dict[str, int], max_ids: int
) -> dict[str, str]:
    """Ids of the unfinished jobs that are not active, with their states.

    Args:
        counts: number of jobs by state.
        max_ids: how many ids to return at most. If there are more jobs, each state gets an equal
            share, filled with the jobs of this state that run first.
    """
    filled = [state for state in _READ_ORDER if counts[state]]
    fits = sum(counts[state] for state in filled) <= max_ids
    share = max_ids if fits else max_ids // len(filled)
    found: dict[str, str] = {}
    for state in filled:
        entries = chain.from_iterable(windows(client, keys, state, min(_WINDOW, share)))
        found.update((entry.id, state) for entry in islice(entries, share))
    return found


def in_no_state(client: Client, jobs: Iterable[JobKey]) -> dict[JobKey, str]:
    """Those of ``jobs`` that are in no list and no sorted set, and what is left of each.

    A job that moves during the search may be returned by mistake, so a caller that must be sure
    passes the returned jobs to this function again. What is left is ``DELETED``, ``ENDED`` or
    ``STRAY``.
    """
    wanted: dict[QueueKeys, set[str]] = {}
    for keys, job_id in jobs:
        wanted.setdefault(keys, set()).add(job_id)
    listed = read_lists(client, list(wanted), only=wanted)
    left = [
        (keys, job_id) for keys, ids in wanted.items() for job_id in sorted(ids - listed[keys].ids)
    ]
    found: dict[JobKey, str] = {}
    for start in range(0, len(left), _BATCH):
        nowhere = in_no_sorted_set(client, left[start : start + _BATCH])
        reads = [
            (("HLEN", keys(job_id)), ("HGET", keys(job_id), "finishedOn"))
            for keys, job_id in nowhere
        ]
        for job, (size, finished) in zip(nowhere, read_groups(client, reads), strict=True):
            has_ended = value_or(finished, None) is not None
            found[job] = DELETED if not value_or(size, 0) else ENDED if has_ended else STRAY
    return found
