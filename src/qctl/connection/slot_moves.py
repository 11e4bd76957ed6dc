"""Commands that a cluster refuses while a slot moves to another node, and when to retry them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from qctl.errors import ReplyError

# Stop retrying after this time. If the slot of a large queue takes longer to move, commands fail.
PATIENCE_S = 10.0
_MIN_DELAY_S, _MAX_DELAY_S = 0.05, 0.5
_CODES = frozenset(("ASK", "MOVED", "TRYAGAIN"))


def is_refusal(reply: Any) -> bool:
    """Whether a node refused the command because the slot is moving or has moved."""
    return isinstance(reply, ReplyError) and reply.code in _CODES


def retry_delays_s() -> Iterator[float]:
    """How long to wait before each retry, in seconds; ends after ``PATIENCE_S``."""
    deadline = time.monotonic() + PATIENCE_S
    delay_s = _MIN_DELAY_S
    while time.monotonic() < deadline:
        yield delay_s
        delay_s = min(delay_s * 2, _MAX_DELAY_S)
