"""Reads the jobs of one state in chunks, with their hashes and locks (wire format 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qctl.connection.address import Client
from qctl.errors import UsageError
from qctl.wire.jobs import ReadJob, read_jobs
from qctl.wire.keys import QueueKeys
from qctl.wire.read import lists
from qctl.wire.read.active import read_active
from qctl.wire.read.lists import Entry
from qctl.wire.states import STATES

# At most this many jobs are read at a time.
CHUNK = 200


def check_state(state: str) -> None:
    """Refuse a text that is not one of ``STATES``.

    Raises:
        UsageError: there is no such state.
    """
    if state not in STATES:
        raise UsageError(f"no state {state!r}", why=f"states: {', '.join(STATES)}")


def chunks_of(
    client: Client, keys: QueueKeys, state: str, size: int = CHUNK
) -> Iterator[list[Entry]]:
    """The ids of the jobs in a state (one of ``STATES``), in the order of ``lists.windows``.

    To find stalled jobs, all active jobs are read. A queue has few active jobs.
    """
    if state != "stalled":
        yield from lists.windows(client, keys, state, size)
        return
    yield from in_chunks([Entry(j.id) for j in read_active(client, [keys]) if j.is_orphan], size)


def in_chunks(entries: Sequence[Entry], size: int) -> Iterator[list[Entry]]:
    """The entries in lists of at most ``size``."""
    for start in range(0, len(entries), size):
        yield [*entries[start : start + size]]


def read_chunk(
    client: Client, keys: QueueKeys, state: str, entries: Sequence[Entry]
) -> list[tuple[Entry, ReadJob | None]]:
    """The jobs of one chunk, without those that have meanwhile left ``active`` or ``stalled``.

    A job whose hash is gone is None.
    """
    # Only active jobs have locks.
    locks = state in {"active", "stalled"}
    found = read_jobs(client, keys, [entry.id for entry in entries], locks=locks)
    pairs = list(zip(entries, found, strict=True))
    if state == "active" and any(job is None or job.lock_token is None for _, job in pairs):
        # A job without a lock has stalled if its id is still in active. Otherwise, it has ended.
        still = frozenset(lists.active_ids(client, keys))
        return [pair for pair in pairs if (pair[1] and pair[1].lock_token) or pair[0].id in still]
    if state == "stalled":
        # A job that has a lock again is not stalled: a worker has taken it.
        return [(entry, job) for entry, job in pairs if job is None or job.lock_token is None]
    return pairs
