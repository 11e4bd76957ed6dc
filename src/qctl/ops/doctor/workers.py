"""Checks of workers: missing, idle while jobs wait, or without a name of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from qctl.durations import duration
from qctl.ops.doctor.examination import Examination
from qctl.ops.doctor.findings import (
    MAX_EXAMPLES,
    CannotCheckError,
    Finding,
    NothingToCheckError,
    Subject,
    examples,
    severity_of,
)
from qctl.ops.queues import advice
from qctl.plurals import counted
from qctl.wire.events import Event, recent_events
from qctl.wire.read.active import ActiveJob
from qctl.wire.read.clients import (
    WAIT_COMMAND,
    WorkerClient,
    host_of,
    is_listed,
    unnamed,
    worker_counts,
)
from qctl.wire.read.snapshot import QueueSnapshot, read_snapshots
from qctl.wire.schedulers.iterations import read_agendas

# A worker that misses its wake-up (``marker``) fetches after drainDelay: usually 5 s, at most 10 s.
PATIENCE_S = 15
SECOND_READING_S = 1.0
# How many of each queue's newest events are searched.
_EVENTS = 1000
# The events that count as a movement of a job.
_MOVEMENTS = frozenset({"active", "completed", "failed", "stalled", "paused", "resumed", "removed"})


def no_workers(exam: Examination) -> Iterator[Finding | str]:
    """Queues that are not paused, where jobs wait and no worker is connected."""
    if exam.workers.any_queue:
        yield f"{unnamed(exam.workers.any_queue)}; queues without another worker were not examined"
    for snapshot in exam.snapshots:
        if note := unserved_note(exam, snapshot):
            is_known = note.severity != "unknown"
            yield Finding(
                severity=severity_of(note),
                subject=Subject("queue", snapshot.keys.name),
                what=note.text,
                evidence={
                    "waiting": snapshot.backlog,
                    "overdue": snapshot.overdue,
                    "workers": 0 if is_known else None,
                },
                remedy="start its workers; if they run, compare their Redis, database and prefix "
                "with those of this call; a worker whose name has a space or is not ASCII is not "
                "listed",
                commands=(exam.command("workers", snapshot.keys.name),),
            )


def not_fetching(exam: Examination) -> Iterator[Finding]:
    """Queues where jobs wait and workers are connected, but no job starts."""
    if not (idle := _idle(exam, exam.snapshots)):
        return
    exam.sleep(SECOND_READING_S)
    again = read_snapshots(exam.client, [snapshot.keys for snapshot in idle])
    for snapshot in _idle(exam, [s for s in again if isinstance(s, QueueSnapshot)]):
        workers = exam.workers_of(snapshot.keys)
        count = worker_counts(workers).total()
        stalled = snapshot.counts.stalled
        # A rate limit that may be in force lowers the severity, but does not hide the finding.
        limit = advice.limited(snapshot)
        yield Finding(
            severity="error" if limit is None else "warning",
            subject=Subject("queue", snapshot.keys.name),
            what=f"{advice.ready(snapshot)} and none starts, although "
            f"{counted(count, 'worker is', 'workers are')} connected"
            + (f"; stalled jobs ({stalled:,}) may keep them busy" if stalled else "")
            + (f"; it {limit.text}" if limit is not None else ""),
            evidence={
                "waiting": snapshot.backlog,
                "overdue": snapshot.overdue,
                "stalled": stalled,
                "may_be_limited_s": None
                if snapshot.rate_limit is None or limit is None
                else snapshot.rate_limit.left_ms / 1000,
                "workers": count,
                "listening": sum(worker.last_command == WAIT_COMMAND for worker in workers),
                "idle_s": [worker.idle_s for worker in workers[:MAX_EXAMPLES]],
            },
            remedy="check whether worker.pause() was called, the event loop is blocked, or the "
            "worker's other connection to Redis is broken: see its log, then restart it",
            commands=_restarts(exam, workers),
        )


def worker_names(exam: Examination) -> Iterator[Finding]:
    """Workers of one queue that share a name, so it is unknown which of them has a job."""
    for snapshot in exam.snapshots:
        workers = [w for w in exam.workers_of(snapshot.keys) if w.worker_name]
        if exam.address.mode == "cluster":
            # In a cluster, one worker may have a connection to each node.
            hosts = {(w.worker_name, host_of(w.address)): w for w in workers}
            workers = list(hosts.values())
        counts = Counter(worker.worker_name for worker in workers)
        shared = {name: count for name, count in counts.items() if count > 1}
        if shared:
            shown = dict([*shared.items()][:MAX_EXAMPLES])
            listed = ", ".join(f"{name!r} ({count})" for name, count in shown.items())
            yield Finding(
                severity="warning",
                subject=Subject("queue", snapshot.keys.name),
                what=f"several of its workers share a name: {listed}",
                evidence={
                    "names": shown,
                    "count": len(shared),
                    "addresses": [w.address for w in workers if w.worker_name in shared][
                        :MAX_EXAMPLES
                    ],
                },
                remedy="give each worker a name of its own, for example host, pid and a number",
                commands=(exam.command("workers", snapshot.keys.name),),
            )


def unnamed_workers(exam: Examination) -> Iterator[Finding]:
    """Workers without a name, so it is unknown which of them has a job."""
    for snapshot in exam.snapshots:
        workers = exam.workers_of(snapshot.keys)
        unnamed = worker_counts(w for w in workers if not w.worker_name).total()
        count = worker_counts(workers).total()
        if unnamed:
            yield Finding(
                severity="info",
                subject=Subject("queue", snapshot.keys.name),
                what=(
                    f"{unnamed} of its {count} workers have no name: it is unknown which of "
                    "them has a job"
                    if count > 1
                    else "its worker has no name: its jobs do not show who has them"
                ),
                evidence={"unnamed": unnamed, "workers": count},
                remedy="set the worker option name, for example to host, pid and a number",
            )


def unlisted_workers(exam: Examination) -> Iterator[Finding]:
    """Workers that Redis does not list because of their names; only their jobs show them."""
    for snapshot in exam.snapshots:
        running = jobs_of_unlisted(exam, snapshot)
        names = sorted({str(job.worker) for job in running})
        if names:
            listed = ", ".join(map(repr, names[:MAX_EXAMPLES]))
            yield Finding(
                severity="warning",
                subject=Subject("queue", snapshot.keys.name),
                what=f"Redis does not list {counted(len(names), 'worker')}, since a connection's "
                f"name may only have printable ASCII and no space: {listed}; drains, restarts and "
                "counts of workers do not see them",
                evidence=examples("names", names)
                | {"jobs": [job.id for job in running[:MAX_EXAMPLES]]},
                remedy="rename them, for example to host, pid and a number",
            )


def unserved_note(exam: Examination, snapshot: QueueSnapshot) -> advice.Note | None:
    """A remark if jobs wait without a worker; None otherwise, or if the queue is paused."""
    workers = exam.all_workers_of(snapshot)
    note = advice.unserved(snapshot, None if workers is None else worker_counts(workers).total())
    # A worker that Redis does not list may serve the queue.
    return None if note is None or snapshot.paused or jobs_of_unlisted(exam, snapshot) else note


def overdue_jobs(exam: Examination) -> Iterator[Finding]:
    """Delayed jobs that are overdue while the queue's workers run other jobs.

    If no job runs, ``no_workers`` or ``not_fetching`` reports the queue.
    """
    late = []
    for snapshot in exam.snapshots:
        running = snapshot.counts.active - snapshot.counts.stalled
        if not snapshot.overdue or running <= 0 or snapshot.lease is not None:
            continue
        workers = worker_counts(exam.workers_of(snapshot.keys)).total()
        if advice.overdue(snapshot, workers) is not None:
            late.append((snapshot, workers, running))
    if not late:
        return
    agendas = read_agendas(exam.client, [snapshot.keys for snapshot, *_ in late])
    for (snapshot, workers, running), agenda in zip(late, agendas, strict=True):
        since_ms = agenda.next_delayed_ms
        late_s = None if since_ms is None else max(exam.redis_now_ms - since_ms, 0) / 1000
        by = "" if late_s is None else f", by {duration(late_s)} at most"
        yield Finding(
            severity="warning",
            subject=Subject("queue", snapshot.keys.name),
            what=f"{counted(snapshot.overdue, 'delayed job is', 'delayed jobs are')} overdue{by}: "
            f"{counted(running, 'other job runs', 'other jobs run')} on "
            f"{counted(workers, 'worker')}",
            evidence={
                "overdue": snapshot.overdue,
                "overdue_s": late_s,
                "active": running,
                "workers": workers,
            },
            remedy="more workers or a higher concurrency, if the workers have no room",
            commands=(exam.command("jobs list", snapshot.keys.name, "--state", "delayed"),),
        )


def jobs_of_unlisted(exam: Examination, snapshot: QueueSnapshot) -> list[ActiveJob]:
    """The active jobs of workers that CLIENT LIST leaves out."""
    return [job for job in exam.active(snapshot.keys) if not is_listed(job.worker or "")]


def _idle(exam: Examination, snapshots: Sequence[QueueSnapshot]) -> list[QueueSnapshot]:
    """Queues in which no job has started for ``PATIENCE_S``, although one could have started.

    The time begins at the later of two moments: when a job last moved, and when the oldest waiting
    job was added.
    """
    idle = [snapshot for snapshot in snapshots if _could_start(exam, snapshot)]
    events = recent_events(exam.client, [snapshot.keys for snapshot in idle], _EVENTS)
    latest_ms = exam.redis_now_ms - PATIENCE_S * 1000 if idle else 0
    found = []
    for snapshot in idle:
        moved = [event.at_ms for event in events[snapshot.keys] if _is_movement(event)]
        times = [time for time in (*moved[:1], snapshot.oldest_waiting_ms) if time is not None]
        # An overdue job alone is enough: a job counts as overdue only after ``PATIENCE_S``.
        if (times or snapshot.overdue) and max(times, default=0) <= latest_ms:
            found.append(snapshot)
    return found


def _could_start(exam: Examination, snapshot: QueueSnapshot) -> bool:
    """Whether a job should start soon; False if a job runs, because all workers may be busy."""
    is_running = snapshot.counts.active > snapshot.counts.stalled
    limit = snapshot.rate_limit
    # Without a maximum in the queue's meta, workers that have no limiter ignore the rate limit.
    is_limited = limit is not None and limit.holds is True and limit.maximum is not None
    # A lease means that a drain works on the queue now.
    is_held_back = snapshot.paused or snapshot.lease is not None or is_limited or snapshot.is_maxed
    if not (snapshot.backlog or snapshot.overdue) or is_running or is_held_back:
        return False
    return any(worker.age_s >= PATIENCE_S for worker in exam.workers_of(snapshot.keys))


def _is_movement(event: Event) -> bool:
    """Whether the event moved a job. A ``waiting`` event without ``prev`` only added the job."""
    return event.name in _MOVEMENTS or (event.name == "waiting" and "prev" in event.fields)


def _restarts(exam: Examination, workers: Sequence[WorkerClient]) -> tuple[str, ...]:
    try:
        holders = exam.holders
    except (CannotCheckError, NothingToCheckError):
        return ()
    targets = {holders[w.id].target for w in workers if w.id in holders}
    return tuple(exam.restart(target) for target in sorted(targets))
