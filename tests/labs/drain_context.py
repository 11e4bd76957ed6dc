"""What the phases of a drain work with, without a drain around them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from qctl.ops.drain.context import DrainContext
from qctl.ops.drain.ledger import Ledger
from qctl.ops.drain.tracker import Tracker
from qctl.wire.keys import QueueKeys


def tracker_of(client: Any, *queues: QueueKeys, owner: str = "me") -> Tracker:
    """Follows these queues from nowhere: set ``cursors``."""
    return Tracker(client, queues, owner, Ledger())


def context_of(client: Any, queues: Sequence[QueueKeys], **plan: Any) -> DrainContext:
    """A drain of these queues that restarts nothing, and follows them from nowhere.

    Args:
        plan: other fields of the plan.
    """
    nothing: Any = None
    fields = {"queues": queues, "connections": None, "target": None, **plan}
    made: Any = SimpleNamespace(**fields)
    return DrainContext(
        client=client,
        address=nothing,
        settings=nothing,
        plan=made,
        options=nothing,
        holder=nothing,
        stop=lambda: False,
        leases=nothing,
        tracker=tracker_of(client, *queues),
    )
