"""The interfaces of what the operator can do in the live view, with one key each.

The command line implements them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from qctl.ops.jobs.failures import FailureGroup, FailureReport

# Returns whether the operator has asked a running action to stop.
Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Variant:
    """A key that the operator can press instead of answering the question.

    The key prepares the same action with another value of one flag.

    Args:
        flag: the flag with its present value, for example ``--timeout 10m``.
    """

    key: str
    flag: str
    prepare: Callable[[], Proposal]


def _nothing() -> Iterable[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Proposal:
    """An action that the operator has not confirmed yet; nothing has been written.

    Lines may contain colours; everything else that a terminal would obey must be escaped.

    Args:
        title: what will be done: the question without its question mark.
        lines: the changes that the action will make, and warnings; or why it is refused.
        carry_out: runs the action and yields lines to show. When ``Stop`` returns True, a long
            action ends early; a drain also undoes its changes. Raises ``QctlError``. None if the
            action is refused.
        live: returns lines that are shown, while the action runs, below the lines of ``carry_out``.
            Called by another thread.
        name: what the operator must type to confirm, such as the context's name; None if y is
            enough.
        remark: a sentence that is shown with the question.
        variants: the flags that can be changed before the answer.
    """

    title: str
    lines: tuple[str, ...]
    carry_out: Callable[[Stop], Iterator[Sequence[str]]] | None
    live: Callable[[], Iterable[str]] = _nothing
    name: str | None = None
    remark: str = ""
    variants: tuple[Variant, ...] = field(default=())


class Actions(Protocol):
    """Each method prepares one action, and may wait for Redis or a process manager.

    Raises:
        QctlError: the action is refused or impossible; nothing was changed.
    """

    def pause(self, queue: str) -> Proposal: ...

    def resume(self, queue: str) -> Proposal: ...

    def retry_stalled(self, queue: str, job_id: str) -> Proposal: ...

    def retry_failed(self, queue: str, job_id: str) -> Proposal: ...

    def retry_group(self, queue: str, group: FailureGroup, width: int, *, exact: bool) -> Proposal:
        """Prepare a retry of all failed jobs of a group.

        Args:
            group: its ``where`` must be known.
            width: of the lines, in cells.
            exact: whether all failed jobs were counted. If so, the group's count is exact.
        """
        ...

    def drain(self, queue: str, target: str | None, width: int) -> Proposal:
        """Prepare a drain.

        Args:
            target: the process to restart afterwards; None for none.
            width: of the lines, in cells.
        """
        ...


@dataclass(frozen=True, slots=True)
class LogTail:
    """The last rows of a job's log, oldest first; ``total`` counts all rows that are kept."""

    rows: tuple[str, ...]
    total: int


class Details(Protocol):
    """Reads what the live view shows on request. Safe to call from several threads.

    Raises:
        QctlError: the job, the log or the queue cannot be read.
    """

    def job(self, queue: str, job_id: str) -> tuple[str, ...]:
        """One job in full, as escaped lines."""
        ...

    def log(self, queue: str, job_id: str) -> LogTail: ...

    def failures(self, queue: str) -> Iterator[FailureReport]:
        """Count the failed jobs by reason, and yield reports until the count ends.

        Ends early in a queue with very many failed jobs; the last report is then not complete.
        """
        ...
