"""Runs an action on many jobs, chosen by state and filters or by id.

Jobs are read and changed in small calls (``wire.write.pace``), while workers go on. The script that
changes a job checks the job's state again, so a job that has left the state is not changed. Memory
does not grow with the number of jobs. After an interruption, the same run can be started again: it
changes the remaining jobs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from qctl.connection.address import Client
from qctl.errors import InterruptedByUserError, PartialError, QctlError, UnreachableError
from qctl.ops.bulk.actions import Action, Selection
from qctl.ops.bulk.model import BulkContext, BulkProgress, BulkReport
from qctl.ops.jobs.listing import read_entries
from qctl.ops.jobs.model import Skipped
from qctl.plurals import counted
from qctl.wire.keys import QueueKeys
from qctl.wire.read.lists import Entry
from qctl.wire.states import FINISHED
from qctl.wire.write.pace import FIRST_SIZE, READING_S, Pace, round_trip_s
from qctl.wire.write.transitions import Foresight
from qctl.wire.write.walk import ShortWalk, Walk, start_walk

MAX_SAMPLE = 10
MAX_SKIPPED = 100
# How many ids are taken at once if a state alone selects the jobs.
_IDS_PER_STEP = 200
# How often ``stop`` is called during a wait.
_SLEEP_S = 0.05
# With a rate, one call changes no more jobs than the rate allows in this time.
_BURST_S = 0.1
# One event reports at most this many deleted jobs, as in BullMQ's clean.
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

    def count(self, answers: Mapping[str, str], action: Action) -> None:
        self.matched += len(answers)
        for job_id, answer in answers.items():
            if answer == action.done:
                self.done += 1
                if len(self.sample) < MAX_SAMPLE:
                    self.sample.append(job_id)
            else:
                self.skipped_count += 1
                self.moved_on += answer in action.moved_on
                if len(self.skipped) < MAX_SKIPPED:
                    self.skipped.append(Skipped(job_id, action.reason(answer)))


class BulkRun:
    """One run of an action over a selection. Iterating over it does the work.

    Args:
        total: how many jobs are in the state, or are named.
        rate: how many jobs a second are changed at most; None for no limit.
        stop: called between script calls; if it returns True, the run ends.
        changed_before: how many jobs of other queues the same command has changed; messages count
            these, too.
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
        changed_before: int = 0,
    ) -> None:
        self._action = action
        self._selection = selection
        self._total = total
        self._rate = rate
        self._stop = stop
        self._changed_before = changed_before
        self._tally = _Tally()
        # Deleting may be slow, because it searches a list, so begin with one job.
        deletes = action.name in {"remove", "purge"} and not dry_run
        self._context = BulkContext(
            client=client,
            keys=keys,
            pace=Pace(1 if deletes else FIRST_SIZE),
            check_stop=self._check_stop,
            state=selection.state or "",
            dry_run=dry_run,
            just_seen=selection.state is not None and not selection.only.ids,
            # In two cases, a dry run must remember what it would have changed: jobs are named, or
            # jobs are retried (a retried job owns its deduplication id). Other actions on the jobs
            # of one state need no memory, because these jobs do not affect each other.
            foresight=Foresight()
            if dry_run and (selection.named_count or action.name == "retry")
            else None,
        )
        self._unreported = 0
        self._has_acted = False
        self._is_complete = False

    def report(self, error: str | None = None) -> BulkReport:
        """What the run has done so far, and the error that ended it, if there is one."""
        tally = self._tally
        return BulkReport(
            queue=self._context.keys.name,
            prefix=self._context.keys.prefix,
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
            below_count=self._context.below_count,
            dry_run=self._context.dry_run,
            complete=self._is_complete,
            error=error,
        )

    def progress(self) -> BulkProgress:
        """How far the run is; safe to call from another thread."""
        tally = self._tally
        return BulkProgress(
            queue=self._context.keys.name,
            prefix=self._context.keys.prefix,
            scanned=tally.scanned,
            matched=tally.matched,
            done=tally.done,
            below_count=self._context.below_count,
            total=max(self._total, tally.scanned),
        )

    def __iter__(self) -> Iterator[BulkProgress]:
        """Do the work, and yield the progress after each call.

        Raises:
            InterruptedByUserError: ``stop`` ended the run.
            PartialError: Redis refused a command or could not be reached after some jobs were
                changed; or some jobs may not have been read.
            QctlError: Redis refused a command or could not be reached before a job was changed.
        """
        try:
            yield from self._run()
        except (InterruptedByUserError, PartialError):
            raise
        except QctlError as error:
            if self._context.dry_run:
                raise
            if self._changed_count:
                uncertain = (
                    "each job was changed as a whole or not at all; the jobs of the last call may "
                    "have been changed, too"
                )
                raise PartialError(
                    f"after {self._changed_text()}: {error.what}",
                    why=f"{error.why}\n{uncertain}".lstrip(),
                    hint="run the same command again for the jobs that are left",
                ) from error
            if self._has_acted and isinstance(error, UnreachableError):
                unknown = "it is unknown whether the first jobs were changed"
                error.why = f"{error.why}\n{unknown}".lstrip()
            raise
        finally:
            self._report_deleted(1)

    def _report_deleted(self, min_count: int) -> None:
        """Write one event for all unreported deleted jobs, if there are at least ``min_count``."""
        write, count = self._action.report, self._unreported
        if write is not None and count >= min_count:
            # The jobs are deleted even if the event cannot be written.
            with suppress(QctlError):
                write(self._context.client, self._context.keys, count)
            self._unreported = 0

    def _run(self) -> Iterator[BulkProgress]:
        read_pace = Pace(target_s=READING_S, trip_s=round_trip_s(self._context.client))
        in_small_steps = self._selection.only.is_set or self._selection.named_count
        walk = self._walk()
        began = time.monotonic()
        while not self._is_limit_reached():
            self._check_stop()
            entries = walk.take(read_pace.size if in_small_steps else self._max_next(_IDS_PER_STEP))
            if not entries:
                break
            chosen, changed = self._choose(entries, read_pace), set()
            while chosen and not self._is_limit_reached():
                self._wait_for_rate(began)
                self._check_stop()
                size = self._max_next(self._context.pace.size)
                chunk, chosen = chosen[:size], chosen[size:]
                changed |= self._act(chunk)
                yield self.progress()
            walk.keep([entry for entry in entries if entry.id not in changed])
            yield self.progress()
        if not (walk.is_complete or self._is_limit_reached()):
            why = "jobs are added faster than they can be read"
            if self._selection.state in FINISHED:
                why += ", or very many have a finish time that is later than Redis' clock"
            elif self._selection.state == "waiting":
                why += ", or the queue was paused or resumed again and again"
            raise PartialError(
                f"not all {self._selection.state} jobs were read",
                why=why,
                hint="" if self._context.dry_run else "run the same command again for the others",
            )
        self._is_complete = True

    def _walk(self) -> Walk:
        selection = self._selection
        if selection.state is None:
            return ShortWalk(selection.ids)
        if selection.only.ids:
            # The script does not change a named job that is not in the state.
            return ShortWalk(sorted(selection.only.ids))
        since_ms = selection.only.since_ms if selection.state in FINISHED else None
        # A changed job that has failed or been delayed again must not be changed a second time.
        once = self._action.name in {"retry", "promote"}
        return start_walk(
            self._context.client, self._context.keys, selection.state, since=since_ms, once=once
        )

    def _is_limit_reached(self) -> bool:
        limit = self._selection.limit
        return limit is not None and self._tally.done >= limit

    def _max_next(self, size: int) -> int:
        """How many of ``size`` jobs may be changed now, by the rate and the limit."""
        limit = self._selection.limit
        if self._rate is not None and not self._context.dry_run:
            size = min(size, max(1, int(self._rate * _BURST_S)))
        return size if limit is None else min(size, limit - self._tally.done)

    @property
    def _changed_count(self) -> int:
        return self._changed_before + self._tally.done + self._context.below_count

    def _changed_text(self) -> str:
        return f"{counted(self._changed_count, 'job was', 'jobs were')} {self._action.done}"

    def _check_stop(self) -> None:
        if self._stop():
            changed = not self._context.dry_run and self._changed_count
            raise InterruptedByUserError(
                "interrupted",
                why=f"{self._changed_text()} before" if changed else "nothing was changed",
                hint="run the same command again for the jobs that are left",
            )

    def _choose(self, entries: Sequence[Entry], pace: Pace) -> list[str]:
        """The ids of the entries that the filter selects."""
        ids = [entry.id for entry in entries]
        context, only = self._context, self._selection.only
        if only.is_set:
            jobs = read_entries(
                context.client,
                context.keys,
                context.state,
                entries,
                self._selection.large_fields,
                pace,
            )
            # A named job that does not exist is chosen, so that it is reported as skipped.
            ids = [job.id for job in jobs if only.matches(job) or (only.ids and job.missing)]
        self._tally.scanned += len(entries)
        return ids

    def _act(self, ids: Sequence[str]) -> set[str]:
        """Change some jobs, and return the ids of those that were changed; none in a dry run."""
        changed: set[str] = set()
        self._has_acted = not self._context.dry_run
        for answers in self._action.act(self._context, ids):
            self._tally.count(answers, self._action)
            if not self._context.dry_run:
                changed |= {job_id for job_id, word in answers.items() if word == self._action.done}
        self._unreported += len(changed)
        self._report_deleted(_MAX_REPORTED)
        return changed

    def _wait_for_rate(self, began: float) -> None:
        if self._rate is None or self._context.dry_run:
            return
        due = began + self._tally.done / self._rate
        while (left := due - time.monotonic()) > 0:
            self._check_stop()
            time.sleep(min(left, _SLEEP_S))
