"""Reads and follows the log of a job: the rows that its handler wrote with ``job.log()``."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from qctl.connection.address import Client
from qctl.errors import QctlError, is_outage
from qctl.ops.jobs.missing import not_found
from qctl.wire.keys import QueueKeys
from qctl.wire.read.ending import has_ended
from qctl.wire.read.locate import locate

# How many of the last rows are remembered, to find the place again if BullMQ trims the log.
_MAX_REMEMBERED = 1000
# One command reads at most this many rows: a log may have any number of rows of any length.
_WINDOW = 1000


@dataclass(frozen=True, slots=True)
class LogPage:
    """Rows of a job's log, oldest first; ``total`` counts all rows that are kept."""

    queue: str
    id: str
    total: int
    logs: tuple[str, ...]


def read_logs(
    client: Client, keys: QueueKeys, job_id: str, *, start: int = 0, limit: int | None = None
) -> LogPage:
    """Rows of a job's log.

    Args:
        start: the first row, counted from 0; a negative number counts from the end.
        limit: how many rows at most; None for all.

    Raises:
        NotFoundError: there is no such job, and no log of it is left.
    """
    found = locate(client, keys, job_id)
    if not found.fields and not found.log_rows:
        raise not_found(keys, job_id, found.state)
    if start < 0:
        start = max(0, found.log_rows + start)
    rows = _rows(client, keys.logs(job_id), start, limit)
    return LogPage(keys.name, job_id, max(found.log_rows, len(rows)), tuple(rows))


def follow_logs(
    client: Client,
    keys: QueueKeys,
    job_id: str,
    *,
    start: int = 0,
    poll_s: float = 1.0,
    sleep: Callable[[float], None] = time.sleep,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[str]:
    """Rows of a job's log, then new rows as they are written, until the job has finished.

    While Redis cannot be reached, the function keeps trying.

    A job with ``keepLogs`` keeps only its last rows. Rows that are dropped before they are read are
    lost, and ``say`` reports the loss. After rows were dropped, a new row that equals an old row
    may be mistaken for the old row and left out.

    Args:
        poll_s: seconds between two reads.
        say: called with a line when Redis cannot be reached, when it can be reached again, and when
            rows may be missing.

    Raises:
        NotFoundError: there is no such job.
        QctlError: Redis cannot be reached at the start, or refuses a command.
    """
    page = read_logs(client, keys, job_id, start=start)
    yield from page.logs
    position = page.total
    tail = deque(page.logs, _MAX_REMEMBERED)
    log = keys.logs(job_id)
    is_away = False
    while True:
        try:
            # Check for the end before reading, so that no row written before the end is missed.
            ended = has_ended(client, keys, job_id)
            # The last known row is read again. If another row is in its place, the log was cut.
            rows = _rows(client, log, position - bool(tail))
            is_cut = bool(tail) and rows[:1] != [tail[-1]]
            if is_cut:
                # Read all rows to find the place again.
                rows = _rows(client, log, 0)
        except QctlError as error:
            if not is_outage(error):
                raise
            if not is_away:
                say(f"{error.what}; trying again")
            is_away = True
            sleep(poll_s)
            continue
        if is_away:
            is_away = False
            say("Redis is back")
        if is_cut:
            known = _overlap(tail, rows)
            if rows and not known:
                say("rows may be missing here: the log was cut or cleared before they were read")
            fresh = rows[known:]
            position = len(rows)
        else:
            fresh = rows[bool(tail) :]
            position += len(fresh)
        yield from fresh
        tail.extend(fresh)
        if ended:
            return
        sleep(poll_s)


def _rows(client: Client, log: str, start: int, limit: int | None = None) -> list[str]:
    rows: list[str] = []
    while limit is None or len(rows) < limit:
        size = _WINDOW if limit is None else min(limit - len(rows), _WINDOW)
        first = start + len(rows)
        part = client.call("LRANGE", log, first, first + size - 1)
        rows += part
        if len(part) < size:
            break
    return rows


def _overlap(tail: Sequence[str], rows: Sequence[str]) -> int:
    """The length of the longest beginning of ``rows`` that is also the end of ``tail``."""
    seen = list(tail)
    for size in range(min(len(seen), len(rows)), 0, -1):
        if seen[-size:] == list(rows[:size]):
            return size
    return 0
