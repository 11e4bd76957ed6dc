"""The children of a flow's parent, and theirs (wire format 2.1, 5.4)."""

from __future__ import annotations

from collections.abc import Iterator

from qctl.connect import Client
from qctl.errors import ReplyError
from qctl.wire.jobs import raised
from qctl.wire.keys import QueueKeys

# Where a parent keeps its children: those that have not ended, and those that have.
_SCANS = {
    "dependencies": "SSCAN",
    "processed": "HSCAN",
    "failed": "HSCAN",
    "unsuccessful": "ZSCAN",
}
_COUNT = 500
# Jobs whose locks are asked for at once.
_WINDOW = 200


def descendants(
    client: Client, keys: QueueKeys, job_id: str, *, most: int
) -> list[tuple[QueueKeys, str]] | None:
    """All jobs below a job, whatever became of them; None if there are more than ``most``."""
    found: dict[tuple[QueueKeys, str], None] = {}
    pending = [(keys, job_id)]
    while pending:
        parent_keys, parent_id = pending.pop()
        for child_key in _children(client, parent_keys(parent_id)):
            child = _job_of(keys.prefix, child_key)
            if child is None or child in found or child == (keys, job_id):
                continue
            if len(found) >= most:
                return None
            found[child] = None
            pending.append(child)
    return list(found)


def any_locked(client: Client, jobs: list[tuple[QueueKeys, str]]) -> bool:
    """Whether a worker has one of the jobs."""
    for start in range(0, len(jobs), _WINDOW):
        window = jobs[start : start + _WINDOW]
        if any(map(raised, client.pipeline([("EXISTS", k.lock(i)) for k, i in window]))):
            return True
    return False


def _children(client: Client, parent_key: str) -> Iterator[str]:
    for suffix, command in _SCANS.items():
        cursor = "0"
        while True:
            try:
                cursor, flat = client.call(
                    command, f"{parent_key}:{suffix}", cursor, "COUNT", _COUNT
                )
            except ReplyError as error:
                if error.code != "WRONGTYPE":
                    raise
                break
            yield from flat if command == "SSCAN" else flat[::2]
            if cursor == "0":
                break


def _job_of(prefix: str, job_key: str) -> tuple[QueueKeys, str] | None:
    # A queue's name has no colon, an id may have.
    queue, _, job_id = job_key.removeprefix(f"{prefix}:").partition(":")
    if not job_key.startswith(f"{prefix}:") or not queue or not job_id:
        return None
    return QueueKeys(prefix, queue), job_id
