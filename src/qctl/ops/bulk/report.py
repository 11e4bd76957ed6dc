"""How far a bulk action is, and what it has done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Skipped:
    """A job that was left alone, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkProgress:
    """How far it is: ``scanned`` of about ``total`` jobs looked at, ``done`` of them changed.

    Args:
        below_count: jobs that were deleted with those above them; not among the others.
    """

    step: ClassVar[str] = "progress"

    scanned: int
    matched: int
    done: int
    total: int
    below_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkReport:
    """What was done.

    Args:
        action: ``retry``, ``promote``, ``remove`` or ``purge``.
        total: jobs in the state at the start, or named ones.
        matched: jobs that the selection chose; ``done`` were changed, ``skipped_count`` not.
        skipped: the first hundred of them.
        moved_on_count: those of them that had left the state by then, and so are not meant.
        sample: the first ids that were changed, or would be.
        below_count: jobs that were deleted with those above them; not among the others.
        complete: False when it ended before it had looked at all.
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
