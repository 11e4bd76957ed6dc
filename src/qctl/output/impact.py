"""How an impact looks: who would be restarted, a table of aspects, the best time, the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from qctl.ops.impact.downtime import BOOT_S
from qctl.ops.impact.jobs_at_risk import JobRef
from qctl.ops.queues.advice import NO_CHECK, locks_end
from qctl.output.aspects import Aspect, aspects, named, wrapped
from qctl.output.best_time import best_time_lines
from qctl.output.impact_schedules import scheduled, when
from qctl.output.text import duration, size, visible
from qctl.output.verdict import verdict_lines
from qctl.plurals import counted

if TYPE_CHECKING:
    from qctl.ops.impact.assess import Impact
    from qctl.ops.impact.recovery import Recovery
    from qctl.ops.impact.safety import DataSafety
    from qctl.ops.jobs.estimate import Runtimes

_MOST_IDS = 10
_MOST_ROWS = 4


def impact_text(impact: Impact, *, width: int, colour: bool) -> str:
    """The answer as the lines of a terminal ``width`` cells wide."""
    lines = [*_heading(impact, width), ""]
    lines += aspects([*_rows(impact)], width=width, colour=colour)
    if impact.best_time is not None:
        lines += ["", *best_time_lines(impact.best_time, width=width)]
    lines += ["", *verdict_lines(impact, width, colour=colour)]
    return "".join(f"{line}\n" for line in lines)


def _heading(impact: Impact, width: int) -> Iterator[str]:
    queues = named([*(queue.name for queue in impact.queues), *impact.bull])
    if impact.target is None:
        text = f"a restart now of all workers of {queues or 'no queue'}: {impact.why_no_target}"
    else:
        text = (
            f"a plain restart of {visible(impact.target)} now, which serves {queues or 'no queue'}"
        )
        if impact.also:
            text += f" ({named(impact.also)} not named, but served too)"
    yield from wrapped(visible(text), min(width, 100))
    for process in impact.processes[:_MOST_ROWS]:
        yield f"  id {visible(process.key)}, pid {process.pid or '-'}, {process.status}: " + _stop(
            process.stop_signal, process.kill_timeout_ms, impact.kill_after_s
        )
    if len(impact.processes) > _MOST_ROWS:
        yield f"  and {len(impact.processes) - _MOST_ROWS:,} more processes"


def _stop(signal: str, kill_timeout_ms: int, kill_after_s: float | None) -> str:
    if kill_after_s is None:
        return f"{signal}, then as long as its jobs take"
    return f"{signal}, SIGKILL {duration(kill_timeout_ms / 1000)} later"


# The aspects


def _rows(impact: Impact) -> Iterator[Aspect]:
    yield _active(impact)
    if impact.interrupted:
        yield _failing(impact)
    stalled = [job for job in impact.jobs if job.held_by == "nobody"]
    if stalled:
        notes = [
            "nobody renews their locks: their worker died, or is too busy to, and still runs them"
        ]
        if failing := sum(job.fails_for_good for job in stalled):
            notes.append(f"{failing:,} would fail for good once a worker looks for stalled jobs")
        notes.append("qctl jobs retry-stalled QUEUE puts back those that nobody runs")
        yield Aspect("Stalled jobs", f"{len(stalled):,} already", notes, "yellow")
    if impact.interrupted:
        yield _recovery(impact)
    yield from _untouched(impact)
    yield scheduled(impact)
    yield _data(impact.data)
    yield _downtime(impact)


def _active(impact: Impact) -> Aspect:
    held = [job for job in impact.jobs if job.held_by != "nobody"]
    if not held:
        if hidden := [*impact.bull, *impact.unread]:
            return Aspect("Active jobs", "none known", (f"not read: {named(hidden)}",), "yellow")
        if len(impact.jobs):
            # Those that have stalled may still run.
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
        text = f"{len(worst):,} of {len(held):,} interrupted, or {len(best):,}"
    if worst:
        notes += _why_interrupted(impact)
        notes.append(f"ids: {_ids(worst)}")
    if others:
        notes.append(f"{counted(others, 'job')} in hand of other workers, unaffected")
    notes += _unseen(impact)
    if impact.unattributed:
        notes.append(
            f"{counted(len(impact.unattributed), 'job')} of these may be another worker's: that "
            "cannot be told, so counted as interrupted"
        )
    notes += _last_time(impact)
    notes += [_usual(impact, row) for row in impact.runtimes[:_MOST_ROWS]]
    return Aspect("Active jobs", text, notes, "bold red" if worst else "green")


def _unseen(impact: Impact) -> Iterator[str]:
    """Jobs with a lock in queues to which no worker is connected."""
    empty = {q.name for q in impact.queues if q.workers == 0 and not q.other_workers}
    held = [
        job.lock_ttl_ms for job in impact.jobs if job.queue in empty and job.held_by != "nobody"
    ]
    if held:
        yield (
            f"{counted(len(held), 'job')} held, and no worker is connected: if it has died, "
            f"{locks_end(held)}"
        )


def _last_time(impact: Impact) -> Iterator[str]:
    """What followed the last restart: a fact, and no proof of what caused it."""
    past = impact.last_restarts or ()
    if impact.handles_signal or not past:
        return
    ago = duration((impact.asked_at - max(each.restarted_at for each in past)).total_seconds())
    # The same one may have stalled soon after the starts of two instances.
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
        yield "by which signal is not known, so all running jobs are counted"
        return
    signals = " or ".join(dict.fromkeys(process.stop_signal for process in impact.processes))
    limit = duration(impact.kill_after_s or 0)
    if impact.handles_signal:
        yield f"its workers finish their jobs on {signals}; what still runs {limit} later is killed"
    elif best == impact.interrupted:
        yield (
            f"the same whether the app handles {signals} or not: none of them is known to end "
            f"within the {limit} before SIGKILL"
        )
    else:
        yield (
            f"all of them if the app ends at once on {signals}, which cannot be seen from outside; "
            f"{len(best):,} if it finishes its jobs: what still runs {limit} later is killed"
        )


def _usual(impact: Impact, row: Runtimes) -> str:
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
        text += f": running for {_range(min(ran), max(ran))}"
    if row.p50_s is None or row.p95_s is None:
        return f"{text}; how long such jobs take is unknown"
    usually = f"usually {duration(row.p50_s)}, p95 {duration(row.p95_s)}"
    return f"{text}; {usually} (by {counted(row.sample, 'job')})"


def _failing(impact: Impact) -> Aspect:
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


def _recovery(impact: Impact) -> Aspect:
    rows = impact.recovery
    if not rows:
        return Aspect("Run again", "unknown", ())
    low, high = min(row.min_s for row in rows), max(row.max_s for row in rows)
    unchecked = [visible(row.queue, 30) for row in rows if not row.is_checked]
    notes = ["after the process has gone: its locks run out, then two stalled checks"]
    who = {
        "restarted": "no other worker is there: the restarted one checks when it starts",
        "others": "other workers stay and check too",
        "unknown": "whether another worker is there is not known",
    }
    notes += [who[by] for by in dict.fromkeys(row.by for row in rows)]
    recovered = {row.queue for row in rows}
    if paused := [q.name for q in impact.queues if q.paused and q.name in recovered]:
        is_paused = f"{named(paused)} {'is' if len(paused) == 1 else 'are'} paused"
        notes.append(f"{is_paused}, so no job runs there before a resume")
    notes += list(dict.fromkeys(map(_clocks, rows)))[:_MOST_ROWS]
    if len(rows) == 1:
        left_s = rows[0].next_check_ms / 1000
        notes.append(
            f"the next check has an effect in {duration(left_s)} at the earliest"
            if left_s
            else "the next check may come at any moment"
        )
    if not unchecked:
        return Aspect("Run again", f"in {_range(low, high)}", notes)
    # What follows holds only if some worker looks for stalled jobs.
    notes = [
        f"{named(unchecked)}: {NO_CHECK}; then they stay until qctl jobs retry-stalled is typed",
        f"if one runs: in {_range(low, high)}",
        *notes,
    ]
    return Aspect("Run again", "unknown", notes, "yellow")


def _clocks(row: Recovery) -> str:
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
    paused = [queue.name for queue in impact.queues if queue.paused]
    notes = [f"paused: {named(paused)}"] if paused else []
    if prioritized:
        notes.append(f"{prioritized:,} of them with a priority")
    yield Aspect("Waiting", f"{waiting + prioritized:,} unaffected", notes)
    dues = [queue.next_due_at for queue in impact.queues if queue.next_due_at is not None]
    next_due = [f"next due {when(min(dues), impact.asked_at)}"] if dues else []
    yield Aspect("Delayed", f"{delayed:,} unaffected", next_due)
    yield Aspect("Parents", f"{parents:,} unaffected", ["waiting for children"] if parents else [])


def _data(data: Sequence[DataSafety] | None) -> Aspect:
    if data is None:
        return Aspect("Data loss", "unknown", ("Redis does not tell",))
    notes = ["all jobs are in Redis, which is not restarted"]
    for server in data[:_MOST_ROWS]:
        if server.persistence != "none":
            notes.append(f"were Redis to crash: {_loss(server)}")
        notes += [visible(hazard) for hazard in server.hazards]
        if server.maxmemory_bytes and server.used_memory_bytes is not None:
            used, limit = size(server.used_memory_bytes), size(server.maxmemory_bytes)
            notes.append(f"memory {used} of {limit}, {server.eviction_policy}")
        if server.replicas:
            lag = server.replica_lag_s
            behind = "" if lag is None else f", last heard of {lag} s ago at most"
            notes.append(f"{counted(server.replicas, 'replica')}{behind}")
    hazards = any(server.hazards for server in data)
    # Of the nodes of a cluster, most say the same.
    told = list(dict.fromkeys(notes))
    return Aspect("Data loss", "none by a restart", told, "yellow" if hazards else "green")


def _loss(server: DataSafety) -> str:
    match server.persistence:
        case "aof" if server.aof_fsync == "always":
            return "nothing lost (AOF, each write)"
        case "aof" if server.loss_s is not None:
            return f"up to {duration(server.loss_s)} of changes lost (AOF, {server.aof_fsync})"
        case "aof":
            return "AOF, but how often it is written is unknown"
        case "rdb" if server.rdb_age_s is not None:
            changes = f"{server.rdb_changes:,} changes" if server.rdb_changes is not None else "all"
            return f"{changes} since the last snapshot, {duration(server.rdb_age_s)} ago, lost"
    return "unknown, Redis does not tell how it is persisted"


def _downtime(impact: Impact) -> Aspect:
    times = impact.downtime
    boot = "assumed" if times.boot_is_assumed else "as the last start took"
    if times.boot_is_assumed and times.boot_s[1] > BOOT_S[1]:
        boot = "assumed: its worker connected late, or has connected again since"
    notes = []
    text = "unknown"
    if times.plain_s is not None:
        low, high = times.plain_s
        text = "none" if not high else _range(low, high)
        if high:
            notes.append(
                f"plain: no job is taken meanwhile; {_range(*times.boot_s)} to start ({boot})"
            )
    if times.drain_p50_s is None or times.drain_wait_p50_s is None:
        notes.append("drain: how long is unknown, since no comparable job has completed")
    elif times.drain_wait_p95_s:
        notes.append(
            f"drain: {duration(times.drain_wait_p50_s)} until the jobs have ended (p95 "
            f"{duration(times.drain_wait_p95_s)}), then the restart; nothing is interrupted"
        )
    else:
        notes.append("drain: nothing to wait for, then the restart")
    if times.roll_is_possible:
        condition = (
            "" if impact.kill_after_s is None else ", if the app finishes jobs on its signal"
        )
        notes.append(f"roll (--strategy roll): none{condition}")
    else:
        is_known = times.roll_is_possible is not None
        notes.append(f"roll: {'not possible' if is_known else 'unknown'}: {times.roll_why_not}")
    return Aspect("Downtime", text, notes)


def _range(low_s: float, high_s: float) -> str:
    """``30 to 92 s``; durations of minutes each in full."""
    low, high = duration(low_s), duration(high_s)
    if low == high:
        return high
    if high_s < 120:
        low, high = f"{low_s:.1f}", f"{high_s:.1f}"
        if high_s >= 9.95:
            low, high = f"{low_s:.0f}", f"{high_s:.0f}"
        return f"{low} to {high} s"
    return f"{low} to {high}"


def _ids(refs: Sequence[JobRef]) -> str:
    several = len({ref.queue for ref in refs}) > 1
    most = _MOST_ROWS if several else _MOST_IDS
    shown = ", ".join(
        (f"{visible(ref.queue, 30)} " if several else "") + visible(ref.id, 40)
        for ref in refs[:most]
    )
    more = len(refs) - most
    return shown + (f" and {more:,} more (--json has all)" if more > 0 else "")
