"""What falls due in a queue, and when: its schedulers and the next delayed job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.connection.address import Arg, Client
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import checked, to_dict, value_or
from qctl.wire.schedulers.scheduling import Scheduler, record_commands, schedulers
from qctl.wire.states import due_ms

# Of one queue; the soonest.
MOST_SCHEDULERS = 200


@dataclass(frozen=True, slots=True)
class Agenda:
    """Of one queue. Times are epoch milliseconds.

    Args:
        schedulers: the soonest first, at most ``MOST_SCHEDULERS``.
        total_schedulers: how many there are.
        next_delayed_ms: when the next delayed job is due, those of schedulers included.
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
            ("ZRANGE", keys("repeat"), 0, MOST_SCHEDULERS - 1, "WITHSCORES"),
            ("ZCARD", keys("repeat")),
            ("ZRANGE", keys("delayed"), 0, 0, "WITHSCORES"),
        ]
    replies = [checked(reply) for reply in client.pipeline(commands)] if commands else []
    listed = replies[::3]
    records = iter(
        client.pipeline(wanted)
        if (wanted := [c for k, row in zip(queues, listed, strict=True) for c in _of(k, row)])
        else ()
    )
    agendas = []
    for index, (keys, row) in enumerate(zip(queues, listed, strict=True)):
        found = schedulers(row, [value_or(next(records), []) for _ in row[::2]])
        delayed = [*to_dict(replies[3 * index + 2]).values()]
        next_ms = due_ms(float(delayed[0])) if delayed else None
        agendas.append(Agenda(keys, tuple(found), int(replies[3 * index + 1]), next_ms))
    return agendas


def _of(keys: QueueKeys, row: Sequence[str]) -> list[tuple[Arg, ...]]:
    return record_commands(keys, row)
