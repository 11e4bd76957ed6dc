"""Which jobs a queue has that have not ended, and which of some ids are nowhere (wire format 4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice

from qctl.connection.address import Arg, Client
from qctl.wire import scripts
from qctl.wire.keys import JobRef, QueueKeys
from qctl.wire.read.lists import in_no_sorted_set, read_lists, windows
from qctl.wire.replies import to_dict, value_or

# In the order in which jobs move on: one that moves while they are read is seen where it goes.
_READ_ORDER = ("waiting-children", "delayed", "prioritized", "waiting")
_KEYS = (
    "wait",
    "paused",
    "active",
    "prioritized",
    "delayed",
    "waiting-children",
    "events",
    "repeat",
)
# Ids of one read.
_WINDOW = 2500
_SCHEDULERS = 1000
# Jobs looked for in one round trip.
_BATCH = 1000

# What is left of a job that is in no state.
DELETED = "deleted"
ENDED = "finished"
STRAY = "stray"


@dataclass(frozen=True, slots=True)
class Census:
    """The jobs of a queue that have not ended, at one moment.

    Args:
        counts: by state, ``active`` included.
        last_event_id: the last event that had happened; ``0-0`` if the stream was empty.
        iterations: ids of the pending jobs of schedulers, of 1,000 at most.
    """

    counts: dict[str, int]
    last_event_id: str
    iterations: frozenset[str]

    @property
    def jobs(self) -> int:
        return sum(self.counts.values())


def read_census(client: Client, keys: QueueKeys) -> Census:
    """Count a queue's jobs in one script, whatever their number.

    Raises:
        ReplyError: a key is of a wrong type, or the user may not run scripts.
    """
    wait, paused, active, prioritized, delayed, children, last, schedulers = scripts.run(
        client, "census", [keys(name) for name in _KEYS], [_SCHEDULERS]
    )
    counts = {
        "waiting-children": children,
        "delayed": delayed,
        "prioritized": prioritized,
        "waiting": wait + paused,
        "active": active,
    }
    pending = frozenset(f"repeat:{name}:{at_ms}" for name, at_ms in to_dict(schedulers).items())
    return Census(counts, str(last), pending)


def read_ids(client: Client, keys: QueueKeys, counts: dict[str, int], most: int) -> dict[str, str]:
    """Ids of the jobs that wait in some way, with their states: all, or those that run next.

    Args:
        counts: by state; more than ``most`` in all gives each state the same share.
        most: how many ids.
    """
    filled = [state for state in _READ_ORDER if counts[state]]
    fits = sum(counts[state] for state in filled) <= most
    share = most if fits else most // len(filled)
    found: dict[str, str] = {}
    for state in filled:
        entries = chain.from_iterable(windows(client, keys, state, min(_WINDOW, share)))
        found.update((entry.id, state) for entry in islice(entries, share))
    return found


def in_no_state(client: Client, jobs: Iterable[JobRef]) -> dict[JobRef, str]:
    """Those of some jobs that are in no list and no sorted set, and what is left of each.

    A job that moves meanwhile may be among them: look again.

    Returns:
        ``deleted`` when its hash is gone, ``finished`` when that says that the job has ended, else
        ``stray``.
    """
    wanted: dict[QueueKeys, set[str]] = {}
    for keys, job_id in jobs:
        wanted.setdefault(keys, set()).add(job_id)
    listed = read_lists(client, list(wanted), only=wanted)
    left = [
        (keys, job_id) for keys, ids in wanted.items() for job_id in sorted(ids - listed[keys].ids)
    ]
    found: dict[JobRef, str] = {}
    for start in range(0, len(left), _BATCH):
        nowhere = in_no_sorted_set(client, left[start : start + _BATCH])
        reads: list[tuple[Arg, ...]] = []
        for keys, job_id in nowhere:
            reads += [("HLEN", keys(job_id)), ("HGET", keys(job_id), "finishedOn")]
        rows = iter(client.pipeline(reads) if reads else ())
        for job in nowhere:
            size, finished = value_or(next(rows), 0), value_or(next(rows), None)
            found[job] = DELETED if not size else ENDED if finished is not None else STRAY
    return found
