"""The rows of the impact table: one for each aspect of a restart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from qctl.ops.impact.downtime import BOOT_S
from qctl.ops.queues.advice import NO_CHECK
from qctl.output.impact.active import active_jobs, failing_for_good
from qctl.output.impact.table import Aspect
from qctl.output.text import duration, duration_range, listed, size, visible
from qctl.plurals import counted

if TYPE_CHECKING:
    from qctl.ops.impact.assess import Impact
    from qctl.ops.impact.recovery import Recovery
    from qctl.ops.impact.safety import DataSafety

_MAX_ROWS = 4
# A scheduler is overdue when its job is this late. Until then, a worker may be about to fetch it.
_OVERDUE = timedelta(seconds=5)


def rows_of(impact: Impact) -> Iterator[Aspect]:
    """The rows that apply to this impact, from top to bottom."""
    yield active_jobs(impact)
    if impact.interrupted:
        yield failing_for_good(impact)
    stalled = [job for job in impact.jobs if job.held_by == "nobody"]
    if stalled:
        notes = ["they have no lock: the worker died, or is too busy to renew locks"]
        if failing := sum(job.fails_for_good for job in stalled):
            notes.append(f"{failing:,} would fail for good at the next stalled check")
        notes.append(
            "qctl jobs retry-stalled QUEUE puts them back; if they may still run, it asks first"
        )
        yield Aspect("Stalled jobs", f"{len(stalled):,} already", notes, "yellow")
    if impact.interrupted:
        yield _recovery(impact)
    yield from _untouched(impact)
    yield _schedules(impact)
    yield _data(impact.data)
    yield _downtime(impact)


def _recovery(impact: Impact) -> Aspect:
    rows = impact.recovery
    if not rows:
        return Aspect("Run again", "unknown", ())
    low, high = min(row.min_s for row in rows), max(row.max_s for row in rows)
    unchecked = [visible(row.queue, 30) for row in rows if not row.is_checked]
    notes = ["after the process is gone, its locks expire, then two stalled checks run"]
    who = {
        "restarted": "there is no other worker: the restarted one checks when it starts",
        "others": "other workers stay and check too",
        "unknown": "it is unknown whether there is another worker",
    }
    notes += [who[by] for by in dict.fromkeys(row.by for row in rows)]
    recovered = {row.queue for row in rows}
    paused = [impact.label(queue) for queue in impact.queues if queue.paused]
    if paused := [name for name in paused if name in recovered]:
        verb = "is" if len(paused) == 1 else "are"
        notes.append(f"{listed(paused)} {verb} paused, so no job runs there until a resume")
    notes += list(dict.fromkeys(map(_durations, rows)))[:_MAX_ROWS]
    if len(rows) == 1:
        left_s = rows[0].next_check_ms / 1000
        notes.append(
            f"the next check has an effect in {duration(left_s)} at the earliest"
            if left_s
            else "the next check may run at any moment"
        )
    if not unchecked:
        return Aspect("Run again", f"in {duration_range(low, high)}", notes)
    # The other notes are true only if a worker runs stalled checks.
    notes = [
        f"{listed(unchecked)}: {NO_CHECK}; then jobs stay until you run qctl jobs retry-stalled",
        f"if checks run: in {duration_range(low, high)}",
        *notes,
    ]
    return Aspect("Run again", "unknown", notes, "yellow")


def _durations(row: Recovery) -> str:
    assumed = " (assumed)" if row.interval_assumed else ""
    return (
        f"locks last {duration(row.lock_ms / 1000)}, checks are "
        f"{duration(row.interval_ms / 1000)} apart{assumed}"
    )


def _untouched(impact: Impact) -> Iterator[Aspect]:
    waiting = sum(queue.waiting for queue in impact.queues)
    prioritized = sum(queue.prioritized for queue in impact.queues)
    delayed = sum(queue.delayed for queue in impact.queues)
    parents = sum(queue.waiting_children for queue in impact.queues)
    paused = [impact.label(queue) for queue in impact.queues if queue.paused]
    notes = [f"paused: {listed(paused)}"] if paused else []
    if prioritized:
        notes.append(f"{prioritized:,} of them with a priority")
    least = "≥ " if any(queue.waiting_is_least for queue in impact.queues) else ""
    yield Aspect("Waiting", f"{least}{waiting + prioritized:,} unaffected", notes)
    dues = [queue.next_due_at for queue in impact.queues if queue.next_due_at is not None]
    next_due = [f"next due {_when(min(dues), impact.asked_at)}"] if dues else []
    yield Aspect("Delayed", f"{delayed:,} unaffected", next_due)
    yield Aspect("Parents", f"{parents:,} unaffected", ["waiting for children"] if parents else [])


def _schedules(impact: Impact) -> Aspect:
    """Which schedules miss due times while the workers are away, and which are already overdue."""
    away = duration(impact.away_s)
    if impact.schedules is None:
        return Aspect("Scheduled", "unknown", ())
    unread = _unread(impact.schedules_unread or 0)
    if not impact.schedules:
        return Aspect("Scheduled", "unknown" if unread else "none", unread)
    late = [row for row in impact.schedules if row.runs_late_s is not None]
    overdue = [
        row for row in impact.schedules if row.next_at and row.next_at < impact.asked_at - _OVERDUE
    ]
    unknown = sum(row.next_at is None for row in impact.schedules)
    skipped = sum(row.skipped or 0 for row in late)
    notes = []
    if overdue:
        notes.append("overdue: the job waits for a worker; later due times are skipped")
    if not late:
        text = "none missed"
        if overdue or unknown:
            text = f"{len(overdue):,} overdue" if overdue else f"{unknown:,} unknown"
        notes.append(f"if the workers are away for {away}")
    else:
        least = "at least " if any(row.skipped is None for row in impact.schedules) else ""
        text = f"{len(late):,} late, {least}{skipped:,} skipped"
        notes.append(
            f"if the workers are away for {away}: BullMQ runs the first missed job late, and skips "
            "the others"
        )
    for row in (late or overdue or impact.schedules)[:_MAX_ROWS]:
        how = f"cron {visible(row.pattern, 30)}" if row.pattern else _every(row.every_ms)
        due = "unknown" if row.next_at is None else _when(row.next_at, impact.asked_at)
        note = f"{visible(row.id, 30)} ({how}): next due {due}"
        if row.skipped is None and row.next_at is not None:
            note += "; its pattern is not understood"
        elif row.skipped:
            note += f"; {row.skipped:,} skipped"
        notes.append(note)
    more = len(late or overdue or impact.schedules) - _MAX_ROWS
    if more > 0:
        notes.append(f"and {more:,} more")
    notes += unread
    return Aspect("Scheduled", text, notes, "yellow" if skipped or overdue else "")


def _every(every_ms: int | None) -> str:
    return "no interval" if every_ms is None else f"every {duration(every_ms / 1000)}"


def _unread(number: int) -> list[str]:
    if not number:
        return []
    return [
        f"{counted(number, 'more was', 'more were')} not looked at: each is a repeatable of an old "
        "version, has no record, or is due far in the future"
    ]


def _when(at: datetime, now: datetime) -> str:
    """``in 4 min``, ``now`` or ``2 h ago``."""
    left_s = (at - now).total_seconds()
    if left_s < -1:
        return f"{duration(-left_s)} ago"
    return "now" if left_s < 1 else f"in {duration(left_s)}"


def _data(data: Sequence[DataSafety] | None) -> Aspect:
    if data is None:
        return Aspect("Data loss", "unknown", ("Redis does not report it",))
    notes = ["all jobs are in Redis, which is not restarted"]
    for server in data[:_MAX_ROWS]:
        if server.persistence != "none":
            notes.append(f"if Redis crashes: {_loss(server)}")
        notes += [visible(hazard) for hazard in server.hazards]
        if server.maxmemory_bytes and server.used_memory_bytes is not None:
            used, limit = size(server.used_memory_bytes), size(server.maxmemory_bytes)
            notes.append(f"memory {used} of {limit}, {server.eviction_policy}")
        if server.replicas:
            lag = server.replica_lag_s
            behind = "" if lag is None else f", last heard from at most {lag} s ago"
            notes.append(f"{counted(server.replicas, 'replica')}{behind}")
    hazards = any(server.hazards for server in data)
    # The nodes of a cluster usually report the same, so each note is shown once.
    unique = list(dict.fromkeys(notes))
    return Aspect("Data loss", "none by a restart", unique, "yellow" if hazards else "green")


def _loss(server: DataSafety) -> str:
    match server.persistence:
        case "aof" if server.aof_fsync == "always":
            return "nothing lost (AOF, each write)"
        case "aof" if server.loss_s is not None:
            return f"up to {duration(server.loss_s)} of changes lost (AOF, {server.aof_fsync})"
        case "aof":
            return "AOF, fsync policy unknown"
        case "rdb" if server.rdb_age_s is not None:
            changes = "all" if server.rdb_changes is None else f"{server.rdb_changes:,}"
            age = duration(server.rdb_age_s)
            return f"{changes} changes since the last snapshot ({age} ago) lost"
    return "unknown: Redis does not report its persistence"


def _downtime(impact: Impact) -> Aspect:
    times = impact.downtime
    boot = "assumed" if times.boot_is_assumed else "as the last start took"
    if times.boot_is_assumed and times.boot_s[1] > BOOT_S[1]:
        boot = "assumed: the worker connected late after the start, or has reconnected since"
    notes = []
    text = "unknown"
    if times.plain_s is not None:
        low, high = times.plain_s
        text = "none" if not high else duration_range(low, high)
        start = f"{duration_range(*times.boot_s)} to start ({boot})"
        if high and not low:
            notes.append(f"plain: the rollout keeps a process running; its worker takes {start}")
        elif high:
            notes.append(f"plain: no job starts until the workers are back; {start}")
    elif impact.processes:
        notes.append("plain: unknown: qctl does not know when SIGKILL follows the stop signal")
    if times.drain_p50_s is None or times.drain_wait_p50_s is None:
        notes.append("drain: time unknown, because no comparable job has completed")
    elif times.drain_wait_p95_s:
        notes.append(
            f"drain: {duration(times.drain_wait_p50_s)} until the jobs end (p95 "
            f"{duration(times.drain_wait_p95_s)}), then the restart; nothing is interrupted"
        )
    else:
        notes.append("drain: nothing to wait for, then the restart")
    if times.roll_is_possible:
        condition = (
            "" if impact.kill_after_s is None else ", if the app finishes jobs on the stop signal"
        )
        notes.append(f"roll (--strategy roll): none{condition}")
    else:
        is_known = times.roll_is_possible is not None
        notes.append(f"roll: {'not possible' if is_known else 'unknown'}: {times.roll_why_not}")
    return Aspect("Downtime", text, notes)
