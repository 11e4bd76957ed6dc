"""Two rows of the impact table: active jobs, and jobs that would fail for good."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from qctl.ops.impact.jobs_at_risk import JobRef
from qctl.ops.queues.advice import locks_end
from qctl.output.impact.table import Aspect
from qctl.output.text import count, duration, duration_range, listed, visible
from qctl.plurals import counted

if TYPE_CHECKING:
    from qctl.ops.impact.assess import Impact
    from qctl.ops.jobs.estimate import Runtimes

_MAX_IDS = 10
_MAX_ROWS = 4


def active_jobs(impact: Impact) -> Aspect:
    """How many of the active jobs a restart would interrupt, and why."""
    # Stalled jobs are held by nobody; they have a row of their own.
    held = [job for job in impact.jobs if job.held_by != "nobody"]
    if not held:
        if hidden := [*impact.bull, *impact.unread]:
            return Aspect("Active jobs", "none known", (f"not read: {listed(hidden)}",), "yellow")
        if len(impact.jobs):
            # A stalled job may still be running.
            return Aspect("Active jobs", "none known to run", (), "yellow")
        return Aspect("Active jobs", "none running", (), "green")
    worst, best = impact.interrupted, impact.interrupted_if_handled
    others = sum(job.held_by == "other" for job in held)
    notes: list[str] = []
    if not worst:
        text = "none interrupted"
        if not others:
            notes.append("the old process finishes them, however long they take")
    elif best is None or best == worst:
        text = f"{len(worst):,} of {len(held):,} interrupted"
    elif impact.handles_signal:
        text = f"{len(best):,} of {len(held):,} interrupted"
    else:
        text = f"{len(best):,} to {len(worst):,} of {len(held):,} interrupted"
    if worst:
        notes += _why_interrupted(impact)
        notes.append(f"ids: {_ids(worst)}")
    if others:
        notes.append(f"{counted(others, 'job')} of other workers, unaffected")
    notes += _unseen(impact)
    if impact.unattributed:
        notes.append(
            f"{counted(len(impact.unattributed), 'job')} may belong to other workers; because that "
            "is unknown, they count as interrupted"
        )
    notes += _stalls_after_last_restart(impact)
    notes += [_usual_time(impact, row) for row in impact.runtimes[:_MAX_ROWS]]
    return Aspect("Active jobs", text, notes, "bold red" if worst else "green")


def _unseen(impact: Impact) -> Iterator[str]:
    """Locked jobs of queues to which no worker is connected."""
    empty = {impact.label(q) for q in impact.queues if q.workers == 0 and not q.other_workers}
    held = [
        job.lock_ttl_ms for job in impact.jobs if job.queue in empty and job.held_by != "nobody"
    ]
    if held:
        yield (
            f"{counted(len(held), 'job')} with a lock, and no worker is connected: if their worker "
            f"has died, {locks_end(held)}"
        )


def _stalls_after_last_restart(impact: Impact) -> Iterator[str]:
    """The jobs that stalled soon after the last restart, though perhaps not because of it."""
    past = impact.last_restarts or ()
    if impact.handles_signal or not past:
        return
    ago = duration((impact.asked_at - max(each.restarted_at for each in past)).total_seconds())
    # Several processes' last restarts may name the same job; it is listed once.
    ids = tuple(
        dict.fromkeys(JobRef(each.queue, job_id) for each in past for job_id in each.interrupted)
    )
    if ids:
        number = counted(len(ids), "job")
        yield f"{number} stalled soon after the last restart, {ago} ago: {_ids(ids)}"
    elif all(each.remembered for each in past):
        yield f"no job stalled soon after the last restart, {ago} ago"


def _why_interrupted(impact: Impact) -> Iterator[str]:
    best = impact.interrupted_if_handled
    if best is None:
        unknown = "the time before SIGKILL" if impact.processes else "the stop signal"
        yield f"{unknown} is unknown, so all running jobs are counted"
        return
    given = [impact.stop_signal] if impact.stop_signal or not impact.processes else []
    known = dict.fromkeys(given or (process.stop_signal for process in impact.processes))
    signals = " or ".join(signal or "the stop signal" for signal in known)
    limit = duration(impact.kill_after_s or 0)
    if impact.handles_signal:
        yield (
            f"on {signals}, workers finish their jobs; SIGKILL ends the jobs that need more than "
            f"{limit}"
        )
    elif best == impact.interrupted:
        yield (
            f"this holds even if the app handles {signals}: none of these jobs is known to end "
            f"within the {limit} before SIGKILL"
        )
    else:
        yield (
            f"{count(len(impact.interrupted))} if the app exits at once on {signals}; "
            f"{count(len(best))} if the app finishes the jobs that need less than the {limit} "
            "before SIGKILL; qctl cannot know which the app does"
        )


def _usual_time(impact: Impact, row: Runtimes) -> str:
    name = visible(row.name or "(no name)", 30)
    if len(impact.queues) > 1:
        name = f"{visible(row.queue, 30)} {name}"
    ran = [
        job.runtime_s
        for job in impact.jobs
        if job.name == row.name and job.queue == row.queue and job.runtime_s is not None
    ]
    text = name
    if ran:
        text += f": running for {duration_range(min(ran), max(ran))}"
    if row.p50_s is None or row.p95_s is None:
        return f"{text}; usual time unknown"
    usually = f"usually {duration(row.p50_s)}, p95 {duration(row.p95_s)}"
    return f"{text}; {usually} (measured on {counted(row.sample, 'job')})"


def failing_for_good(impact: Impact) -> Aspect:
    """The interrupted jobs that have stalled too often to run again."""
    failing = impact.fails_for_good
    limit = impact.max_stalled_count
    assumed = f"maxStalledCount {limit} is assumed"
    if not failing:
        return Aspect("Fail for good", "none", (f"each may stall once more; {assumed}",))
    notes = [f"they stall for the {_nth(limit + 1)} time or more; {assumed}"]
    notes.append(f"ids: {_ids(failing)}")
    return Aspect("Fail for good", counted(len(failing), "job"), notes, "bold red")


def _nth(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    last = 0 if number % 100 in {11, 12, 13} else number % 10
    return f"{number}{endings.get(last, 'th')}"


def _ids(refs: Sequence[JobRef]) -> str:
    several = len({ref.queue for ref in refs}) > 1
    # Ids take more room when each is shown with its queue.
    most = _MAX_ROWS if several else _MAX_IDS
    shown = ", ".join(
        (f"{visible(ref.queue, 30)} " if several else "") + visible(ref.id, 40)
        for ref in refs[:most]
    )
    more = len(refs) - most
    return shown + (f" and {more:,} more (--json has all)" if more > 0 else "")
