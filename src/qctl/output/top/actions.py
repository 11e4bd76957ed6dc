"""What the keys of the live view do: the protocol that the command line implements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ActionOutput:
    """Lines that an action prints while it runs.

    Args:
        temporary: whether the next lines replace these, such as the jobs still waited for.
    """

    lines: tuple[str, ...]
    temporary: bool = False


Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an action would change; nothing has been written yet.

    Args:
        question: a yes-or-no question.
        lines: what will be changed, and warnings.
        carry_out: does it; if it is asked to stop, it puts everything back. Raises ``QctlError``.
        name: what must be typed instead of y; None if y is enough.
    """

    question: str
    lines: tuple[str, ...]
    carry_out: Callable[[Stop], Iterator[ActionOutput]]
    name: str | None = None


class Actions(Protocol):
    """Each call prepares an action and may take as long as Redis or a process manager takes.

    Raises:
        QctlError: the action is refused or impossible; nothing was changed.
    """

    def pause(self, queue: str) -> Proposal: ...

    def resume(self, queue: str) -> Proposal: ...

    def retry_stalled(self, queue: str, job_id: str) -> Proposal: ...

    def retry_failed(self, queue: str, job_id: str) -> Proposal: ...

    def drain(self, queue: str, target: str | None) -> Proposal: ...
