"""The rule that a change is shown before it is made."""

from __future__ import annotations

import time
from collections.abc import Sequence

# A plan can be carried out until this many seconds after it was shown.
PLAN_AGE_S = 600.0


class Plans:
    """The commands whose plans were shown. Each plan can be carried out once."""

    def __init__(self) -> None:
        self._shown: dict[tuple[str, ...], float] = {}

    def add(self, words: Sequence[str]) -> None:
        """Note that the plan of a command was shown."""
        self._shown[tuple(words)] = time.monotonic()

    def take(self, words: Sequence[str]) -> bool:
        """Whether the plan of a command was shown lately. Forgets the plan."""
        shown = self._shown.pop(tuple(words), None)
        return shown is not None and time.monotonic() - shown < PLAN_AGE_S
