"""When work of a queue is due: its schedulers and its next delayed job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.connection.address import Arg, Client
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import checked, to_dict, value_or
from qctl.wire.schedulers.scheduling import Scheduler, record_commands, schedulers
from qctl.wire.states import due_ms

# Schedulers read of one queue: those that are due soonest.
MAX_SCHEDULERS = 200


@dataclass(frozen=True, slots=True)
class Agenda:
    """When work of one queue is due. Times are epoch milliseconds.

    Args:
        schedulers: soonest first, at most ``MAX_SCHEDULERS``.
        total_schedulers: how many schedulers the queue has.
        next_delayed_ms: when the next delayed job is due, be it a scheduler's or not.
    """

    keys: QueueKeys
    schedulers: tuple[Scheduler, ...]
    total_schedulers: int
    next_delayed_ms: int | None


def read_agendas(client: Client, queues: Sequence[QueueKeys]) -> list[Agenda]:
    """The agenda of each queue, in two round trips."""
    commands: list[tuple[Arg, ...]] = []
    for keys in queues:
        commands += [
            ("ZRANGE", keys("repeat"), 0, MAX_SCHEDULERS - 1, "WITHSCORES"),
            ("ZCARD", keys("repeat")),
            ("ZRANGE", keys("delayed"), 0, 0, "WITHSCORES"),
        ]
    replies = [checked(reply) for reply in client.pipeline(commands)]
    listed = replies[::3]
    records = iter(
        client.pipeline(wanted)
        if (
            wanted := [
                command
                for keys, row in zip(queues, listed, strict=True)
                for command in record_commands(keys, row)
            ]
        )
        else ()
    )
    agendas = []
    for index, (keys, row) in enumerate(zip(queues, listed, strict=True)):
        found = schedulers(row, [value_or(next(records), []) for _ in row[::2]])
        delayed = [*to_dict(replies[3 * index + 2]).values()]
        next_ms = due_ms(float(delayed[0])) if delayed else None
        agendas.append(Agenda(keys, tuple(found), int(replies[3 * index + 1]), next_ms))
    return agendas
