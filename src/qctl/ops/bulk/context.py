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
}


@dataclass(slots=True, kw_only=True)
class Means:
    """What an action works with.

    Args:
        pace: of the calls that change jobs.
        check_stop: raises when it shall end; asked between calls.
        state: where the jobs must be; empty for anywhere.
        dry_run: write nothing.
        seen: the jobs stood there a moment ago.
        below: counts jobs that were deleted with those above them.
    """

    client: Client
    keys: QueueKeys
    pace: Pace
    check_stop: Callable[[], None]
    state: str = ""
    dry_run: bool = False
    seen: bool = False
    below: int = 0
