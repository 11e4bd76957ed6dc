"""How many jobs have ever finished, where the workers keep BullMQ's metrics (wire format 5.21)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.connection.address import Arg, Client
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import to_int, value_or
from qctl.wire.states import FINISHED


@dataclass(frozen=True, slots=True)
class FinishedCounts:
    """Finished jobs of one queue since its metrics began; None where no worker keeps them."""

    completed: int | None
    failed: int | None


def read_finished_counts(client: Client, queues: Sequence[QueueKeys]) -> list[FinishedCounts]:
    """The counts of some queues, in one round trip."""
    commands: list[tuple[Arg, ...]] = [
        ("HGET", keys(f"metrics:{result}"), "count") for keys in queues for result in FINISHED
    ]
    replies = [to_int(value_or(reply, None)) for reply in client.pipeline(commands)]
    return [FinishedCounts(*replies[index : index + 2]) for index in range(0, 2 * len(queues), 2)]
