"""Checks of jobs that will never run, or that fail for good at the next interruption."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from qctl.errors import ReplyError
from qctl.grouping import grouped
from qctl.ops.doctor.examination import Examination, read_once
from qctl.ops.doctor.findings import (
    MAX_EXAMPLES,
    CannotCheckError,
    Finding,
    Subject,
    examples,
    severity_of,
)
from qctl.ops.jobs.retry_stalled import worker_is_absent
from qctl.ops.queues import advice
from qctl.plurals import counted
from qctl.wire.checks import keyspace, parents
from qctl.wire.checks.integrity import ids_without_job
from qctl.wire.keys import JobKey
from qctl.wire.read import heartbeats
from qctl.wire.read.active import ActiveJob
from qctl.wire.read.clients import is_listed
from qctl.wire.read.stalled_check import jobs_of_schedulers
from qctl.wire.read.versions import other_libraries

# Without --full, about MAX_KEYS keys are scanned, and at most MAX_JOBS of the jobs found there are
# searched for in the states.
MAX_KEYS = 30_000
MAX_JOBS = 2000
# Lists, sorted sets and states from which workers take ids, even if an id has no job.
_TAKEN = frozenset({"wait", "waiting", "paused", "prioritized", "delayed", "active"})
# A command to type has at most MAX_NAMED ids. The evidence, which is for programs, has at most
# MAX_LISTED ids.
MAX_NAMED = 20
MAX_LISTED = 10_000
# Reason → a text that explains the reason, and the remedy.
_STUCK: dict[parents.Reason, tuple[str, str]] = {
    "failed": (
        "a child failed and has no option for that case",
        "retry or remove these children; give children failParentOnFailure, "
        "ignoreDependencyOnFailure or removeDependencyOnFailure when adding flows",
    ),
    "gone": (
        "a child is gone",
        "where a child is gone, call BullMQ's job.removeUnprocessedChildren() on the parent: then "
        "the parent runs, and its children that have not run are deleted",
    ),
    "none": (
        "no child is left to wait for",
        "where no child is left, add the flow again and remove the parent",
    ),
}


def stalled(exam: Examination) -> Iterator[Finding]:
    """Jobs in ``active`` without a lock."""
    for snapshot in exam.snapshots:
        # Look again: a job that was about to end when the snapshot was read has ended by now.
        # A job without a name has no hash and cannot run again; missing_hashes reports it.
        orphans = (job for job in exam.active(snapshot.keys) if job.is_orphan)
        ids = [job.id for job in orphans if job.name is not None]
        if not ids:
            continue
        try:
            own = exam.all_workers_of(snapshot)
            workers = None if own is None else len(own)
        except CannotCheckError:
            workers = None
        note = advice.stalled(snapshot, workers)
        if note is not None:
            yield Finding(
                severity=severity_of(note),
                subject=Subject("queue", snapshot.keys.name),
                what=note.text,
                evidence=examples("stalled", ids) | {"workers": workers},
                commands=note.commands,
            )


def gone_workers(exam: Examination) -> Iterator[Finding]:
    """Jobs locked by a worker that is not connected: the worker is closing, or has died."""
    for snapshot in exam.snapshots:
        workers = exam.all_workers_of(snapshot)
        held = [
            job
            for job in exam.active(snapshot.keys)
            # Redis never lists workers with certain names, so their absence proves nothing.
            if worker_is_absent(job, workers) and is_listed(job.worker or "")
        ]
        if held:
            dead = _of_dead_workers(exam, held)
            fate = "the worker died, or it is closing and finishes its jobs first"
            if len(dead) == len(held):
                fate = "its process died"
            elif dead:
                fate = (
                    f"for {len(dead):,} of them, the worker's process died; the other workers "
                    "died, or are closing and finish their jobs first"
                )
            ttls = [job.lock_ttl_ms for job in held]
            longest_ms = None if None in ttls else max(ttl or 0 for ttl in ttls)
            yield Finding(
                severity="warning" if dead else "info",
                subject=Subject("queue", snapshot.keys.name),
                what=f"{counted(len(held), 'job is', 'jobs are')} locked by a worker that is not "
                f"connected: {fate}; {advice.locks_end(ttls)}",
                evidence=examples("jobs", [job.id for job in held])
                | {"longest_lock_ttl_ms": longest_ms},
                remedy="this command puts jobs of dead workers back when their locks have run out",
                commands=(exam.command("jobs retry-stalled", snapshot.keys.name, "--wait"),),
            )


def last_stall(exam: Examination) -> Iterator[Finding]:
    """Active jobs that fail for good if they are interrupted once more."""
    limit = exam.settings.max_stalled_count
    for snapshot in exam.snapshots:
        at_limit = [job for job in exam.active(snapshot.keys) if job.stalled_count >= limit]
        # A job never fails for stalling while its scheduler exists.
        exempt = jobs_of_schedulers(exam.client, at_limit)
        at_limit = [job for job in at_limit if job.key not in exempt]
        if not at_limit:
            continue
        fail_next = [job.id for job in at_limit if job.is_orphan]
        name = snapshot.keys.name
        remedy = "drain the queue before you restart its workers"
        if fail_next:
            remedy = "put the stalled jobs back before a worker fails them"
        yield Finding(
            severity="error" if fail_next else "warning",
            subject=Subject("queue", name),
            what=f"{counted(len(at_limit), 'job has', 'jobs have')} stalled as often as is allowed "
            f"({limit}): one more stall or interruption fails a job for good"
            + (f"; {counted(len(fail_next), 'is', 'are')} stalled now" if fail_next else ""),
            evidence=examples("jobs", [job.id for job in at_limit])
            | {"stalled_now": len(fail_next), "max_stalled_count": limit},
            remedy=remedy,
            commands=(exam.command("jobs retry-stalled" if fail_next else "drain", name),),
        )


def missing_hashes(exam: Examination) -> Iterator[Finding | str]:
    """Ids that are in a state but have no job. Workers run some of them, without a name or data."""
    ids, examined, total = ids_without_job(exam.client, exam.snapshots, full=exam.full)
    for keys, found in grouped(ids, lambda each: each.keys).items():
        by_state = Counter(bare.state for bare in found)
        listed = ", ".join(f"{count:,} in {state}" for state, count in by_state.items())
        taken = [bare.id for bare in found if bare.state in _TAKEN]
        # The ids that workers would run come first.
        ordered = [*taken, *(bare.id for bare in found if bare.state not in _TAKEN)]
        effect = "a worker would run it" if len(taken) == 1 else "workers would run them"
        if len(taken) < len(found):
            effect = f"workers would run {len(taken):,} of them"
        yield Finding(
            severity="error" if taken else "warning",
            subject=Subject("queue", keys.name),
            what=f"{counted(len(found), 'id')} without a job: {listed}"
            + (f"; {effect} without a name or data" if taken else "; none of them would be run"),
            evidence=examples("ids", ordered) | {"by_state": dict(by_state)},
            remedy="find out who deletes jobs' keys (evictions, scripts); "
            + _in_steps(len(ordered), "this command removes the ids"),
            commands=(exam.command("jobs remove", keys.name, *ordered[:MAX_NAMED]),),
        )
    if examined < total:
        yield exam.coverage(f"{examined:,} of {total:,} ids")


def _in_steps(number: int, remedy: str) -> str:
    if number > MAX_NAMED:
        return f"{remedy}, {MAX_NAMED} at a time: run doctor again for the next ones"
    return remedy


def lost_jobs(exam: Examination) -> Iterator[Finding | str]:
    """Jobs that are in no state: nothing will ever run, list or remove them."""
    scanned = _scanned(exam)
    most = None if exam.full else keyspace.MAX_WAITING
    found_strays, undetermined = keyspace.find_strays(exam.client, scanned.loose, max_waiting=most)
    strays = grouped(found_strays, lambda each: each.keys)
    others = other_libraries(exam.client, list(strays))
    for keys, found in strays.items():
        if keys in others:
            continue
        # Oldest first: lost jobs are put back in this order. With equal times, a lower id is older.
        found.sort(key=lambda stray: (stray.added_at_ms, len(stray.id), stray.id))
        lost = [stray.id for stray in found if not stray.finished and not stray.ghost]
        leftovers = [stray.id for stray in found if stray.finished or stray.ghost]
        parts, remedies = [], []
        commands = [exam.command("jobs show", keys.name, [*lost, *leftovers][0])]
        if lost:
            jobs = counted(len(lost), "job is", "jobs are")
            parts.append(f"{jobs} in no state and will never run")
            remedies.append(_in_steps(len(lost), "`jobs retry` puts lost jobs back"))
            commands.append(exam.command("jobs retry", keys.name, *lost[:MAX_NAMED]))
        if leftovers:
            one, many = "leftover of an ended or removed job", "leftovers of ended or removed jobs"
            parts.append(counted(len(leftovers), f"{one} is", f"{many} are") + " in no state")
            remedies.append(_in_steps(len(leftovers), "`jobs remove` deletes leftovers"))
            commands.append(exam.command("jobs remove", keys.name, *leftovers[:MAX_NAMED]))
        yield Finding(
            severity="error" if lost else "info",
            subject=Subject("queue", keys.name),
            what="; ".join(parts),
            evidence={
                **examples("lost", lost),
                "all_lost": lost[:MAX_LISTED],
                "leftovers": len(leftovers),
                "jobs_looked_at": scanned.jobs,
            },
            remedy="; ".join(remedies),
            commands=tuple(commands),
        )
    if not scanned.is_complete or scanned.unsearched:
        yield exam.coverage(f"{scanned.jobs:,} jobs among {scanned}")
    if others:
        names = ", ".join(sorted(keys.name for keys in others))
        yield f"not examined: {names}, because another library may keep its jobs elsewhere"
    if undetermined:
        jobs = counted(undetermined, "job", "jobs")
        yield f"{jobs} may be in the part of the wait list that was not read"


def stale_deduplications(exam: Examination) -> Iterator[Finding | str]:
    """Deduplication keys whose job is gone: BullMQ 5 drops every new job with the same key."""
    scanned = _scanned(exam)
    stale = keyspace.stale_dedups(exam.client, scanned.dedups)
    versions = {snapshot.keys: snapshot.client_version for snapshot in exam.snapshots}
    for keys, found in grouped(stale, lambda each: each.keys).items():
        lasting = [dedup for dedup in found if not dedup.expires]
        if not lasting:
            continue
        recovers = (versions.get(keys) or "").startswith("6.")
        yield Finding(
            severity="info" if recovers else "warning",
            subject=Subject("queue", keys.name),
            what=counted(len(lasting), "deduplication id belongs", "deduplication ids belong")
            + " to jobs that are gone: "
            + ("BullMQ 6 frees them at the next add, " if recovers else "")
            + "BullMQ 5 drops every new job that has one of them",
            evidence=examples("deduplication_ids", [dedup.id for dedup in lasting])
            | {"keys": [dedup.key for dedup in lasting[:MAX_EXAMPLES]]},
            remedy="free them with BullMQ's queue.removeDeduplicationKey(id)",
        )
    if not scanned.is_complete:
        yield exam.coverage(str(scanned))


def stuck_parents(exam: Examination) -> Iterator[Finding | str]:
    """Flow parents that wait for ever: a child failed or is gone, or no child is left."""
    stuck, examined, total = parents.stuck_parents(exam.client, exam.snapshots, full=exam.full)
    for keys, found in grouped(stuck, lambda each: each.keys).items():
        counts = {reason: sum(parent.reason == reason for parent in found) for reason in _STUCK}
        reasons = [reason for reason, count in counts.items() if count]
        texts = [
            _STUCK[reason][0] + (f" ({counts[reason]:,})" if len(reasons) > 1 else "")
            for reason in reasons
        ]
        failed = [parent.child for parent in found if parent.reason == "failed" and parent.child]
        yield Finding(
            severity="error",
            subject=Subject("queue", keys.name),
            what=f"{counted(len(found), 'job waits', 'jobs wait')} for children for ever: "
            + "; ".join(texts),
            evidence=examples("parents", [parent.id for parent in found])
            | {
                "because": counts,
                "children": [
                    {"queue": parent.child[0].name, "id": parent.child[1]}
                    for parent in found[:MAX_EXAMPLES]
                    if parent.child
                ],
            },
            remedy="; ".join(_STUCK[reason][1] for reason in reasons),
            commands=tuple(
                exam.command("jobs retry", child.name, job_id) for child, job_id in failed[:1]
            ),
        )
    if examined < total:
        yield exam.coverage(f"{examined:,} of {total:,} parents")


@dataclass(slots=True)
class _Scan:
    """What a scan found in about ``passed`` of the ``total`` keys in the database.

    Args:
        jobs: how many jobs were searched for in the sorted sets.
        unsearched: how many found jobs were not searched for.
        loose: the jobs that are in no sorted set; the lists are searched later.
    """

    total: int
    passed: int = 0
    jobs: int = 0
    unsearched: int = 0
    loose: list[JobKey] = field(default_factory=list)
    dedups: list[JobKey] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        return self.passed >= self.total

    def __str__(self) -> str:
        return f"about {min(self.passed, self.total):,} of {self.total:,} keys of the database"


@read_once
def _scanned(exam: Examination) -> _Scan:
    scanned = _Scan(keyspace.database_size(exam.client))
    if not exam.keys:
        return scanned
    most = None if exam.full else MAX_KEYS
    for passed, jobs, dedups in keyspace.scan_keys(exam.client, exam.keys, most):
        chosen = jobs if exam.full else jobs[: max(MAX_JOBS - scanned.jobs, 0)]
        loose, number = keyspace.jobs_in_no_set(exam.client, chosen)
        scanned.passed += passed
        scanned.jobs += number
        scanned.unsearched += len(jobs) - len(chosen)
        scanned.loose += loose
        scanned.dedups += dedups
    return scanned


def _of_dead_workers(exam: Examination, jobs: Sequence[ActiveJob]) -> list[ActiveJob]:
    """The jobs of qctl's own workers whose process ran on this host and has ended.

    Only qctl's own workers have heartbeats, which name the host and the process of each worker.
    """
    from qctl.manage.host import read_birth_s  # noqa: PLC0415 - rarely needed

    try:
        beats = heartbeats.read(exam.client, (heartbeats.owner_of(j.lock_token) for j in jobs))
    except ReplyError:
        # This Redis user may read the queues, but perhaps not qctl's keys.
        return []
    here = [beat for beat in beats.values() if beat.host == socket.gethostname()]
    dead = {beat.owner for beat in here if beat.pid is not None and read_birth_s(beat.pid) is None}
    return [job for job in jobs if heartbeats.owner_of(job.lock_token) in dead]
