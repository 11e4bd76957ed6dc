"""Jobs that will never run, or that the next interruption fails for good."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from qctl.errors import ReplyError
from qctl.ops.doctor.examination import Examination, by_queue, read_once
from qctl.ops.doctor.findings import EXAMPLES, CannotCheckError, Finding, Subject, examples
from qctl.ops.jobs.retry_stalled import worker_is_gone
from qctl.ops.queues import advice
from qctl.plurals import counted
from qctl.wire.checks import keyspace, parents
from qctl.wire.checks.integrity import ids_without_job
from qctl.wire.keys import JobKey, QueueKeys
from qctl.wire.read import heartbeats
from qctl.wire.read.active import ActiveJob
from qctl.wire.read.clients import is_listed
from qctl.wire.read.stalled_check import jobs_of_schedulers
from qctl.wire.read.versions import other_libraries

# Without --full: keys of the database that are scanned, and jobs whose state is then searched.
MAX_KEYS = 30_000
MAX_JOBS = 2000
# States from which workers take ids, even if there is no job behind the id.
_TAKEN = frozenset({"wait", "waiting", "paused", "prioritized", "delayed", "active"})
# Ids in a command to type, and in the evidence for programs.
MAX_NAMED = 20
MAX_LISTED = 10_000
# Why parents are stuck, and what helps.
_STUCK: dict[parents.Reason, tuple[str, str]] = {
    "failed": (
        "a child failed, and no option says what then",
        "retry or remove these children; give children failParentOnFailure, "
        "ignoreDependencyOnFailure or removeDependencyOnFailure when adding flows",
    ),
    "gone": (
        "a child is gone",
        "where a child is gone, BullMQ's job.removeUnprocessedChildren() of the parent lets it "
        "run; it deletes the children that have not run",
    ),
    "none": (
        "no child is left to wait for",
        "where no child is left, add the flow again and remove the parent",
    ),
}


def stalled(exam: Examination) -> Iterator[Finding]:
    """Jobs in ``active`` that no worker holds."""
    for snapshot in exam.snapshots:
        # Counted again: a job that was about to end when the queue was first read has ended now.
        # A job without a hash cannot run again; missing_hashes reports it.
        orphans = (job for job in exam.active(snapshot.keys) if job.is_orphan)
        ids = [job.id for job in orphans if job.name is not None]
        if not ids:
            continue
        workers = _number_of_workers(exam, snapshot.keys)
        note = advice.stalled(snapshot, workers)
        if note is not None:
            yield Finding(
                severity="error" if workers == 0 else "warning",
                subject=Subject("queue", snapshot.keys.name),
                what=note.text,
                evidence=examples("stalled", ids) | {"workers": workers},
                commands=note.commands,
            )


def gone_workers(exam: Examination) -> Iterator[Finding]:
    """Jobs locked by a worker that is not connected: it is closing, or has died."""
    for snapshot in exam.snapshots:
        workers = exam.workers_of(snapshot.keys)
        held = [
            job
            for job in exam.active(snapshot.keys)
            # A worker that Redis never lists is not missing from the list.
            if worker_is_gone(job, workers) and is_listed(job.worker or "")
        ]
        if held:
            dead = _owners_are_dead(exam, held)
            ttls = [job.lock_ttl_ms for job in held]
            left_ms = None if None in ttls else max(ttl or 0 for ttl in ttls)
            yield Finding(
                severity="warning" if dead else "info",
                subject=Subject("queue", snapshot.keys.name),
                what=f"{counted(len(held), 'job is', 'jobs are')} held by a worker that is not "
                "connected: "
                + ("its process has died" if dead else "it is closing and ends them, or has died")
                + f"; {advice.locks_end(ttls)}",
                evidence=examples("jobs", [job.id for job in held])
                | {"longest_lock_ttl_ms": left_ms},
                remedy=("" if dead else "if it has died, ")
                + "this brings them back as soon as their locks run out",
                commands=(exam.command("jobs retry-stalled", snapshot.keys.name, "--wait"),),
            )


def last_stall(exam: Examination) -> Iterator[Finding]:
    """Active jobs that one more interruption would fail for good."""
    limit = exam.settings.max_stalled_count
    for snapshot in exam.snapshots:
        near = [job for job in exam.active(snapshot.keys) if job.stalled_count >= limit]
        exempt = jobs_of_schedulers(exam.client, near)
        near = [job for job in near if job.key not in exempt]
        if not near:
            continue
        fail_next = [job.id for job in near if job.is_orphan]
        name = snapshot.keys.name
        yield Finding(
            severity="error" if fail_next else "warning",
            subject=Subject("queue", name),
            what=f"{counted(len(near), 'job has', 'jobs have')} stalled as often as is allowed "
            f"({limit}): one more stall or interruption is a failure for good"
            + (f", and {len(fail_next):,} stall now" if fail_next else ""),
            evidence=examples("jobs", [job.id for job in near])
            | {"stalled_now": len(fail_next), "max_stalled_count": limit},
            remedy="put back what has stalled before a worker fails it"
            if fail_next
            else "do not restart their workers with anything but a drain",
            commands=(exam.command("jobs retry-stalled", name),)
            if fail_next
            else (exam.command("drain", name),),
        )


def missing_hashes(exam: Examination) -> Iterator[Finding | str]:
    """Ids in a state whose job is gone; a waiting one is run as a job without a name or data."""
    ids, examined, total = ids_without_job(exam.client, exam.snapshots, full=exam.full)
    for keys, found in by_queue(ids).items():
        by_state = Counter(bare.state for bare in found)
        listed = ", ".join(f"{count:,} in {state}" for state, count in by_state.items())
        taken = [bare.id for bare in found if bare.state in _TAKEN]
        # Those that will be run come first.
        ordered = [*taken, *(bare.id for bare in found if bare.state not in _TAKEN)]
        those = "a worker would run it" if len(taken) == 1 else "workers would run them"
        if len(taken) < len(found):
            those = f"workers would run {len(taken):,} of them"
        yield Finding(
            severity="error" if taken else "warning",
            subject=Subject("queue", keys.name),
            what=f"{counted(len(found), 'id')} without a job: {listed}"
            + (f"; {those} without a name or data" if taken else "; none of them would be run"),
            evidence=examples("ids", ordered) | {"by_state": dict(by_state)},
            remedy="find out who deletes jobs' keys (evictions, scripts); "
            + _removal(len(ordered), "this takes these ids away"),
            commands=(exam.command("jobs remove", keys.name, *ordered[:MAX_NAMED]),),
        )
    if examined < total:
        yield exam.coverage(f"{examined:,} of {total:,} ids")


def _removal(number: int, text: str) -> str:
    if number > MAX_NAMED:
        return f"{text}, {MAX_NAMED} at a time: doctor then names the next"
    return text


def lost_jobs(exam: Examination) -> Iterator[Finding | str]:
    """Jobs that are in no state: nothing will ever run, show or remove them."""
    scanned = _scanned(exam)
    most = None if exam.full else keyspace.MAX_WAITING
    found_strays, undetermined = keyspace.find_strays(exam.client, scanned.loose, max_waiting=most)
    strays = by_queue(found_strays)
    others = other_libraries(exam.client, list(strays))
    for keys, found in strays.items():
        if keys in others:
            continue
        # In the order in which they were added, so that they run in it when put back.
        found.sort(key=lambda stray: (stray.added_at_ms, len(stray.id), stray.id))
        lost = [stray.id for stray in found if not stray.finished and not stray.ghost]
        left = [stray.id for stray in found if stray.finished or stray.ghost]
        parts, remedies = [], []
        commands = [exam.command("jobs show", keys.name, [*lost, *left][0])]
        if lost:
            jobs = counted(len(lost), "job is", "jobs are")
            parts.append(f"{jobs} in no state and will never run")
            remedies.append(_removal(len(lost), "`jobs retry` puts lost jobs back"))
            commands.append(exam.command("jobs retry", keys.name, *lost[:MAX_NAMED]))
        if left:
            one, many = "leftover of an ended or removed job", "leftovers of ended or removed jobs"
            parts.append(counted(len(left), f"{one} is", f"{many} are") + " in no state")
            remedies.append(_removal(len(left), "`jobs remove` deletes leftovers"))
            commands.append(exam.command("jobs remove", keys.name, *left[:MAX_NAMED]))
        yield Finding(
            severity="error" if lost else "info",
            subject=Subject("queue", keys.name),
            what="; ".join(parts),
            evidence={
                **examples("lost", lost),
                "all_lost": lost[:MAX_LISTED],
                "leftovers": len(left),
                "jobs_looked_at": scanned.jobs,
            },
            remedy="; ".join(remedies),
            commands=tuple(commands),
        )
    if not scanned.is_complete or scanned.left:
        yield exam.coverage(f"{scanned.jobs:,} jobs among {scanned}")
    if others:
        names = ", ".join(sorted(keys.name for keys in others))
        yield f"not {names}: of another library, which may keep jobs elsewhere"
    if undetermined:
        yield f"{undetermined:,} may be in a part of wait that was not read"


def stale_deduplications(exam: Examination) -> Iterator[Finding | str]:
    """Deduplication keys whose job is gone: BullMQ 5 drops every new job of that id."""
    scanned = _scanned(exam)
    stale = keyspace.stale_dedups(exam.client, scanned.dedups)
    versions = {snapshot.keys: snapshot.client_version for snapshot in exam.snapshots}
    for keys, found in by_queue(stale).items():
        lasting = [dedup for dedup in found if not dedup.expires]
        if not lasting:
            continue
        recovers = (versions.get(keys) or "").startswith("6.")
        yield Finding(
            severity="info" if recovers else "warning",
            subject=Subject("queue", keys.name),
            what=counted(len(lasting), "deduplication id belongs", "deduplication ids belong")
            + " to jobs that are gone: "
            + ("BullMQ 6 takes them over at the next add, " if recovers else "")
            + "BullMQ 5 drops every new job of theirs",
            evidence=examples("deduplication_ids", [dedup.id for dedup in lasting])
            | {"keys": [dedup.key for dedup in lasting[:EXAMPLES]]},
            remedy="free them with BullMQ's queue.removeDeduplicationKey(id)",
        )
    if not scanned.is_complete:
        yield exam.coverage(str(scanned))


def stuck_parents(exam: Examination) -> Iterator[Finding | str]:
    """Flow parents that wait for ever: a child failed without a policy, or is gone."""
    stuck, examined, total = parents.stuck_parents(exam.client, exam.snapshots, full=exam.full)
    for keys, found in by_queue(stuck).items():
        yield _stuck(exam, keys, found)
    if examined < total:
        yield exam.coverage(f"{examined:,} of {total:,} parents")


def _stuck(exam: Examination, keys: QueueKeys, found: Sequence[parents.StuckParent]) -> Finding:
    counts = {reason: sum(parent.reason == reason for parent in found) for reason in _STUCK}
    reasons = [reason for reason, count in counts.items() if count]
    shares = [f" ({counts[reason]:,})" if len(reasons) > 1 else "" for reason in reasons]
    texts = [_STUCK[reason][0] + share for reason, share in zip(reasons, shares, strict=True)]
    failed = [parent.child for parent in found if parent.reason == "failed" and parent.child]
    return Finding(
        severity="error",
        subject=Subject("queue", keys.name),
        what=f"{counted(len(found), 'job waits', 'jobs wait')} for children for ever: "
        + "; ".join(texts),
        evidence=examples("parents", [parent.id for parent in found])
        | {
            "because": counts,
            "children": [
                {"queue": parent.child[0].name, "id": parent.child[1]}
                for parent in found[:EXAMPLES]
                if parent.child
            ],
        },
        remedy="; ".join(_STUCK[reason][1] for reason in reasons),
        commands=tuple(
            exam.command("jobs retry", home.name, job_id) for home, job_id in failed[:1]
        ),
    )


@dataclass(slots=True)
class _Scan:
    """What the scan of the database found.

    Args:
        total: keys of the database, of which about ``passed`` were scanned.
        jobs: how many of these are jobs whose state was searched.
        loose: jobs among them that are in no sorted set.
        left: jobs whose state was not searched.
    """

    total: int
    passed: int = 0
    jobs: int = 0
    left: int = 0
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
        scanned.left += len(jobs) - len(chosen)
        scanned.loose += loose
        scanned.dedups += dedups
    return scanned


def _owners_are_dead(exam: Examination, jobs: Sequence[ActiveJob]) -> bool:
    """Whether one of them is held by one of qctl's own workers whose process on this host is gone.

    Where BullMQ's workers run is unknown.
    """
    from qctl.manage.host import started_at  # noqa: PLC0415 - rarely needed

    owners = {heartbeats.owner_of(job.lock_token) for job in jobs}
    try:
        beats = heartbeats.read(exam.client, sorted(owners)).values()
    except ReplyError:
        # A user who may read the queues may still not be allowed to read qctl's keys.
        return False
    host = socket.gethostname()
    return any(beat.host == host and started_at(beat.pid) is None for beat in beats)


def _number_of_workers(exam: Examination, keys: QueueKeys) -> int | None:
    try:
        return len(exam.workers_of(keys))
    except CannotCheckError:
        return None
