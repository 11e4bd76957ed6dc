"""Remarks on what deserves attention about a queue, with the commands to type."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qctl.durations import duration
from qctl.ops.processes.suggest import command
from qctl.ops.times import utc_datetime
from qctl.plurals import counted
from qctl.wire.read.clients import WorkerClient, is_absent, is_listed
from qctl.wire.read.snapshot import HeldJob, QueueSnapshot

if TYPE_CHECKING:
    # Not loaded for `qctl status`.
    from qctl.wire.drain_record import Resumer


@dataclass(frozen=True, slots=True)
class Note:
    """A remark: a clause without a full stop, and commands that show more or fix it."""

    text: str
    commands: tuple[str, ...] = ()


# The remark if no worker has made a stalled check within the last interval.
NO_CHECK = (
    "no stalled check has run lately; if workers have skipStalledCheck or fetch jobs by hand, "
    "none will"
)
# Follows the name in a pause note when it is unknown whether that pause is over. If it is over,
# somebody else has paused the queue.
LATER_PAUSE = "by somebody else since then (its events do not show which)"
BULL = Note("a queue of Bull 3 or 4: qctl reads it and never changes it")


def notes(queue: QueueSnapshot, workers: Sequence[WorkerClient] | None) -> tuple[Note, ...]:
    """Remarks on one queue and its workers (None if unknown), in a fixed order."""
    if queue.format == "bull":
        return (BULL,)
    count = None if workers is None else len(workers)
    found = (
        paused(queue),
        grouped(queue),
        legacy_paused(queue),
        stalled(queue, count),
        held_by_absent(queue, workers),
        unserved(queue, count),
        limited(queue),
        maxed(queue),
    )
    return tuple(note for note in found if note is not None)


def paused(queue: QueueSnapshot) -> Note | None:
    """Reports the drain or restart that is at work on the queue or, if none is, who paused it."""
    if queue.lease is not None:
        return Note(f"{queue.lease} is at work on it now")
    if not queue.paused:
        return None
    note = queue.pause_note
    if queue.uncertain_note is not None:
        text = f"paused by {queue.uncertain_note}, or {LATER_PAUSE}"
    elif note is None:
        text = "paused, and not through qctl"
    elif note.is_temporary:
        text = f"left paused by {note}, which no longer runs"
    else:
        text = f"paused by {note}"
    return Note(text, (_command(queue, "resume"),))


def grouped(queue: QueueSnapshot) -> Note | None:
    """Reports that jobs may wait in groups of BullMQ Pro."""
    if not queue.has_groups:
        return None
    return Note(
        "jobs may also wait in groups of BullMQ Pro: qctl neither counts nor changes those, so "
        "more jobs may wait than shown"
    )


def resumer_text(resumer: Resumer) -> str:
    """Which app resumes the queue when the app starts, and when a drain last saw that."""
    seen_at = utc_datetime(resumer.at_ms)
    seen = f", as seen at {seen_at:%Y-%m-%d %H:%M:%S} UTC" if seen_at else ""
    return f"{resumer.target} resumes the queue when the app starts{seen}"


def legacy_paused(queue: QueueSnapshot) -> Note | None:
    """Reports jobs in a list that no worker reads, though the queue is not paused."""
    if queue.paused or not queue.legacy_paused:
        return None
    found = counted(queue.legacy_paused, "job is", "jobs are")
    text = (
        f"{found} in BullMQ 5's list of paused jobs, which no worker reads: a resume moves them "
        "to the waiting jobs"
    )
    return Note(text, (_command(queue, "resume"),))


def stalled(queue: QueueSnapshot, workers: int | None) -> Note | None:
    """Reports stalled jobs, and whether a worker will put them back."""
    if not queue.counts.stalled:
        return None
    count = counted(queue.counts.stalled, "job has", "jobs have")
    show = _command(queue, "jobs list", "--state", "stalled")
    commands = (show, _command(queue, "jobs retry-stalled"))
    if workers == 0:
        return Note(f"{count} stalled, and no worker is there to notice", commands)
    clock = queue.stalled_clock
    if not clock.ran_recently:
        return Note(
            f"{count} stalled, and whether a worker notices is unknown: {NO_CHECK}", commands
        )
    interval_ms, _ = clock.interval_ms(round(time.time() * 1000))
    text = f"workers check for stalls every {duration(interval_ms / 1000)}, and the second check "
    text += "puts it back" if queue.counts.stalled == 1 else "puts them back"
    return Note(f"{count} stalled; {text}", commands)


def held_by_absent(queue: QueueSnapshot, workers: Sequence[WorkerClient] | None) -> Note | None:
    """Reports locked jobs whose workers are not connected, and when the locks expire."""
    if workers is None:
        return None
    held: Sequence[HeldJob] = queue.held
    if workers:
        # Redis never lists workers with certain names: do not report those as absent.
        held = [
            job for job in held if is_absent(job.worker, workers) and is_listed(job.worker or "")
        ]
    if not held:
        return None
    text = counted(len(held), "job is", "jobs are") + " held"
    if workers:
        them = "it" if len(held) == 1 else "them"
        text += f" by a worker that is not connected: it is closing and ends {them}, or has died"
    else:
        text += ", and Redis lists no worker: the workers are closing, have died, or have names "
        text += "that Redis never lists"
    return Note(
        f"{text}; {locks_end([job.lock_ttl_ms for job in held])}",
        (_command(queue, "jobs retry-stalled", "--wait"),),
    )


def locks_end(ttls_ms: Sequence[int | None]) -> str:
    """When locks with these TTLs expire. The TTL of a lock that never expires is None."""
    if None in ttls_ms:
        return "a lock never expires, so nothing puts its job back until the lock's key is deleted"
    longest_ms = max((ttl_ms or 0 for ttl_ms in ttls_ms), default=0)
    return f"locks that nobody renews run out within {duration(longest_ms / 1000)}"


def unserved(queue: QueueSnapshot, workers: int | None) -> Note | None:
    """Reports jobs that wait although no worker is connected."""
    if workers != 0 or not (queue.backlog or queue.overdue):
        return None
    # If an active job has a lock, its worker may be one that Redis never lists.
    is_held = queue.counts.active > queue.counts.stalled
    seen = "Redis lists no worker" if is_held else "no worker is connected"
    return Note(f"{ready(queue)}, and {seen}")


def ready(queue: QueueSnapshot) -> str:
    """``3 jobs wait, 1 job is delayed and overdue``; a part that would be 0 is left out."""
    parts = []
    if queue.backlog:
        parts.append(counted(queue.backlog, "job waits", "jobs wait"))
    if queue.overdue:
        parts.append(f"{counted(queue.overdue, 'job is', 'jobs are')} delayed and overdue")
    return ", ".join(parts)


def limited(queue: QueueSnapshot) -> Note | None:
    """Reports a rate limit that stops the queue, or may stop it, and for how long."""
    limit = queue.rate_limit
    if limit is None or limit.holds is False:
        return None
    left = duration(limit.left_ms / 1000)
    if limit.holds is None:
        # Whether the limit is reached is unknown: report it only if jobs wait.
        if not queue.backlog:
            return None
        used = "some jobs are"
        if limit.used is not None:
            used = counted(limit.used, "job is", "jobs are")
        return Note(
            f"may be rate limited for another {left}: {used} counted in this window, "
            "and the maximum of its workers' limiter is not in Redis"
        )
    if limit.is_manual:
        own = "" if limit.maximum is not None else "; workers without a limiter go on"
        return Note(f"rate limited by hand for another {left}{own}")
    return Note(
        f"rate limited for another {left}: {limit.used:,} of {limit.maximum:,} jobs have started "
        "in this window"
    )


def maxed(queue: QueueSnapshot) -> Note | None:
    """Reports a global concurrency that keeps jobs from starting."""
    if queue.invalid_concurrency is not None:
        return Note(
            f"its global concurrency is {queue.invalid_concurrency!r}, which is not a number: "
            "BullMQ fails on every add and every fetch"
        )
    if not queue.is_maxed or not queue.backlog:
        return None
    waiting = counted(queue.backlog, "job waits", "jobs wait")
    if (queue.concurrency or 0) <= 0:
        return Note(f"its global concurrency is {queue.concurrency}: no job can start, {waiting}")
    by = ""
    if stalled := queue.counts.stalled:
        by = f" ({counted(stalled, 'of these jobs has', 'of these jobs have')} stalled)"
    active = counted(queue.counts.active, "job is", "jobs are")
    return Note(
        f"its global concurrency of {queue.concurrency:,} is reached: {active} active{by}, "
        f"{waiting}"
    )


def _command(queue: QueueSnapshot, verb: str, *options: str) -> str:
    return command(queue.keys.prefix, verb, queue.keys.name, *options)
