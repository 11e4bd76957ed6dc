"""What deserves attention about a queue, in words, with the commands to type."""

from __future__ import annotations

from dataclasses import dataclass

from qctl.ops.commands import command
from qctl.wire.snapshot import QueueSnapshot


@dataclass(frozen=True, slots=True)
class Note:
    """A remark: one clause without a full stop, and the commands that look into it or mend it."""

    text: str
    commands: tuple[str, ...] = ()


BULL = Note("a queue of Bull 3 or 4: qctl reads it and never changes it")


def notes(queue: QueueSnapshot, workers: int | None) -> tuple[Note, ...]:
    """Remarks on one queue, the most pressing first; none for a healthy queue.

    Args:
        workers: connected to it; None when that is unknown.
    """
    if queue.format == "bull":
        return (BULL,)
    found = (
        paused(queue),
        legacy_paused(queue),
        stalled(queue, workers),
        unserved(queue, workers),
        limited(queue),
    )
    return tuple(note for note in found if note is not None)


def paused(queue: QueueSnapshot) -> Note | None:
    """Who paused it, or who is draining it."""
    if queue.lease is not None:
        return Note(f"{queue.lease} is at work on it now")
    if not queue.paused:
        return None
    note = queue.pause_note
    if note is None:
        text = "paused, and not through qctl"
    elif note.verb in {"drain", "restart"}:
        text = f"left paused by {note}, which no longer runs"
    else:
        text = f"paused by {note}"
    return Note(text, (_command(queue, "resume"),))


def legacy_paused(queue: QueueSnapshot) -> Note | None:
    """Jobs where no worker looks for them."""
    if queue.paused or not queue.legacy_paused:
        return None
    found = jobs(queue.legacy_paused, "is", "are")
    text = (
        f"{found} in BullMQ 5's list of paused jobs, which no worker reads: a resume fetches them"
    )
    return Note(text, (_command(queue, "resume"),))


def stalled(queue: QueueSnapshot, workers: int | None) -> Note | None:
    """Jobs that nobody holds."""
    if not queue.counts.stalled:
        return None
    count = jobs(queue.counts.stalled, "has", "have")
    if workers is None:
        text = f"{count} stalled; a worker, if there is one, notices that within a minute or two"
    elif workers == 0:
        text = f"{count} stalled, and no worker is there to notice"
    else:
        text = f"{count} stalled; workers notice that within a minute or two"
    look = _command(queue, "jobs list", "--state", "stalled")
    return Note(text, (look, _command(queue, "jobs retry-stalled")))


def unserved(queue: QueueSnapshot, workers: int | None) -> Note | None:
    """Jobs that nobody comes for."""
    if workers != 0 or not queue.backlog:
        return None
    return Note(f"{jobs(queue.backlog, 'waits', 'wait')}, and no worker is connected")


def limited(queue: QueueSnapshot) -> Note | None:
    """How long it is rate limited."""
    if not queue.rate_limited_ms:
        return None
    return Note(f"rate limited for another {queue.rate_limited_ms / 1000:.1f} s")


def _command(queue: QueueSnapshot, verb: str, *options: str) -> str:
    return command(queue.keys.prefix, verb, queue.keys.name, *options)


def jobs(number: int, one: str, many: str) -> str:
    """``1 job waits``, ``3 jobs wait``."""
    return f"{number:,} job {one}" if number == 1 else f"{number:,} jobs {many}"
