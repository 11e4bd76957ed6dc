"""Apps that resume their queues when they start, as observed by drains."""

from __future__ import annotations

from collections.abc import Sequence

from qctl.connection.address import Client
from qctl.ops.times import utc_datetime
from qctl.wire.drain_record import Resumer, read_resumers
from qctl.wire.read.snapshot import QueueSnapshot


def resumer_text(resumer: Resumer) -> str:
    """``pm2:app resumes it when it starts``, and when a drain saw that; ``it`` is the queue."""
    seen_at = utc_datetime(resumer.at_ms)
    seen = f", as seen at {seen_at:%Y-%m-%d %H:%M:%S} UTC" if seen_at else ""
    return f"{resumer.target} resumes it when it starts{seen}"


def resumers_of(
    client: Client, prefix: str, target: str, snapshots: Sequence[QueueSnapshot]
) -> list[Resumer]:
    """The paused queues among ``snapshots`` that an app resumes when it starts.

    Args:
        target: the app's target, e.g. ``pm2:app``.

    Raises:
        ReplyError: this Redis user may not read what drains have seen.
    """
    paused = {snapshot.keys.name for snapshot in snapshots if snapshot.paused}
    found = read_resumers(client, prefix) if paused else []
    return [each for each in found if each.target == target and each.queue in paused]
