"""Failed jobs by the text they failed with."""

from __future__ import annotations

from collections.abc import Iterator

from qctl.connect import Client
from qctl.wire.jobs import raised
from qctl.wire.keys import QueueKeys

_WINDOW = 500


def failed_with(client: Client, keys: QueueKeys, reason: str) -> Iterator[str]:
    """Ids of failed jobs whose ``failedReason`` is ``reason``, newest first.

    Reads the whole ``failed`` set in windows of 500, with bounded memory; a job that fails
    meanwhile may be seen twice or, if others are removed, missed.
    """
    start = 0
    seen: set[str] = set()
    while True:
        ids = client.call("ZREVRANGE", keys("failed"), start, start + _WINDOW - 1)
        if not ids:
            return
        reasons = client.pipeline([("HGET", keys(job_id), "failedReason") for job_id in ids])
        for job_id, told in zip(ids, reasons, strict=True):
            if raised(told) == reason and job_id not in seen:
                seen.add(job_id)
                yield job_id
        start += _WINDOW
