"""What ``qctl top`` shows on request: a job in full, its log, and groups of failed jobs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from qctl.cli.jobs import with_fates
from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.errors import InterruptedByUserError
from qctl.ops.jobs.failures import FailureReport, FailureScan
from qctl.ops.jobs.listing import show_job
from qctl.ops.jobs.logs import read_logs
from qctl.ops.queues.find import find_queues
from qctl.output.jobs import detail_lines
from qctl.output.text import visible
from qctl.output.top.actions import LogTail
from qctl.wire.keys import QueueKeys

# How many rows of a log, the last ones, a window shows.
MAX_ROWS = 500
# Failed jobs are counted oldest first. The count stops after about this many jobs.
MAX_FAILURES = 50_000
# How many groups of failed jobs, the largest ones, are shown.
MAX_GROUPS = 100
# How often the groups are shown while they are counted.
_REPORT_S = 0.5
_FEW_ROWS = 10
# How many characters of a log row are shown.
_MAX_ROW_TEXT = 2000


class CommandDetails:
    """Implements ``qctl.output.top.actions.Details``.

    Args:
        client: used by no one else, because a drain blocks the connection of the actions.
        keys_of: returns the queue for its name on the screen.
    """

    def __init__(
        self,
        client: Client,
        address: Address,
        settings: Settings,
        keys_of: Callable[[str], QueueKeys],
    ) -> None:
        self._client = client
        self._address = address
        self._settings = settings
        self._keys_of = keys_of
        # A window that is closed may still be reading when the next one opens.
        self._lock = threading.Lock()

    def job(self, queue: str, job_id: str) -> tuple[str, ...]:
        keys = self._keys_of(queue)
        with self._lock:
            (snapshot,) = find_queues(self._client, keys.prefix, [keys.name])
            job = show_job(self._client, keys, job_id)
            if job.state in {"active", "stalled"}:
                (job,) = with_fates(self._address, self._client, self._settings, snapshot, [job])
            log = read_logs(self._client, keys, job_id, start=-_FEW_ROWS) if job.log_rows else None
        lines = [*detail_lines(job, datetime.now(UTC), keys.prefix)]
        if log is not None:
            lines.append(f"last rows of the log ({log.total:,} in all; press l to see them):")
            lines += (f"  {_row_text(row)}" for row in log.logs)
        return tuple(lines)

    def log(self, queue: str, job_id: str) -> LogTail:
        with self._lock:
            page = read_logs(self._client, self._keys_of(queue), job_id, start=-MAX_ROWS)
        return LogTail(tuple(map(_row_text, page.logs)), page.total)

    def failures(self, queue: str) -> Iterator[FailureReport]:
        keys = self._keys_of(queue)
        with self._lock:
            (snapshot,) = find_queues(self._client, keys.prefix, [keys.name])
        scan = FailureScan(
            self._client,
            keys,
            "reason",
            snapshot.counts.failed,
            stop=lambda: scan.scanned >= MAX_FAILURES,
            may_retry=snapshot.format == "bullmq",
        )
        steps, ended, reported_at = iter(scan), object(), 0.0
        while True:
            try:
                with self._lock:
                    is_over = next(steps, ended) is ended
            except InterruptedByUserError:
                is_over = True
            if is_over or time.monotonic() - reported_at >= _REPORT_S:
                reported_at = time.monotonic()
                yield scan.report(MAX_GROUPS)
            if is_over:
                return


def _row_text(row: str) -> str:
    text = visible(row[:_MAX_ROW_TEXT])
    return f"{text}… ({len(row):,} characters)" if len(row) > _MAX_ROW_TEXT else text
