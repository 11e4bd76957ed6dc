"""How far a bulk action is, and what it has done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qctl.ops.jobs.model import Skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkProgress:
    """Of about ``total`` jobs ``scanned`` were read, ``matched`` were chosen and ``done`` changed.

    Args:
        below_count: jobs deleted together with a parent; not counted elsewhere.
    """

    step: ClassVar[str] = "progress"

    scanned: int
    matched: int
    done: int
    total: int
    below_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkReport:
    """What a bulk action did.

    Args:
        action: ``retry``, ``promote``, ``remove`` or ``purge``.
        total: how many jobs were in the state at the start, or were named.
        matched: jobs that were chosen: ``done`` were changed, ``skipped_count`` were not.
        skipped: the first 100 jobs that were not changed.
        moved_on_count: how many of the skipped jobs had left the state by then.
        sample: the first ids that were changed, or would be.
        below_count: jobs deleted together with a parent; not counted elsewhere.
        complete: False when the run ended before it had read all jobs.
    """

    step: ClassVar[str] = "report"

    queue: str
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
