"""The children of a flow's parent (wire format 2.1, 5.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qctl.connection.address import Arg, Client
from qctl.errors import ReplyError
from qctl.wire.keys import JobKey, QueueKeys, job_of
from qctl.wire.replies import checked, read_groups, read_object, value_or

# The keys in which a parent lists its children, each with the command that scans it. The first key
# lists the children that have not ended, and the last one those that completed.
_SCANS = {
    "dependencies": "SSCAN",
    "unsuccessful": "ZSCAN",
    "failed": "HSCAN",
    "processed": "HSCAN",
}
# One scan command lists about this many children.
_SCAN_COUNT = 500
# At most this many children are read in one round trip.
_WINDOW = 500


@dataclass(frozen=True, slots=True)
class Child:
    """A job that a parent lists as its child.

    Args:
        job: the child's queue and id; None if the key has another prefix than the parent's.
        has_this_parent: whether the child's hash names this parent. If not, the child has been
            deleted, and another job may have its key.
        has_children: whether the child has or had children itself.
        is_locked: whether a worker holds the child's lock.
    """

    key: str
    job: JobKey | None
    has_this_parent: bool
    has_children: bool
    is_locked: bool


def children(client: Client, keys: QueueKeys, job_id: str) -> Iterator[Sequence[Child]]:
    """All children that a job lists, ended or not, at most ``_WINDOW`` at a time.

    The caller may delete children between two windows. A scan may repeat a child.
    """
    parent_key = keys(job_id)
    for _, found in child_keys(client, parent_key):
        for start in range(0, len(found), _WINDOW):
            yield _read(client, keys.prefix, parent_key, found[start : start + _WINDOW])


def child_keys(client: Client, parent_key: str) -> Iterator[tuple[str, list[str]]]:
    """The keys of all children that a job lists.

    Each yielded part is the name of a list, and some of the keys in that list. The lists are
    ``dependencies``, ``unsuccessful``, ``failed`` and ``processed``, in this order. A scan may
    repeat a key.
    """
    for suffix, command in _SCANS.items():
        for found in _scan(client, f"{parent_key}:{suffix}", command):
            yield suffix, found


def _scan(client: Client, key: str, command: str) -> Iterator[list[str]]:
    cursor = "0"
    while True:
        try:
            cursor, flat = client.call(command, key, cursor, "COUNT", _SCAN_COUNT)
        except ReplyError as error:
            if error.code != "WRONGTYPE":
                raise
            return
        yield flat if command == "SSCAN" else flat[::2]
        if cursor == "0":
            return


def _read(
    client: Client, prefix: str, parent_key: str, child_keys: Sequence[str]
) -> Sequence[Child]:
    reads: list[list[tuple[Arg, ...]]] = [
        # One EXISTS per key: a cluster that moves a slot refuses commands with several keys.
        [
            ("HMGET", key, "parentKey", "parent"),
            *(("EXISTS", f"{key}:{suffix}") for suffix in (*_SCANS, "lock")),
        ]
        for key in child_keys
    ]
    found = []
    for key, (fields, *exists) in zip(child_keys, read_groups(client, reads), strict=True):
        *below, lock = map(checked, exists)
        has_this_parent = _names_parent(value_or(fields, (None, None)), parent_key)
        found.append(Child(key, job_of(key, prefix), has_this_parent, any(below), bool(lock)))
    return found


def _names_parent(fields: Sequence[str | None], parent_key: str) -> bool:
    key, text = fields
    if key != parent_key:
        return False
    parent = read_object(text)
    queue, job_id = parent.get("queueKey"), parent.get("id")
    # ``parent`` may lack the queueKey or the id. If it has both, they must agree with parentKey.
    return not (queue and job_id) or f"{queue}:{job_id}" == parent_key
