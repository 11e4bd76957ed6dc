"""Counts the failed jobs of a queue by the reason, the name or a value of the payload.

Every failed job is read once, oldest failure first, while other clients go on. Memory is bounded:
when too many groups are held, the rarer half is merged into "other". Every job is still counted.
But the count of a group that begins after a merge is a lower bound, because earlier jobs of the
group may be in "other".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from qctl.connection.address import Client
from qctl.errors import InterruptedByUserError, PartialError, QctlError, UsageError
from qctl.ops.jobs.listing import read_entries
from qctl.ops.jobs.model import Job
from qctl.ops.jobs.where import Filter, equality, field_reader
from qctl.ops.processes.suggest import command
from qctl.plurals import counted
from qctl.wire.keys import QueueKeys
from qctl.wire.write.pace import READING_S, Pace, round_trip_s
from qctl.wire.write.walk import start_walk

DEFAULT_LIMIT = 20
# When more groups than this are held, the rarer half is merged into "other".
MAX_HELD = 1000
# In characters. All longer texts of the payload are in one group.
_MAX_VALUE = 200
# The value of --by → the field of --where.
_FIELDS = {"reason": "shape", "name": "name"}
# A field of the payload, e.g. data.user.id. Characters with a meaning in --where are not allowed.
_DATA_FIELD = re.compile(r"data(\.[^\s.()\"'=!<>~\[]+)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureGroup:
    """Failed jobs with something in common.

    Args:
        value: the shape of their reason (None: no reason), their name, or the value of the field.
        where: the ``--where`` that holds for exactly these jobs. None for the group of all values
            that ``--where`` cannot name: objects, arrays and long texts.
        is_least: whether earlier jobs of the group may be in "other". If so, ``count`` is a lower
            bound, and the first of the group may have failed before ``first_at``.
        share: of all counted jobs, between 0 and 1.
        first_at, last_at: when the first and the last of them failed, by the workers' clocks.
        example_id: the id of the last one.
        command: retries exactly this group; None if ``where`` is None, or if qctl only reads the
            queue.
    """

    value: Any
    where: str | None
    count: int
    is_least: bool
    share: float
    first_at: datetime | None
    last_at: datetime | None
    example_id: str
    command: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureReport:
    """The failed jobs of a queue in groups, the largest first.

    Args:
        by: ``reason``, ``name`` or a field of the payload, such as ``data.tenant``.
        since_at: only jobs that failed at this time or later are counted; None for all.
        total: how many jobs were in ``failed`` at the start.
        scanned: how many ids of failed jobs were read.
        counted: how many jobs are in the groups and in ``other_count``.
        missing: ids in ``failed`` whose record is gone; not counted.
        other_count: jobs that are in none of ``groups``.
        other_groups: how many groups these jobs have; None if unknown, because of a merge.
        complete: False if the scan ended early. The groups then have the oldest failures only.
    """

    step: ClassVar[str] = "report"

    queue: str
    prefix: str
    by: str
    since_at: datetime | None
    total: int
    scanned: int
    counted: int
    missing: int
    groups: tuple[FailureGroup, ...]
    other_count: int
    other_groups: int | None
    complete: bool


@dataclass(slots=True)
class _Group:
    value: Any
    where: str | None
    is_least: bool
    count: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    example_id: str = ""

    def add(self, job: Job) -> None:
        self.count += 1
        at = job.finished_at
        if at is not None and (self.first_at is None or at < self.first_at):
            self.first_at = at
        if self.last_at is None or (at is not None and at >= self.last_at):
            self.last_at, self.example_id = at, job.id


class FailureScan:
    """One scan of the failed jobs. Iterating over it does the work, a step for each read.

    Args:
        by: ``reason``, ``name`` or a field of the payload, such as ``data.tenant``.
        total: how many jobs are in ``failed``.
        since: count only jobs that failed at this time or later.
        stop: called between reads; if it returns True, the scan ends.
        may_retry: whether to recommend commands; False for queues that qctl only reads.
        max_held: how many groups are held at most; at least 2.

    Raises:
        UsageError: ``by`` is none of these.
    """

    def __init__(
        self,
        client: Client,
        keys: QueueKeys,
        by: str,
        total: int,
        *,
        since: datetime | None = None,
        stop: Callable[[], bool] = lambda: False,
        may_retry: bool = True,
        max_held: int = MAX_HELD,
    ) -> None:
        self._field = _FIELDS.get(by, by)
        read = field_reader(self._field) if by in _FIELDS or _DATA_FIELD.fullmatch(by) else None
        if read is None:
            raise UsageError(
                f"--by {by!r} is no way to group failed jobs",
                why="it must be reason, name or a field of the payload",
                hint="--by data.user.id",
            )
        self._client = client
        self._keys = keys
        self._by = by
        self._read = read
        self._total = total
        # In milliseconds, because the recommended commands write the time in milliseconds.
        self._since = since and since.replace(microsecond=since.microsecond // 1000 * 1000)
        self._stop = stop
        self._may_retry = may_retry
        self._max_held = max_held
        self._groups: dict[str, _Group] = {}
        self._other_count = 0
        self._has_merged = False
        self._is_complete = False
        self.scanned = 0
        self._missing = 0

    def __iter__(self) -> Iterator[None]:
        """Do the work.

        Raises:
            InterruptedByUserError: ``stop`` ended the scan.
            PartialError: jobs failed faster than they could be read; or Redis refused a command
                or could not be reached, when some jobs had already been read.
            QctlError: before any job was read, Redis refused a command or could not be reached.
        """
        try:
            yield from self._scan()
        except (InterruptedByUserError, PartialError):
            raise
        except QctlError as error:
            if not self.scanned:
                raise
            raise PartialError(
                error.what,
                why=f"{error.why}\n{self._partial()}".lstrip(),
                hint="run the same command again",
            ) from error

    def _scan(self) -> Iterator[None]:
        only = Filter(since=self._since)
        walk = start_walk(self._client, self._keys, "failed", since=only.since_ms)
        pace = Pace(target_s=READING_S, trip_s=round_trip_s(self._client))
        large = ("data",) if self._by.startswith("data.") else ()
        while entries := walk.take(pace.size):
            if self._stop():
                raise InterruptedByUserError("interrupted", why=self._partial())
            for job in read_entries(self._client, self._keys, "failed", entries, large, pace):
                if job.missing:
                    self._missing += 1
                elif only.matches(job):
                    self._count(job)
            self.scanned += len(entries)
            walk.keep(entries)
            yield
        if not walk.is_complete:
            raise PartialError(
                "not all failed jobs were read",
                why="jobs fail faster than they can be read, or very many have a finish time that "
                "is later than Redis' clock",
            )
        self._is_complete = True

    def _partial(self) -> str:
        of = counted(max(self._total, self.scanned), "failed job")
        return f"the figures are partial: {self.scanned:,} of {of} were read, oldest failures first"

    def _count(self, job: Job) -> None:
        value = self._read(job)
        is_long = isinstance(value, str) and len(value) > _MAX_VALUE
        where = None if is_long else equality(self._field, value)
        # "" is the key of all values that --where cannot name.
        group = self._groups.get(where or "")
        if group is None:
            if len(self._groups) >= self._max_held:
                self._merge()
            group = _Group(None if where is None else value, where, is_least=self._has_merged)
            self._groups[where or ""] = group
        group.add(job)

    def _merge(self) -> None:
        kept = sorted(self._groups.items(), key=lambda item: item[1].count, reverse=True)
        rare = kept[self._max_held // 2 :]
        self._other_count += sum(group.count for _, group in rare)
        self._groups = dict(kept[: self._max_held // 2])
        self._has_merged = True

    def report(self, limit: int = DEFAULT_LIMIT) -> FailureReport:
        """What was counted so far, with at most ``limit`` groups."""
        groups = sorted(self._groups.values(), key=lambda group: (-group.count, group.where or ""))
        shown, rest = groups[:limit], groups[limit:]
        in_all = sum(group.count for group in groups) + self._other_count
        return FailureReport(
            queue=self._keys.name,
            prefix=self._keys.prefix,
            by=self._by,
            since_at=self._since,
            total=max(self._total, self.scanned),
            scanned=self.scanned,
            counted=in_all,
            missing=self._missing,
            groups=tuple(self._result(group, in_all) for group in shown),
            other_count=self._other_count + sum(group.count for group in rest),
            other_groups=None if self._has_merged else len(rest),
            complete=self._is_complete,
        )

    def _result(self, group: _Group, in_all: int) -> FailureGroup:
        return FailureGroup(
            value=group.value,
            where=group.where,
            count=group.count,
            is_least=group.is_least,
            share=round(group.count / in_all, 4),
            first_at=group.first_at,
            last_at=group.last_at,
            example_id=group.example_id,
            command=self._command(group.where) if self._may_retry else None,
        )

    def _command(self, where: str | None) -> str | None:
        if where is None:
            return None
        since = [] if self._since is None else ["--since", f"{self._since:%Y-%m-%dT%H:%M:%S.%f}Z"]
        keys = self._keys
        return command(keys.prefix, "jobs retry-failed", keys.name, "--where", where, *since)
