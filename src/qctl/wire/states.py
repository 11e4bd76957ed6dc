"""The states of a job, and the lists and sorted sets of a queue that hold them (wire format 4)."""

from __future__ import annotations

# The names of the states in commands. A ``stalled`` job is in the list ``active``, but has
# no lock.
STATES = (
    *("waiting", "active", "stalled", "delayed", "prioritized", "waiting-children"),
    *("completed", "failed"),
)
FINISHED = ("completed", "failed")
# The lists, and the state of the jobs in each.
LISTS = {"active": "active", "wait": "waiting", "paused": "waiting"}
# The sorted sets, each named like its state, in the order in which BullMQ searches them for a job.
# BullMQ searches the lists before it searches ``waiting-children`` (4.1).
SORTED_SETS = ("completed", "failed", "delayed", "prioritized", "waiting-children")

# A delayed job's score is its due time in ms, multiplied by this, plus a counter (wire format P8).
DELAY_FACTOR = 4096
_LEGACY_MARKER = "0:"


def is_marker(job_id: str) -> bool:
    """Whether a list entry is a marker of BullMQ 3 or 4 and not a job (wire format 2.5)."""
    return job_id.startswith(_LEGACY_MARKER)


def due_ms(score: float) -> int | None:
    """When a delayed job is due, in epoch ms; None if the score is not a time."""
    try:
        return int(score) // DELAY_FACTOR
    except (ValueError, OverflowError):
        return None
