"""What the keys of the live view do. The command line hands it in; here it is only asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Told:
    """Lines of an action under way.

    Args:
        passing: a state that the next lines replace, such as the jobs still waited for.
    """

    lines: tuple[str, ...]
    passing: bool = False


Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an action would change; nothing has been written yet.

    Args:
        question: answered by y or n.
        lines: what will be changed, and warnings.
        carry_out: does it; asked to stop, it puts everything back. Raises ``QctlError``.
        name: what has to be typed in place of y; None for nothing.
    """

    question: str
    lines: tuple[str, ...]
    carry_out: Callable[[Stop], Iterator[Told]]
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
