"""What qctl writes beside a queue: who paused it, and who is draining it."""

from __future__ import annotations

import getpass
import json
import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass, replace
from typing import Any

# A drain's lease; renewed every third of it.
LEASE_TTL_MS = 15_000


@dataclass(frozen=True, slots=True)
class Holder:
    """Whoever paused a queue or holds its lease.

    Args:
        owner: unique to one run of a command; what ownership is compared by.
        verb: ``pause``, ``drain`` or ``restart``.
        user, host, pid: where that command runs.
        at_ms: when it began, epoch milliseconds.
        was_paused: whether the queue was paused before (leases only).
    """

    owner: str
    verb: str
    user: str
    host: str
    pid: int
    at_ms: int
    was_paused: bool = False

    def __str__(self) -> str:
        return f"qctl {self.verb} of {self.user}@{self.host} (pid {self.pid})"

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    def with_was_paused(self, was_paused: bool) -> Holder:
        return replace(self, was_paused=was_paused)


def this_process(verb: str) -> Holder:
    """This run of qctl."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return Holder(
        owner=uuid.uuid4().hex,
        verb=verb,
        user=user,
        host=socket.gethostname(),
        pid=os.getpid(),
        at_ms=int(time.time() * 1000),
    )


def parse_holder(text: Any) -> Holder | None:
    """The holder in a note or lease; None for a missing or foreign value."""
    if not isinstance(text, str):
        return None
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):
        return None
