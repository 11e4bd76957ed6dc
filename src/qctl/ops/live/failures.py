"""Failures of the queues that are not in sight: whoever looks at ten of a thousand queues wants to
hear of the others too.

Their event streams hold all that happens, so following those would cost what all queues do. Their
sets of failed jobs hold failures only; some of them are looked at in each reading, in turn.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from qctl.connection.address import Client
from qctl.ops.live.events import Failure
from qctl.ops.times import utc_datetime
from qctl.wire.keys import QueueKeys
from qctl.wire.read.failed import failed_since

# Queues looked at in one reading, and failures taken of each: well below 1 ms of Redis' time.
MOST_QUEUES = 200
_MOST_OF_A_QUEUE = 5


class OtherFailures:
    """Goes round the queues that are out of sight."""

    def __init__(self) -> None:
        self._began_ms = int(time.time() * 1000)
        self._since_ms: dict[str, int] = {}
        self._next = 0

    def read(
        self, client: Client, prefix: str, names: Sequence[str], in_sight: Collection[str]
    ) -> list[Failure]:
        """What has failed, for good, in those whose turn it is, the oldest first.

        Raises:
            ReplyError: Redis refuses to read the failed jobs of one.
        """
        now_ms = int(time.time() * 1000)
        # What happens in sight is told by events.
        self._since_ms.update(dict.fromkeys(in_sight, now_ms))
        others = [name for name in names if name not in in_sight]
        if self._next >= len(others):
            self._next = 0
        turn = others[self._next : self._next + MOST_QUEUES]
        self._next += len(turn)
        since_ms = {
            QueueKeys(prefix, name): self._since_ms.get(name, self._began_ms) for name in turn
        }
        jobs = failed_since(client, since_ms, _MOST_OF_A_QUEUE)
        for job in jobs:
            self._since_ms[job.keys.name] = job.at_ms
        return [Failure(job.keys.name, job.id, job.reason, utc_datetime(job.at_ms)) for job in jobs]
