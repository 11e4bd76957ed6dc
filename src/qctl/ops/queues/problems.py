"""What is wrong with queues. If many queues have the same problem, it is reported once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from qctl.durations import duration
from qctl.grouping import grouped
from qctl.ops.processes.suggest import command
from qctl.ops.queues.advice import Note, Severity
from qctl.ops.times import utc_datetime
from qctl.plurals import counted
from qctl.wire.notes import Holder
from qctl.wire.read.snapshot import QueueSnapshot

# Worst first.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info", "unknown")
# A problem's text names at most this many queues. If more queues have the problem, one command
# stands for the commands of all of them.
MAX_NAMED = 3


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of problem, of one queue or several.

    Args:
        kind: one of the keys of ``_OF_SEVERAL``, or ``unreadable``.
        severity: see ``advice.Note``.
        queues: the names of the queues, in the order in which they were given; ``NAME@PREFIX`` if
            the queues of the report have several prefixes.
        text: a clause without a full stop; it names at most ``MAX_NAMED`` queues.
        commands: what to type to see more, or to fix it.
    """

    kind: str
    severity: Severity
    queues: tuple[str, ...]
    text: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Affected:
    """A queue, and the remark on one of its problems."""

    label: str
    queue: QueueSnapshot
    note: Note
    severity: Severity


def problems_of(
    queues: Iterable[tuple[QueueSnapshot, Sequence[Note]]], prefix: str | None
) -> list[Problem]:
    """The problems of queues, worst first.

    Args:
        queues: each queue with the remarks on it.
        prefix: the prefix that is left out of the queues' names.
    """
    affected = [
        _Affected(queue.keys.label(prefix), queue, note, note.severity)
        for queue, notes in queues
        for note in notes
        if note.severity is not None
    ]
    # Pauses by different people are different problems.
    groups = grouped(affected, lambda a: (a.severity, a.note.kind, _pauser(a)))
    return sorted(map(_problem, groups.values()), key=_rank)


def worst(notes: Sequence[Note]) -> Severity | None:
    """The worst severity among remarks on a queue; None if there is no problem."""
    found = {note.severity for note in notes}
    return next((severity for severity in SEVERITIES if severity in found), None)


def _rank(problem: Problem) -> tuple[int, int, int]:
    kinds = [*_OF_SEVERAL]
    return SEVERITIES.index(problem.severity), kinds.index(problem.kind), -len(problem.queues)


def _pauser(affected: _Affected) -> Holder | None:
    return affected.queue.pause_note if affected.note.kind == "paused" else None


def _problem(group: Sequence[_Affected]) -> Problem:
    labels = tuple(affected.label for affected in group)
    first = group[0].note
    if len(group) == 1:
        text = f"{labels[0]}: {first.text}"
    else:
        text = f"{_OF_SEVERAL[first.kind](group)}: {_named(labels)}"
    if len(group) <= MAX_NAMED:
        commands = tuple(command for affected in group for command in affected.note.commands)
    elif first.commands:
        # Suggest only the status of the first queue, which shows the commands for that queue.
        keys = group[0].queue.keys
        commands = (command(keys.prefix, "status", keys.name),)
    else:
        commands = ()
    return Problem(first.kind, group[0].severity, labels, text, commands)


def _named(labels: Sequence[str]) -> str:
    if len(labels) <= MAX_NAMED:
        return f"{', '.join(labels[:-1])} and {labels[-1]}"
    return f"{', '.join(labels[:2])} and {len(labels) - 2:,} more"


def _jobs(group: Sequence[_Affected]) -> int:
    return sum(affected.note.jobs for affected in group)


def _queues(text: str) -> Callable[[Sequence[_Affected]], str]:
    """Put the numbers of queues and of jobs into a text."""
    return lambda group: text.format(queues=f"{len(group):,} queues", jobs=f"{_jobs(group):,}")


def _have_waiting(rest: str) -> Callable[[Sequence[_Affected]], str]:
    def text(group: Sequence[_Affected]) -> str:
        overdue = sum(affected.queue.overdue for affected in group)
        waiting = _jobs(group) - overdue
        jobs = counted(waiting, "job") + " waiting" if waiting else ""
        if overdue:
            jobs += (", " if jobs else "") + counted(overdue, "delayed job") + " overdue"
        return f"{len(group):,} queues have {jobs}{rest}"

    return text


def _worker_gone(group: Sequence[_Affected]) -> str:
    active = sum(affected.queue.counts.active for affected in group)
    ends_s = [affected.note.within_s for affected in group]
    part = f"{_jobs(group):,} of " if active > _jobs(group) else ""
    text = f"{part}{counted(active, 'active job')} in {len(group):,} queues have workers that are "
    text += "not connected"
    known_s = [end_s for end_s in ends_s if end_s is not None]
    if len(known_s) < len(ends_s):
        return f"{text}, and a lock never expires"
    stall = f"they stall within {duration(max(known_s))}"
    return f"{text}; {stall}, unless the workers are closing or come back"


def _paused(group: Sequence[_Affected]) -> str:
    by = group[0].queue.pause_note
    how = "paused, and not through qctl" if by is None else f"paused by {by}"
    times = [utc_datetime(affected.queue.paused_since_ms) for affected in group]
    known = [time for time in times if time is not None]
    since = f", since {min(known):%Y-%m-%d %H:%M:%S} UTC" if len(known) == len(times) else ""
    if since and len({*known}) > 1:
        since += " or later"
    return f"{len(group):,} queues with {_jobs(group):,} ready jobs are {how}{since}"


# The text for several queues, by kind of problem. Kinds that are worse come first.
_OF_SEVERAL: dict[str, Callable[[Sequence[_Affected]], str]] = {
    "unreadable": _queues("{queues} cannot be read"),
    "broken": _queues(
        "{queues} have a global concurrency that is not a number: BullMQ fails on every add and "
        "every fetch"
    ),
    "no_worker": _have_waiting(" and no worker"),
    "stalled": _queues("{queues} have {jobs} stalled jobs"),
    "blocked": _queues("{queues} have a global concurrency of 0 or less, and {jobs} jobs waiting"),
    "paused_list": _queues(
        "{queues} have {jobs} jobs in BullMQ 5's list of paused jobs, which no worker reads"
    ),
    "worker_gone": _worker_gone,
    "paused": _paused,
    "overdue": _queues("{queues} have {jobs} overdue delayed jobs, which no worker has fetched"),
    "rate_limited": _queues("{queues} are or may be rate limited, and have {jobs} jobs waiting"),
    "workers_unknown": _have_waiting(", and it is unknown whether workers are connected"),
}
