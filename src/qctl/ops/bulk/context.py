"""What every action on many jobs needs, and why it may leave a job alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from qctl.wire.write.pace import Pace

# Why a job was left alone, by the word that a script answers.
REASONS = {
    "inactive": "it is in another state",
    "missing": "it does not exist, or its data is gone",
    "locked": "a worker has it",
    "duplicate": "another unfinished job has its deduplication id",
    "scheduled": "it is the next run of a scheduler; `qctl schedules remove` ends that",
    "parent": "its children have not ended; --with-children deletes them as well",
    "child-locked": "a worker has one of its children",
}


@dataclass(slots=True, kw_only=True)
class BulkContext:
    """What an action works with.

    Args:
        pace: how many jobs one call changes.
        check_stop: raises an error when the run is to end; called between script calls.
        state: where the jobs must be; empty for anywhere.
        dry_run: write nothing.
        just_seen: the jobs were read from their state a moment ago.
        below_count: jobs deleted so far together with a parent above them.
    """

    client: Client
    keys: QueueKeys
    pace: Pace
    check_stop: Callable[[], None]
    state: str = ""
    dry_run: bool = False
    just_seen: bool = False
    below_count: int = 0
