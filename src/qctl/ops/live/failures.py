"""Failures in the queues that are out of sight, so that ``top`` shows those of all queues.

Following their event streams would cost as much as all that happens in them. Their sets of failed
jobs hold only failures; each reading reads those of a few queues, in turn.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from qctl.connection.address import Client
from qctl.ops.live.events import Failure
from qctl.ops.times import utc_datetime
from qctl.wire.keys import QueueKeys
from qctl.wire.read.finished import failed_since

# Queues in one reading, and failures of each: well below 1 ms of Redis' time.
MAX_QUEUES = 200
_MAX_OF_A_QUEUE = 5


class OtherFailures:
    """Reads the failures of the queues out of sight, in turn."""

    def __init__(self) -> None:
        self._began_ms = int(time.time() * 1000)
        self._since_ms: dict[str, int] = {}
        self._next = 0

    def read(
        self, client: Client, prefix: str, names: Sequence[str], in_sight: Collection[str]
    ) -> list[Failure]:
        """Jobs that failed for good in the queues whose turn it is, oldest first.

        Raises:
            ReplyError: Redis refuses to read the failed jobs of a queue.
        """
        now_ms = int(time.time() * 1000)
        # EventRates has the failures of the queues in sight.
        self._since_ms.update(dict.fromkeys(in_sight, now_ms))
        others = [name for name in names if name not in in_sight]
        if self._next >= len(others):
            self._next = 0
        turn = others[self._next : self._next + MAX_QUEUES]
        self._next += len(turn)
        since_ms = {
            QueueKeys(prefix, name): self._since_ms.get(name, self._began_ms) for name in turn
        }
        jobs = failed_since(client, since_ms, _MAX_OF_A_QUEUE)
        for job in jobs:
            self._since_ms[job.keys.name] = job.at_ms
        return [Failure(job.keys.name, job.id, job.reason, utc_datetime(job.at_ms)) for job in jobs]
