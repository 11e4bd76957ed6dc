"""All keys of one queue, found by a scan, and what each of them holds (wire format 2.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qctl.connection.address import Arg, Client
from qctl.wire.keys import ITERATION_PREFIX, OWN_KEYS, QueueKeys
from qctl.wire.read.discovery import SCAN_COUNT, literal, with_queue_meta
from qctl.wire.replies import read_values

# The ends of the keys that belong to a job, and what they hold.
_OF_A_JOB = {
    "lock": "locks",
    "logs": "logs",
    **dict.fromkeys(("dependencies", "processed", "failed", "unsuccessful"), "children"),
}
# The beginnings of other keys of a queue.
_OF_THE_QUEUE = {
    **dict.fromkeys(("de", "dn"), "deduplication"),
    **{"metrics": "metrics", "groups": "groups"},
}
# The digits of a scheduled job's due time.
_TIME_DIGITS = 13
# How many children of each parent are read.
_MAX_CHILDREN = 20


def scan_queue(client: Client, keys: QueueKeys) -> Iterator[list[str]]:
    """The queue's keys without their common start ``keys("")``, in batches; a batch may be empty.

    Keys that exist during the whole scan are visited at least once. Each step is one short command,
    but all keys of the database are looked at.
    """
    base = keys("")
    for node in client.masters():
        cursor = "0"
        while True:
            cursor, found = node.call(
                "SCAN", cursor, "MATCH", f"{literal(base)}*", "COUNT", SCAN_COUNT
            )
            yield [key.removeprefix(base) for key in found]
            if cursor == "0":
                break


def kind_of(suffix: str) -> str:
    """What a key of a queue holds; ``suffix`` is the key as ``scan_queue`` returns it."""
    if suffix in OWN_KEYS:
        return "schedulers" if suffix == "repeat" else "queue"
    first, _, rest = suffix.partition(":")
    if first in _OF_THE_QUEUE and rest:
        return _OF_THE_QUEUE[first]
    job_id, _, last = suffix.rpartition(":")
    if job_id and last in _OF_A_JOB:
        return _OF_A_JOB[last]
    if suffix.startswith(ITERATION_PREFIX):
        is_job = last.isdecimal() and len(last) == _TIME_DIGITS
        return "jobs" if is_job else "schedulers"
    return "jobs"


def inner_queues(client: Client, keys: QueueKeys, suffixes: Sequence[str]) -> list[QueueKeys]:
    """Other queues that some of these keys belong to.

    Example: the keys of queue ``b`` under the prefix ``a`` begin with ``a:b:``. So do the keys of
    queue ``c`` under the prefix ``a:b``.
    """
    queues = [
        QueueKeys(prefix, name)
        for suffix in suffixes
        if suffix.endswith((":meta", ":id"))
        for prefix, _, name in [keys(suffix).rpartition(":")[0].rpartition(":")]
    ]
    if not queues:
        return []
    counters = read_values(client, [("GET", queue("id")) for queue in queues], "")
    counted = {queue for queue, value in zip(queues, counters, strict=True) if value}
    return sorted(with_queue_meta(client, queues) | counted)


def relatives_elsewhere(
    client: Client, keys: QueueKeys, suffixes: Sequence[str]
) -> tuple[int, int]:
    """How many jobs have a parent in another queue, and how many have a pending child there.

    Up to ``_MAX_CHILDREN`` pending children of each parent are read. Takes one round trip.
    """
    base = keys("")
    jobs = [suffix for suffix in suffixes if kind_of(suffix) == "jobs"]
    parents = [suffix for suffix in suffixes if suffix.endswith(":dependencies")]
    reads: list[tuple[Arg, ...]] = [("HGET", keys(job), "parentKey") for job in jobs]
    reads += [("SRANDMEMBER", keys(suffix), _MAX_CHILDREN) for suffix in parents]
    replies = read_values(client, reads) if reads else []
    with_parent = sum(bool(key) and not key.startswith(base) for key in replies[: len(jobs)])
    with_child = sum(
        any(not key.startswith(base) for key in found or ()) for found in replies[len(jobs) :]
    )
    return with_parent, with_child
