"""What an action on many jobs works with, and the words for jobs that it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from qctl.wire.write.pace import Pace

# By the word of a script.
WORDS = {
    "inactive": "it is in another state",
    "missing": "it does not exist, or its data is gone",
    "locked": "a worker has it",
    "duplicate": "another job that is still to end has its deduplication id",
    "scheduled": "it is the next run of a scheduler; `qctl schedules remove` ends that",
    "parent": "its children have not ended; --with-children deletes them as well",
    "child-locked": "a worker has one of its children",
    "gone": "it was not found, or moved on while it was looked for",
    "deep": "others changed the list too often while it was moved; once more may do",
}


@dataclass(slots=True, kw_only=True)
class Means:
    """What an action works with.

    Args:
        pace: of the calls that change jobs.
        hops: of the steps in which jobs move within a list; see ``ops.far``.
        check_stop: raises when it shall end; asked between calls.
        state: where the jobs must be; empty for anywhere.
        dry_run: write nothing.
        seen: the jobs stood there a moment ago.
        goes_far: whether jobs deep in long lists are deleted, too.
        moving: how many jobs are on their way to the head of a list.
        nearby: whether such jobs were met, so that it is no use to search far for each.
        below: counts jobs that were deleted with those above them.
    """

    client: Client
    keys: QueueKeys
    pace: Pace
    hops: Pace
    check_stop: Callable[[], None]
    state: str = ""
    dry_run: bool = False
    seen: bool = False
    goes_far: bool = False
    moving: int = 0
    nearby: bool = False
    below: int = 0

    @property
    def lost_turn(self) -> str:
        """What became of jobs that are on their way, if it ends now; empty if none are."""
        if not self.moving:
            return ""
        if self.moving == 1:
            return "1 more job has moved within a list and lost its turn"
        return f"{self.moving:,} more jobs have moved within a list and lost their turn"
