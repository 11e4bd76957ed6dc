"""The context, the progress and the report of an action on many jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from qctl.connection.address import Client
from qctl.ops.jobs.model import Skipped
from qctl.wire.keys import QueueKeys, common_prefix
from qctl.wire.write.pace import Pace
from qctl.wire.write.transitions import Foresight

# The word with which a script answers for a job → why the job was left alone.
REASONS = {
    "inactive": "it is in another state",
    "missing": "it does not exist, or its data is gone",
    "locked": "a worker has it",
    "duplicate": "another unfinished job has its deduplication id",
    "scheduled": "it is the next run of a scheduler; `qctl schedules remove` removes the scheduler",
    "parent": "its children have not ended; --with-children deletes them as well",
    "child-locked": "a worker has one of its children",
}


@dataclass(slots=True, kw_only=True)
class BulkContext:
    """The context in which an action changes jobs.

    Args:
        pace: how many jobs one call changes.
        check_stop: raises an error if the run is to end; called between script calls.
        state: the state in which the jobs must be; empty for any.
        just_seen: whether the jobs were found in ``state`` a moment ago.
        foresight: what a dry run would have changed so far; None if later jobs do not depend on it.
        below_count: how many descendants of the chosen jobs (in flows) have been deleted so far.
    """

    client: Client
    keys: QueueKeys
    pace: Pace
    check_stop: Callable[[], None]
    state: str = ""
    dry_run: bool = False
    just_seen: bool = False
    foresight: Foresight | None = None
    below_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkProgress:
    """Of about ``total`` jobs, ``scanned`` were read, ``matched`` chosen and ``done`` changed.

    Args:
        below_count: see ``BulkContext``; not included in the other numbers.
    """

    step: ClassVar[str] = "progress"

    queue: str
    prefix: str
    scanned: int
    matched: int
    done: int
    total: int
    below_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkReport:
    """What a bulk action did.

    Args:
        action: ``retry``, ``promote``, ``remove``, ``cancel`` or ``purge``.
        total: how many jobs were in the state at the start, or were named; at least ``matched``.
        matched: how many jobs were chosen: ``done`` were changed, and ``skipped_count`` were not.
        skipped: the first 100 jobs that were not changed.
        moved_on_count: how many of the skipped jobs had left the state; 0 without a state.
        sample: ids of the first jobs that were changed or, in a dry run, would be changed.
        below_count: see ``BulkContext``; not included in the other numbers.
        complete: True if the run read all jobs, or ended at its limit; False if it ended earlier.
        error: the error that ended the run; None if there is none.
    """

    step: ClassVar[str] = "report"

    queue: str
    prefix: str
    action: str
    state: str | None
    total: int
    scanned: int
    matched: int
    done: int
    skipped_count: int
    skipped: tuple[Skipped, ...]
    moved_on_count: int = 0
    sample: tuple[str, ...]
    below_count: int = 0
    dry_run: bool
    complete: bool = True
    error: str | None = None

    @property
    def keys(self) -> QueueKeys:
        """The queue."""
        return QueueKeys(self.prefix, self.queue)

    @property
    def left_alone_count(self) -> int:
        """The skipped jobs that are still in their state."""
        return self.skipped_count - self.moved_on_count


def labels(reports: Sequence[BulkReport]) -> list[str]:
    """The names of the queues, as ``NAME@PREFIX`` if they have several prefixes."""
    prefix = common_prefix(report.keys for report in reports)
    return [report.keys.label(prefix) for report in reports]
