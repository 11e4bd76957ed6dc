"""What a fault did, and whose jobs it may have cut short."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Hit:
    """What a fault did.

    Args:
        kind: the fault.
        began, over: when, in seconds since 1970.
        pids: processes whose jobs it may have cut short.
        whose: other processes whose jobs it may have cut short: "", "node" or "all".
    """

    kind: str
    began: float
    over: float
    pids: frozenset[int] = frozenset()
    whose: str = ""

    def explains(self, first: dict[str, Any], again: dict[str, Any]) -> bool:
        """Whether this is why a job that ran, by its row ``first``, was started once more."""
        if not (self.began <= again["at"] and first["at"] <= self.over):
            return False
        is_node = first["worker"] != "qctl"
        return (
            first["pid"] in self.pids or self.whose == "all" or (self.whose == "node" and is_node)
        )
