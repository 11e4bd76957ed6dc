"""The rule that a change is shown before it is made."""

from __future__ import annotations

import time
from collections.abc import Sequence

# How long a plan may be carried out, in seconds.
PLAN_AGE_S = 600.0


class Plans:
    """The commands whose plan was shown, each for one use."""

    def __init__(self) -> None:
        self._shown: dict[tuple[str, ...], float] = {}

    def add(self, words: Sequence[str]) -> None:
        """Note that the plan of a command was shown."""
        self._shown[tuple(words)] = time.monotonic()

    def take(self, words: Sequence[str]) -> bool:
        """Whether the plan of a command was shown lately; it counts once."""
        shown = self._shown.pop(tuple(words), None)
        return shown is not None and time.monotonic() - shown < PLAN_AGE_S
