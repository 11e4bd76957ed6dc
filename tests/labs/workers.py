"""Heartbeats of qctl's own workers."""

from __future__ import annotations

from qctl.wire.read.heartbeats import Heartbeat

BEAT = Heartbeat(
    *("own-1", "far", 4711, "qctl:emails", "bull", "q", "far-4711-0"),
    started_ms=1_700_000_000_000,
    concurrency=2,
    busy=1,
    quiet=False,
    completed=7,
    failed=1,
    rss_bytes=30_000_000,
)
