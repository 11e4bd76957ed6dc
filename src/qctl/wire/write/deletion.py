"""Deletes a queue with all its keys."""

from __future__ import annotations

from collections.abc import Iterator

from qctl.connection.address import Client
from qctl.wire.keys import OWN_KEYS, QueueKeys
from qctl.wire.read.whole_queue import scan_queue
from qctl.wire.replies import read_checked

# qctl finds a queue by these keys. All other keys of BullMQ are deleted before them, so that an
# interrupted deletion can be started again.
_LAST = ("events", "id", "meta")


def delete_queue(client: Client, keys: QueueKeys) -> Iterator[int]:
    """Delete all keys of a queue. After each step, yield the number of keys that the step deleted.

    The lists and sorted sets are deleted first, so that no worker takes a job whose record is gone.
    Then the jobs are deleted, then the keys by which qctl finds the queue, and at the end qctl's
    own notes about the queue, which are not counted. Redis frees large values in the background, so
    every command is short.
    """
    yield _delete(client, [keys(name) for name in sorted(OWN_KEYS - {*_LAST})])
    for suffixes in scan_queue(client, keys):
        yield _delete(client, [keys(suffix) for suffix in suffixes if suffix not in _LAST])
    yield _delete(client, [keys(name) for name in _LAST])
    _delete(client, [keys.pause_note, keys.lease])


def remaining(client: Client, keys: QueueKeys) -> list[str]:
    """The queue's own keys that exist. After a deletion, only other clients can have made them."""
    names = sorted(OWN_KEYS)
    found = read_checked(client, [("EXISTS", keys(name)) for name in names])
    return [name for name, exists in zip(names, found, strict=True) if exists]


def _delete(client: Client, full_keys: list[str]) -> int:
    # One key a command, because a cluster that moves a slot refuses commands with several keys.
    return sum(read_checked(client, [("UNLINK", key) for key in full_keys])) if full_keys else 0
