"""Apps that resume their queues when they start, as drains of them have seen."""

from __future__ import annotations

from qctl.connection.connect import Client
from qctl.ops.impact.scope import Scope
from qctl.ops.queues.agenda import moment
from qctl.wire.drain_record import Resumer, read_resumers


def habit(resumer: Resumer) -> str:
    """``pm2:app resumes it when it starts``, and when that was seen; ``it`` is the queue."""
    seen_at = moment(resumer.at_ms)
    seen = f", as seen at {seen_at:%Y-%m-%d %H:%M:%S} UTC" if seen_at else ""
    return f"{resumer.target} resumes it when it starts{seen}"


def ends_pauses(client: Client, scope: Scope, prefix: str) -> list[Resumer]:
    """The paused queues of a scope that its target resumes when it starts.

    Raises:
        ReplyError: this Redis user may not read what drains have seen.
    """
    paused = {snapshot.keys.name for snapshot in scope.snapshots if snapshot.paused}
    if scope.target is None or not paused:
        return []
    label = scope.target.label
    found = read_resumers(client, prefix)
    return [each for each in found if each.target == label and each.queue in paused]
