"""Remarks on what deserves attention about a queue, with the commands to type."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from qctl.durations import duration
from qctl.ops.processes.suggest import command
from qctl.ops.times import utc_datetime
from qctl.plurals import counted
from qctl.wire.read.clients import WorkerClient, is_absent, is_listed, worker_counts
from qctl.wire.read.snapshot import HeldJob, QueueSnapshot

if TYPE_CHECKING:
    # Not loaded for `qctl status`.
    from qctl.wire.drain_record import Resumer


Severity = Literal["error", "warning", "info", "unknown"]


@dataclass(frozen=True, slots=True)
class Note:
    """A remark on a queue.

    Args:
        text: a clause without a full stop.
        commands: what to type to see more, or to fix it.
        kind: the kind of problem, for example ``stalled``; "" if the remark is about no problem.
        severity: ``error`` (jobs do not run, and will not start to run by themselves), ``warning``,
            ``info`` (a limit that the queue has on purpose), ``unknown`` (qctl cannot determine
            whether there is a problem), or None if the remark is about no problem.
        jobs: how many jobs the problem concerns.
        within_s: for ``worker_gone``: when the last of the locks expires; None if one never does.
    """

    text: str
    commands: tuple[str, ...] = ()
    kind: str = ""
    severity: Severity | None = None
    jobs: int = 0
    within_s: float | None = None


# The remark if no worker has made a stalled check within the last interval.
NO_CHECK = (
    "no stalled check has run lately, and none will run if the workers have skipStalledCheck or "
    "fetch jobs by hand"
)
# For the text "paused by NAME, or …". NAME is from a pause note, but NAME's pause may have ended.
# If so, somebody else has paused the queue again.
LATER_PAUSE = "by somebody else since then (the queue's events do not show which of the two)"
BULL = Note("a queue of Bull 3 or 4: qctl reads it and never changes it")


def notes(
    queue: QueueSnapshot, workers: Sequence[WorkerClient] | None, *, all_named: bool = True
) -> tuple[Note, ...]:
    """Remarks on one queue and its workers (None if unknown), in a fixed order.

    Args:
        all_named: whether ``workers`` has all workers; False if there may be others that Redis
            lists without a name.
    """
    if queue.format == "bull":
        return (BULL,)
    count = None if workers is None else worker_counts(workers).total()
    found = (
        paused(queue),
        grouped(queue),
        legacy_paused(queue),
        stalled(queue, count),
        held_by_absent(queue, workers) if all_named else None,
        unserved(queue, count),
        overdue(queue, count),
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
    since = utc_datetime(queue.paused_since_ms)
    if since is not None:
        text += f", since {since:%Y-%m-%d %H:%M:%S} UTC"
    elif queue.uncertain_note is None:
        text += ", since an unknown time"
    commands = (_command(queue, "resume"),)
    if not (queue.backlog or queue.overdue):
        return Note(text, commands)
    text += f"; {ready(queue)}"
    return Note(text, commands, "paused", "warning", queue.backlog + queue.overdue)


def grouped(queue: QueueSnapshot) -> Note | None:
    """Reports that jobs may wait in groups of BullMQ Pro."""
    if not queue.has_groups:
        return None
    return Note(
        "jobs may also wait in groups of BullMQ Pro: qctl neither counts nor changes those, so "
        "more jobs may wait than shown"
    )


def resumer_text(resumer: Resumer) -> str:
    """Which app resumes the queue at the app's start, and the time when a drain last saw this."""
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
    commands = (_command(queue, "resume"),)
    return Note(text, commands, "paused_list", "error", queue.legacy_paused)


def stalled(queue: QueueSnapshot, workers: int | None) -> Note | None:
    """Reports stalled jobs, and whether a worker will put them back."""
    found = queue.counts.stalled
    if not found:
        return None
    count = counted(found, "job has", "jobs have")
    show = _command(queue, "jobs list", "--state", "stalled")
    commands = (show, _command(queue, "jobs retry-stalled"))
    if workers == 0:
        text = f"{count} stalled, and no worker is there to notice"
        return Note(text, commands, "stalled", "error", found)
    clock = queue.stalled_clock
    if not clock.ran_recently:
        text = f"{count} stalled, and it is unknown whether a worker notices: {NO_CHECK}"
        return Note(text, commands, "stalled", "error", found)
    interval_ms, _ = clock.interval_ms(round(time.time() * 1000))
    text = f"workers check for stalls every {duration(interval_ms / 1000)}, and the second check "
    text += "puts it back" if found == 1 else "puts them back"
    return Note(f"{count} stalled; {text}", commands, "stalled", "warning", found)


def held_by_absent(queue: QueueSnapshot, workers: Sequence[WorkerClient] | None) -> Note | None:
    """Reports locked jobs whose workers are not connected, and when the locks expire.

    A worker that shuts down disconnects before its jobs end, and a worker that has lost its
    connection comes back. So the jobs are stalled only if the locks expire.
    """
    if workers is None or queue.lease is not None:
        # While a drain is at work, workers leave on purpose, and the drain watches the jobs.
        return None
    # Redis never lists workers with certain names: do not report those as absent.
    held: Sequence[HeldJob] = [
        job for job in queue.held if is_absent(job.worker, workers) and is_listed(job.worker or "")
    ]
    if not held:
        return None
    active = queue.counts.active
    part = f"{len(held):,} of {counted(active, 'active job')}" if active > len(held) else ""
    part = part or counted(active, "active job")
    if workers:
        names = {job.worker for job in held}
        whose = "a worker that is" if len(names) == 1 else f"{len(names)} workers that are"
        text = f"{part} {'belongs' if len(held) == 1 else 'belong'} to {whose} not connected"
    else:
        text = f"{part} {'has' if len(held) == 1 else 'have'} a lock, and Redis lists no worker"
    ttls_ms = [job.lock_ttl_ms for job in held]
    ends_s = None if None in ttls_ms else max(ttl_ms or 0 for ttl_ms in ttls_ms) / 1000
    if ends_s is None:
        text += f"; {locks_end(ttls_ms)}"
    else:
        them = "it stalls" if len(held) == 1 else "they stall"
        text += f": {them} within {duration(ends_s)}, unless the worker is closing or comes back"
    commands = (_command(queue, "jobs retry-stalled", "--wait"),)
    return Note(text, commands, "worker_gone", "warning", len(held), ends_s)


def locks_end(ttls_ms: Sequence[int | None]) -> str:
    """When locks with these TTLs expire. The TTL of a lock that never expires is None."""
    if None in ttls_ms:
        return "a lock never expires, so nothing puts its job back until the lock's key is deleted"
    longest_ms = max((ttl_ms or 0 for ttl_ms in ttls_ms), default=0)
    return f"locks that nobody renews run out within {duration(longest_ms / 1000)}"


def unserved(queue: QueueSnapshot, workers: int | None) -> Note | None:
    """Reports jobs that are ready, if no worker is connected or workers are unknown."""
    jobs = queue.backlog + queue.overdue
    if workers or not jobs:
        return None
    if workers is None:
        text = f"{ready(queue)}, and it is unknown whether a worker is connected"
        return Note(text, (), "workers_unknown", "unknown", jobs)
    # If an active job has a lock, its worker may be one that Redis never lists.
    is_held = queue.counts.active > queue.counts.stalled
    seen = "Redis lists no worker" if is_held else "no worker is connected"
    # While a drain is at work, it restarts the workers.
    severity: Severity = "error" if queue.lease is None else "info"
    return Note(f"{ready(queue)}, and {seen}", (), "no_worker", severity, jobs)


def overdue(queue: QueueSnapshot, workers: int | None) -> Note | None:
    """Reports delayed jobs that connected workers do not fetch although nothing holds them back."""
    holds_back = queue.paused or queue.rate_limited_ms or queue.is_maxed
    if not queue.overdue or not workers or holds_back:
        return None
    text = counted(queue.overdue, "delayed job is", "delayed jobs are") + " overdue: no worker "
    text += f"has fetched {'it' if queue.overdue == 1 else 'them'}"
    return Note(text, (), "overdue", "warning", queue.overdue)


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
    problem: tuple[str, Severity | None, int] = ("", None, 0)
    if queue.backlog:
        problem = ("rate_limited", "info", queue.backlog)
    if limit.holds is None:
        # It is unknown whether the limit is reached: report it only if jobs wait.
        if not queue.backlog:
            return None
        used = "some jobs are"
        if limit.used is not None:
            used = counted(limit.used, "job is", "jobs are")
        text = f"may be rate limited for another {left}: {used} counted in this window, "
        text += "and the maximum of its workers' limiter is not in Redis"
        # If jobs run, the limit is not reached, or has been reached only a short time ago.
        is_idle = queue.counts.active == queue.counts.stalled
        return Note(text, (), "rate_limited", "unknown", queue.backlog) if is_idle else Note(text)
    if limit.is_manual:
        own = "" if limit.maximum is not None else "; workers without a limiter go on"
        return Note(f"rate limited by hand for another {left}{own}", (), *problem)
    text = (
        f"rate limited for another {left}: {limit.used:,} of {limit.maximum:,} jobs have started "
    )
    return Note(text + "in this window", (), *problem)


def maxed(queue: QueueSnapshot) -> Note | None:
    """Reports a global concurrency that keeps jobs from starting."""
    if queue.invalid_concurrency is not None:
        return Note(
            f"its global concurrency is {queue.invalid_concurrency!r}, which is not a number: "
            "BullMQ fails on every add and every fetch",
            kind="broken",
            severity="error",
        )
    if not queue.is_maxed or not queue.backlog:
        return None
    waiting = counted(queue.backlog, "job waits", "jobs wait")
    if (queue.concurrency or 0) <= 0:
        text = f"its global concurrency is {queue.concurrency}: no job can start, {waiting}"
        return Note(text, (), "blocked", "error", queue.backlog)
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
