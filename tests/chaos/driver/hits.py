"""What a fault did, and what it excuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# For so long, until its lock ends, a worker may be unable to tell Redis that a job has ended.
UNSENT_S = 4.0
# Who adds a job notes so long after Redis' reply at most, in seconds, that it came.
NOTED_S = 0.5
# Some times are noted in whole milliseconds.
_EXACT_S = 0.001


@dataclass(frozen=True)
class Hit:
    """What a fault did.

    Args:
        began, over: when, in seconds since 1970. ``over`` includes the time in which it may still
            cut runs short: add a lock's life if workers could not renew their locks.
        pids: processes whose jobs it may have cut short.
        whose: other processes whose jobs it may have cut short: "", "node" or "all".
        forgets: from when to when Redis acknowledged what it may have forgotten since, in seconds
            since 1970: such jobs may be gone, or run again. None if it forgot nothing.
        refuses: whether Redis answered writes with errors, or was away for longer than BullMQ
            waits. BullMQ takes that for the failure of a job that has just ended.
        kind: the name of the fault; the round fills it in.
    """

    began: float
    over: float
    pids: frozenset[int] = frozenset()
    whose: str = ""
    forgets: tuple[float, float] | None = None
    refuses: bool = False
    kind: str = ""

    def explains(self, first: dict[str, Any], again: dict[str, Any]) -> bool:
        """Whether this is why a job that ran, by its row ``first``, was started once more.

        ``first["since"]`` is when that run began.
        """
        if again["at"] >= self.began and self.may_forget(first["at"]):
            return True
        if again["ats"] < first["ats"] and again["pid"] in self.pids and again["worker"] != "qctl":
            # It was given the job before, stood still, and starts it only now. qctl's workers give
            # it back.
            return self.began <= again["at"] <= self.over
        if not (self.began <= again["at"] and first["since"] <= self.over):
            return False
        if first["ev"] == "end" and first["at"] < self.began - UNSENT_S:
            return False
        is_node = first["worker"] != "qctl"
        return (
            first["pid"] in self.pids or self.whose == "all" or (self.whose == "node" and is_node)
        )

    def may_forget(self, at: float) -> bool:
        """Whether what Redis acknowledged at this time may be gone."""
        if self.forgets is None:
            return False
        since, until = self.forgets
        return since - _EXACT_S <= at <= until + NOTED_S
