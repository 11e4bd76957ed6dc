"""Refuses an action before it begins if this Redis user lacks a right that the action needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qctl.connection.address import Client
from qctl.errors import RefusedError
from qctl.wire.keys import QueueKeys
from qctl.wire.read.rights import MissingRights, read_missing_rights


def require_rights(
    client: Client, queues: Iterable[QueueKeys], scripts: Sequence[str], *, what: str
) -> bool:
    """Make sure that this Redis user may run every command of these scripts on each queue.

    Args:
        scripts: names of scripts: ``DRAIN`` or ``PAUSE`` of ``wire.read.rights``.
        what: the action, for the message, e.g. ``a drain``.

    Returns:
        False if the rights are unknown, as before Redis 7; then nothing is refused.

    Raises:
        RefusedError: a right is missing; the message names the commands.
    """
    for keys in queues:
        refused = read_missing_rights(client, keys, scripts)
        if refused is None:
            return False
        if refused:
            raise _refusal(keys, refused, what)
    return True


def _refusal(keys: QueueKeys, refused: MissingRights, what: str) -> RefusedError:
    missing = []
    if refused.on_queue:
        missing.append(f"on keys of queue {keys.name}: {', '.join(refused.on_queue)}")
    if refused.on_own:
        missing.append(f"on qctl's own keys, qctl:*: {', '.join(refused.on_own)}")
    commands = sorted({*refused.on_queue, *refused.on_own})
    grant = " ".join(f"+{name}" for name in commands)
    return RefusedError(
        f"this Redis user may not run all commands that {what} needs, so nothing was changed",
        why="not granted " + "; ".join(missing),
        hint=f"ACL SETUSER NAME {grant} ~{keys.prefix}:* ~qctl:*",
    )
