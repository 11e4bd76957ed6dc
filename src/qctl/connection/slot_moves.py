"""Commands that a cluster refuses while a slot moves to another node, and when to retry them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from qctl.errors import ReplyError

# As long as a reply may take. If a large queue takes longer to move, the command fails.
PATIENCE_S = 10.0
_MIN_PAUSE_S, _MAX_PAUSE_S = 0.05, 0.5
_CODES = frozenset(("ASK", "MOVED", "TRYAGAIN"))


def is_refusal(reply: Any) -> bool:
    """Whether a command was not applied because its slot moves or has moved."""
    return isinstance(reply, ReplyError) and reply.code in _CODES


def pauses() -> Iterator[float]:
    """The pause before each further attempt, in seconds; ends after ``PATIENCE_S``."""
    deadline = time.monotonic() + PATIENCE_S
    pause_s = _MIN_PAUSE_S
    while time.monotonic() < deadline:
        yield pause_s
        pause_s = min(pause_s * 2, _MAX_PAUSE_S)
