"""Sample results for the tests of output/."""

from __future__ import annotations

from qctl.ops.queues.status import (
    ProcessStatus,
    QueueStatus,
    RedisInfo,
)
from qctl.wire.read.snapshot import Counts

QUEUE = QueueStatus(
    name="email",
    prefix="bull",
    format="bullmq",
    client_version="6.7.0",
    paused=False,
    paused_by=None,
    counts=Counts(1, 2, 0, 0, 0, 0, 3, 0),
    overdue=0,
    waiting_is_least=False,
    oldest_waiting_s=250.0,
    schedulers=0,
    workers=1,
    paused_at=None,
    draining=False,
    legacy_paused=0,
    rate_limited_s=None,
    rate_limit=None,
    concurrency=None,
    is_maxed=False,
    is_broken=False,
    notes=(),
)

PROCESS = ProcessStatus("pm2:w\x1b[2J", "3", 4711, "online", 61.0, 2, 12.4, 97_500_000, ("email",))

REDIS = RedisInfo("redis://h:1/0", "7.0.15", "standalone")
