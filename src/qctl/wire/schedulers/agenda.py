"""When work of a queue is due: its schedulers and its next delayed job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.connection.address import Arg, Client
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import checked, read_groups, value_or
from qctl.wire.schedulers.scheduling import Scheduler, parse_schedulers, record_commands
from qctl.wire.states import due_ms

# Of each queue, at most this many schedulers are read: those that are due soonest.
MAX_SCHEDULERS = 200


@dataclass(frozen=True, slots=True)
class Agenda:
    """When work of one queue is due. Times are epoch milliseconds.

    Args:
        schedulers: soonest first, at most ``MAX_SCHEDULERS``.
        total_schedulers: how many schedulers and legacy repeatable jobs the queue has.
        next_delayed_ms: when the next delayed job is due, of a scheduler or not; None without one.
    """

    keys: QueueKeys
    schedulers: tuple[Scheduler, ...]
    total_schedulers: int
    next_delayed_ms: int | None


def read_agendas(client: Client, queues: Sequence[QueueKeys]) -> list[Agenda]:
    """The agenda of each queue, in two round trips."""
    reads: list[list[tuple[Arg, ...]]] = [
        [
            ("ZRANGE", keys("repeat"), 0, MAX_SCHEDULERS - 1, "WITHSCORES"),
            ("ZCARD", keys("repeat")),
            ("ZRANGE", keys("delayed"), 0, 0, "WITHSCORES"),
        ]
        for keys in queues
    ]
    rows = [[*map(checked, row)] for row in read_groups(client, reads)]
    records = read_groups(
        client, [record_commands(keys, row[0]) for keys, row in zip(queues, rows, strict=True)]
    )
    return [
        Agenda(
            keys,
            tuple(parse_schedulers(listed, [value_or(record, []) for record in own])),
            int(total),
            due_ms(float(delayed[1])) if delayed else None,
        )
        for keys, (listed, total, delayed), own in zip(queues, rows, records, strict=True)
    ]
