"""The interface of the actions behind the live view's keys. The command line implements it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ActionOutput:
    """Lines that an action prints while it runs.

    Args:
        temporary: whether the next output replaces these lines (for example, the running jobs).
    """

    lines: tuple[str, ...]
    temporary: bool = False


# Returns whether the operator has asked a running action to stop.
Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Proposal:
    """An action that the operator has not confirmed yet; nothing has been written.

    Args:
        question: a yes-or-no question.
        lines: the changes that the action will make, and warnings.
        carry_out: runs the action. When ``Stop`` returns True, a drain undoes its changes and ends;
            other actions are short and finish. Raises ``QctlError``.
        name: the context's name, if the operator must type it to confirm; None if y is enough.
    """

    question: str
    lines: tuple[str, ...]
    carry_out: Callable[[Stop], Iterator[ActionOutput]]
    name: str | None = None


class Actions(Protocol):
    """Each method prepares one action, and may wait for Redis or a process manager.

    Raises:
        QctlError: the action is refused or impossible; nothing was changed.
    """

    def pause(self, queue: str) -> Proposal: ...

    def resume(self, queue: str) -> Proposal: ...

    def retry_stalled(self, queue: str, job_id: str) -> Proposal: ...

    def retry_failed(self, queue: str, job_id: str) -> Proposal: ...

    def drain(self, queue: str, target: str | None) -> Proposal: ...
