"""What a cluster refuses while it moves a slot to another node, and how often it is tried."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from qctl.errors import ReplyError

# As long as Redis may take for a reply. A large queue takes longer to move: then its user decides.
PATIENCE_S = 10.0
# First and longest pause between attempts, in seconds.
_PAUSE_S = (0.05, 0.5)
_CODES = frozenset(("ASK", "MOVED", "TRYAGAIN"))


def is_refusal(reply: Any) -> bool:
    """Whether a command was not done, since its slot moves or has moved."""
    return isinstance(reply, ReplyError) and reply.code in _CODES


def pauses() -> Iterator[float]:
    """How long to wait before each further attempt, in seconds; ends with ``PATIENCE_S``."""
    deadline = time.monotonic() + PATIENCE_S
    pause_s, longest_s = _PAUSE_S
    while time.monotonic() < deadline:
        yield pause_s
        pause_s = min(pause_s * 2, longest_s)
