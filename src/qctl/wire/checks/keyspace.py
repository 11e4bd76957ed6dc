"""Scans the database for jobs in no state, and for deduplication keys without a job.

No list or set contains these jobs and keys, so only SCAN finds them. SCAN visits all keys of the
database, including the keys of other programs. The order does not depend on the names of the keys,
so the first steps are a fair sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from qctl.connection.address import Arg, Client
from qctl.wire.keys import OWN_KEYS, JobKey, QueueKeys
from qctl.wire.read.discovery import SCAN_COUNT, literal
from qctl.wire.read.lists import in_no_sorted_set, read_lists
from qctl.wire.replies import checked, read_groups, to_int, value_or
from qctl.wire.states import is_marker

# About how many ids one search reads of each kind of list (``wait``, ``paused``, ``active``), from
# all queues together.
MAX_WAITING = 20_000
# Suffixes of keys that are not jobs (wire format 2.1, 10.3).
_NOT_JOBS = OWN_KEYS | {"meta-paused"}
# A job's other keys are named like its hash, with a colon and one of these words at the end.
_PARTS = ("lock", "logs", "dependencies", "processed", "failed", "unsuccessful")
# The fields of a job's hash that are read; ``ats`` counts the starts of the job.
_FIELDS = ("timestamp", "ats", "processedOn", "finishedOn")


@dataclass(frozen=True, slots=True)
class Stray:
    """A job in no state.

    Args:
        finished: the job has ended, and its hash is a leftover.
        ghost: the job was never added: a worker took an id that had no hash, and created the hash
            (wire format T8).
        added_at_ms: epoch milliseconds; 0 if the hash has no such time.
    """

    keys: QueueKeys
    id: str
    finished: bool
    ghost: bool
    added_at_ms: int


@dataclass(frozen=True, slots=True)
class StaleDedup:
    """A deduplication key whose job is gone; ``expires`` is True if the key has a TTL."""

    keys: QueueKeys
    id: str
    expires: bool
    key: str


def database_size(client: Client) -> int:
    """The number of keys in the database, including the keys of other programs."""
    return sum(int(node.call("DBSIZE")) for node in client.masters())


def scan_keys(
    client: Client, queues: Sequence[QueueKeys], max_keys: int | None
) -> Iterator[tuple[int, list[JobKey], list[JobKey]]]:
    """Find the keys of some queues, one SCAN at a time. All queues must have the same prefix.

    Yields:
        For each SCAN command: about how many keys of any kind it visited, the found keys that may
        be a job's hash, and the found deduplication keys (each as queue and deduplication id).

    Args:
        max_keys: stop after about this many keys of any kind on all masters; None to visit all.
    """
    known = {keys.name: keys for keys in queues}
    prefix = queues[0].prefix
    only = f"{literal(queues[0].name)}:" if len(queues) == 1 else ""
    pattern = f"{literal(prefix)}:{only}*"
    masters = client.masters()
    for node in masters:
        left = None if max_keys is None else max_keys // len(masters)
        cursor = "0"
        while left is None or left > 0:
            cursor, found = node.call("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)
            yield SCAN_COUNT, *_classify(prefix, known, found)
            if cursor == "0":
                break
            left = None if left is None else left - SCAN_COUNT


def find_strays(
    client: Client, jobs: Sequence[JobKey], *, max_waiting: int | None
) -> tuple[list[Stray], int]:
    """The jobs in no state, and how many jobs may be in the unread part of a list.

    Each job is searched for twice, because a job that moves from one state to the next may be seen
    in neither. A job whose hash has changed between the two searches is left out.

    Args:
        max_waiting: about how many ids to read of each kind of list, as for ``MAX_WAITING``; None
            to read all.
    """
    first, undetermined = _unlisted(client, jobs, max_waiting)
    second, _ = _unlisted(client, list(first), max_waiting)
    found = [
        Stray(
            *job,
            finished=finished_on is not None,
            ghost=timestamp is None,
            added_at_ms=to_int(timestamp) or 0,
        )
        for job, (timestamp, *_, finished_on) in second.items()
        if first[job] == second[job]
    ]
    return found, undetermined


# The values of ``_FIELDS`` in a job's hash.
_Values = tuple[str | None, ...]


def _unlisted(
    client: Client, jobs: Sequence[JobKey], max_waiting: int | None
) -> tuple[dict[JobKey, _Values], int]:
    """The fields of the jobs in no state, and how many jobs may be in an unread part of a list."""
    outside, _ = jobs_in_no_set(client, jobs)
    listed = read_lists(client, sorted({keys for keys, _ in outside}), max_waiting)
    unlisted = {job: fields for job, fields in outside.items() if job[1] not in listed[job[0]].ids}
    certain = {job: fields for job, fields in unlisted.items() if listed[job[0]].is_complete}
    return certain, len(unlisted) - len(certain)


def jobs_in_no_set(client: Client, jobs: Sequence[JobKey]) -> tuple[dict[JobKey, _Values], int]:
    """The fields of the jobs that are in no sorted set, and the number of all jobs.

    Args:
        jobs: keys that may be a job's hash; the other keys are not counted.
    """
    reads: list[tuple[Arg, ...]] = [("HMGET", keys(job_id), *_FIELDS) for keys, job_id in jobs]
    rows = client.pipeline(reads)
    states = {
        job: tuple(row)
        for job, reply in zip(jobs, rows, strict=True)
        # The hash of a scheduler has neither timestamp nor ats.
        if (row := value_or(reply, [None] * len(_FIELDS)))[0] is not None or row[1] is not None
    }
    outside = in_no_sorted_set(client, list(states))
    return {job: states[job] for job in outside}, len(states)


def stale_dedups(client: Client, dedups: Sequence[JobKey]) -> list[StaleDedup]:
    """Deduplication keys whose job is gone.

    Each key is checked twice, because a job and its key may be deleted between two reads.
    """
    found = _stale(client, dedups)
    return _stale(client, [(stale.keys, stale.id) for stale in found]) if found else []


def _stale(client: Client, dedups: Sequence[JobKey]) -> list[StaleDedup]:
    names = [keys(f"de:{dedup_id}") for keys, dedup_id in dedups]
    rows = read_groups(client, [(("GET", name), ("PTTL", name)) for name in names])
    owners = [value_or(owner, None) for owner, _ in rows]
    exist: list[tuple[Arg, ...]] = [
        ("EXISTS", keys(owner or "")) for (keys, _), owner in zip(dedups, owners, strict=True)
    ]
    there = client.pipeline(exist)
    return [
        StaleDedup(keys, dedup_id, expires=checked(ttl) >= 0, key=name)
        for (keys, dedup_id), name, owner, (_, ttl), exists in zip(
            dedups, names, owners, rows, there, strict=True
        )
        if owner is not None and not checked(exists)
    ]


def _classify(
    prefix: str, known: Mapping[str, QueueKeys], found: Sequence[str]
) -> tuple[list[JobKey], list[JobKey]]:
    """The keys that may be a job's hash, and the deduplication keys."""
    jobs, dedups = [], []
    for key in found:
        name, _, suffix = key[len(prefix) + 1 :].partition(":")
        keys = known.get(name)
        if keys is None or suffix in _NOT_JOBS or not suffix or is_marker(suffix):
            continue
        head, _, rest = suffix.partition(":")
        if head == "de":
            dedups.append((keys, rest))
        # A ``dn`` key is not a job's hash: it stores a job that BullMQ adds later, when the job
        # that has the deduplication id ends.
        elif head not in {"dn", "metrics"} and suffix.rpartition(":")[2] not in _PARTS:
            jobs.append((keys, suffix))
    return jobs, dedups
