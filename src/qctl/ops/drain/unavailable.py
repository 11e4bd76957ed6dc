"""``--max-unavailable``: how many processes of a target are replaced at the same time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qctl.errors import RefusedError, UsageError
from qctl.manage.kinds import words_of
from qctl.manage.protocol import ManagedProcess, Rollout
from qctl.ops.processes.targets import Connections, Target

_FORM = re.compile(r"(\d+)(%?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class MaxUnavailable:
    """What the operator wants: a number of processes, or a percentage of the target's processes."""

    number: int
    is_percentage: bool

    @classmethod
    def parse(cls, text: str | None) -> MaxUnavailable | None:
        """Parse the value of the option; None if the option is missing.

        Raises:
            UsageError: it is neither a number from 1 nor a percentage up to 100%.
        """
        if text is None:
            return None
        match = _FORM.fullmatch(text.strip())
        number, is_percentage = (int(match[1]), bool(match[2])) if match else (0, False)
        if number < 1 or (is_percentage and number > 100):
            raise UsageError(
                f"--max-unavailable {text!r} is not a number of processes",
                why="it is a number from 1, or a percentage of the target's processes",
                hint="--max-unavailable 2, or --max-unavailable 25%",
            )
        return cls(number, is_percentage)

    def of(self, target: Target, connections: Connections) -> int:
        """How many processes of the target this means; at least 1.

        Raises:
            UsageError: the manager replaces all processes together.
            RefusedError: the number is above 1, but no worker can be matched with a process.
        """
        if isinstance(target.manager, Rollout):
            words = words_of(target.manager.kind)
            raise UsageError(
                f"--max-unavailable does not apply to {target.label}",
                why="its manager itself decides how many processes it replaces at a time",
                hint=f"leave out the option; {words.max_unavailable}",
            )
        total = len(target.processes)
        number = max(total * self.number // 100, 1) if self.is_percentage else self.number
        number = min(number, total)
        if number > 1 and not connections.queues_of(target.processes):
            raise RefusedError(
                f"{target.label} cannot be restarted {number} processes at a time",
                why="its workers cannot be matched with its processes, so their connections would "
                "not prove that each new process works",
                hint="leave out --max-unavailable",
            )
        return number


def batches(processes: Sequence[ManagedProcess], size: int) -> Iterator[tuple[ManagedProcess, ...]]:
    """The processes in groups of ``size``, in order; the last group may be smaller."""
    for start in range(0, len(processes), size):
        yield tuple(processes[start : start + size])
