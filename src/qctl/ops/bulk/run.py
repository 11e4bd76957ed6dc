"""Many jobs at once: run again, promote, delete; chosen by state and filters, or by id.

Jobs are read and changed in small calls (``pace``) while the queue works on. A job that changes its
state meanwhile is left alone by the script that would have changed it. Memory does not grow with
the number of jobs, and what is interrupted can be run again: it goes on with what is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from qctl.connection.address import Client
from qctl.errors import InterruptedByUserError, PartialError, QctlError, UnreachableError
from qctl.ops.bulk.actions import Action
from qctl.ops.bulk.choice import Selection
from qctl.ops.bulk.context import Means
from qctl.ops.bulk.report import BulkProgress, BulkReport, Skipped
from qctl.ops.jobs.listing import listed_job
from qctl.plurals import counted
from qctl.wire.jobs import ReadJob, read_records
from qctl.wire.keys import QueueKeys
from qctl.wire.read.lists import Entry
from qctl.wire.states import FINISHED
from qctl.wire.write.pace import FIRST, READING_S, Pace, round_trip_s
from qctl.wire.write.walk import ShortWalk, Walk, walk

SAMPLE = 10
# Skipped jobs that a report names; it counts all.
MOST_SKIPPED = 100
# Ids read at once where none has to be looked at.
_TAKEN = 200
_NAP_S = 0.05
# With a rate, one call does no more than what it allows in this time.
_BURST_S = 0.1
# Deleted jobs in one event, as with BullMQ's clean.
_MAX_REPORTED = 10_000


@dataclass(slots=True)
class _Tally:
    scanned: int = 0
    matched: int = 0
    done: int = 0
    skipped_count: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    moved_on: int = 0
    sample: list[str] = field(default_factory=list)

    def note(self, answers: Mapping[str, str], action: Action) -> None:
        for job_id, answer in answers.items():
            if answer == action.done:
                self.done += 1
                if len(self.sample) < SAMPLE:
                    self.sample.append(job_id)
            else:
                self.skipped_count += 1
                self.moved_on += answer in action.moved_on
                if len(self.skipped) < MOST_SKIPPED:
                    self.skipped.append(Skipped(job_id, action.reason(answer)))


class BulkRun:
    """One run of an action over a selection.

    Args:
        total: jobs in the state, or the number of named ones.
        rate: jobs a second at most; None for no such limit.
        stop: asked between calls whether to end.

    Iterating does the work and yields how far it is; ``report`` tells at any time what was done.
    """

    def __init__(
        self,
        client: Client,
        keys: QueueKeys,
        action: Action,
        selection: Selection,
        total: int,
        *,
        dry_run: bool = False,
        rate: float | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._client = client
        self._keys = keys
        self._action = action
        self._selection = selection
        self._total = total
        self._dry_run = dry_run
        self._rate = rate
        self._stop = stop
        self._tally = _Tally()
        self._means: Means | None = None
        self._unreported = 0
        self._has_acted = False
        self._is_complete = False

    def report(self) -> BulkReport:
        """What was done so far."""
        tally = self._tally
        return BulkReport(
            queue=self._keys.name,
            action=self._action.name,
            state=self._selection.state,
            total=max(self._total, tally.matched),
            scanned=tally.scanned,
            matched=tally.matched,
            done=tally.done,
            skipped_count=tally.skipped_count,
            skipped=tuple(tally.skipped),
            moved_on_count=tally.moved_on if self._selection.state else 0,
            sample=tuple(tally.sample),
            below_count=self._below,
            dry_run=self._dry_run,
            complete=self._is_complete,
        )

    def __iter__(self) -> Iterator[BulkProgress]:
        """Do it.

        Raises:
            InterruptedByUserError: ``stop`` said so.
            PartialError: Redis refused or went away after some were done; or not all were seen.
            QctlError: the same, before any was.
        """
        try:
            yield from self._run_and_report()
        except (InterruptedByUserError, PartialError):
            raise
        except QctlError as error:
            done = self._tally.done + self._below
            if not done and self._has_acted and isinstance(error, UnreachableError):
                unknown = "of the first jobs it is not known whether they were changed"
                error.why = "\n".join(part for part in (error.why, unknown) if part)
            if self._dry_run or not done:
                raise
            raise PartialError(
                f"after {self._were(done)}: {error.what}",
                why="\n".join(
                    part
                    for part in (
                        error.why,
                        "each job was changed as a whole or not at all; those of the last call may "
                        "have been changed, too",
                    )
                    if part
                ),
                hint="the same command once more: it goes on with those that are left",
            ) from error

    def _run_and_report(self) -> Iterator[BulkProgress]:
        try:
            yield from self._run()
        finally:
            self._report_deleted(1)

    def _report_deleted(self, least: int) -> None:
        """Write the event for jobs that have none of their own, once there are so many of them."""
        write, count = self._action.report, self._unreported
        if write is not None and count >= least:
            # The jobs are gone all the same.
            with suppress(QctlError):
                write(self._client, self._keys, count)
            self._unreported = 0

    def _run(self) -> Iterator[BulkProgress]:
        reading = Pace(target_s=READING_S, trip_s=round_trip_s(self._client))
        # A job that is to be deleted may take long: it is searched for in its list.
        acting = Pace(1 if self._action.name in {"remove", "purge"} else FIRST)
        means = self._means = self._means_of(acting)
        path = self._path()
        began = time.monotonic()
        while not self._is_enough():
            self._check_stop()
            looks_first = self._selection.only.is_set or self._selection.named
            entries = path.take(reading.size if looks_first else self._allowed(_TAKEN))
            if not entries:
                break
            chosen, gone = self._choose(entries, reading), set()
            while chosen and not self._is_enough():
                self._wait_for_rate(began)
                self._check_stop()
                size = self._allowed(acting.size)
                chunk, chosen = chosen[:size], chosen[size:]
                gone |= self._act(chunk, means)
                yield self.progress()
            stay = [entry for entry in entries if entry.id not in gone]
            path.stays(stay, gone_before=len(gone) - len(entries) + len(stay))
            yield self.progress()
        if not (path.is_complete or self._is_enough()):
            raise self._not_all()
        self._is_complete = True

    def _path(self) -> Walk:
        selection = self._selection
        if selection.state is None:
            return ShortWalk(selection.ids)
        if selection.only.ids:
            # The script tells which of them are elsewhere.
            return ShortWalk(sorted(selection.only.ids))
        since_ms = selection.only.since_ms if selection.state in FINISHED else None
        # What fails again, or is delayed again, has had its turn.
        once = self._action.name in {"retry", "promote"}
        return walk(self._client, self._keys, selection.state, since=since_ms, once=once)

    def _is_enough(self) -> bool:
        limit = self._selection.limit
        return limit is not None and self._tally.done >= limit

    def _allowed(self, size: int) -> int:
        """How many of so many jobs may be changed next."""
        limit = self._selection.limit
        if self._rate is not None and not self._dry_run:
            size = min(size, max(1, int(self._rate * _BURST_S)))
        return size if limit is None else min(size, limit - self._tally.done)

    def _were(self, done: int) -> str:
        return f"{counted(done, 'job was', 'jobs were')} {self._action.done}"

    def _not_all(self) -> PartialError:
        """Some may not have been looked at."""
        why = "jobs are added faster than they can be looked at"
        if self._selection.state in FINISHED:
            why += ", or very many finished in the future by Redis' clock"
        elif self._selection.state == "waiting":
            why += ", or the queue was paused or resumed again and again"
        return PartialError(
            f"not all {self._selection.state} jobs were looked at",
            why=why,
            hint="" if self._dry_run else "the same command once more goes on with the others",
        )

    def _check_stop(self) -> None:
        if self._stop():
            done = self._tally.done + self._below
            were = f"{self._were(done)} before" if done else "nothing was changed"
            raise InterruptedByUserError(
                "interrupted",
                why="nothing was changed" if self._dry_run else were,
                hint="the same command once more goes on with those that are left",
            )

    def _choose(self, entries: Sequence[Entry], pace: Pace) -> list[str]:
        """The ids of those that are selected."""
        tally, selection = self._tally, self._selection
        if selection.only.is_set:
            ids = self._matching(entries, pace)
        else:
            ids = [entry.id for entry in entries]
        tally.scanned += len(entries)
        return ids

    def _matching(self, entries: Sequence[Entry], pace: Pace) -> list[str]:
        state, heavy = self._selection.state or "", self._selection.heavy
        now_ms = time.time() * 1000
        ids = [entry.id for entry in entries]
        began = time.monotonic()
        records = read_records(self._client, self._keys, ids, heavy)
        pace.learn(len(ids), time.monotonic() - began)
        jobs = (
            listed_job(entry, ReadJob(record, None, None) if record else None, state, now_ms)
            for entry, record in zip(entries, records, strict=True)
        )
        only = self._selection.only
        # Of a named job that is not there the script tells that.
        return [job.id for job in jobs if only.takes(job) or (only.ids and job.missing)]

    def _means_of(self, acting: Pace) -> Means:
        selection = self._selection
        return Means(
            client=self._client,
            keys=self._keys,
            pace=acting,
            check_stop=self._check_stop,
            state=selection.state or "",
            dry_run=self._dry_run,
            seen=selection.state is not None and not selection.only.ids,
        )

    @property
    def _below(self) -> int:
        return self._means.below if self._means else 0

    def _act(self, ids: Sequence[str], means: Means) -> set[str]:
        """Change some jobs; which of them have left their place."""
        gone: set[str] = set()
        self._has_acted = not self._dry_run
        for answers in self._action.act(means, ids):
            self._tally.matched += len(answers)
            self._tally.note(answers, self._action)
            if not self._dry_run:
                gone |= {job_id for job_id, word in answers.items() if word == self._action.done}
        self._unreported += len(gone)
        self._report_deleted(_MAX_REPORTED)
        return gone

    def _wait_for_rate(self, began: float) -> None:
        if self._rate is None or self._dry_run:
            return
        due = began + self._tally.done / self._rate
        while (left := due - time.monotonic()) > 0:
            self._check_stop()
            time.sleep(min(left, _NAP_S))

    def progress(self) -> BulkProgress:
        """How far it is; may be asked by another thread."""
        tally = self._tally
        return BulkProgress(
            scanned=tally.scanned,
            matched=tally.matched,
            done=tally.done,
            below_count=self._below,
            total=max(self._total, tally.scanned),
        )
