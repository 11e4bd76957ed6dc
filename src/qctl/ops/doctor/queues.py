"""Checks of whole queues: can they be read, are they paused, do two BullMQ versions use them …"""

from __future__ import annotations

from collections.abc import Iterator

from qctl.errors import ReplyError, is_outage
from qctl.ops.doctor.examination import Examination
from qctl.ops.doctor.findings import CannotCheckError, Finding, NothingToCheckError, Subject
from qctl.ops.processes.suggest import redis_cli
from qctl.ops.queues import advice
from qctl.ops.queues.versions import LATELY_MS, installed_by_queue, version_signs
from qctl.ops.times import utc_datetime
from qctl.wire.checks.key_types import wrong_keys
from qctl.wire.drain_record import read_resumers
from qctl.wire.read.versions import read_bullmq5_traces
from qctl.wire.replies import checked

_REMEDY = "find out which program writes there, stop the queue's workers, and rename the key"


def groups(exam: Examination) -> Iterator[Finding]:
    """Queues with groups of BullMQ Pro. No count includes the jobs that wait in these groups."""
    for snapshot in exam.snapshots:
        if note := advice.grouped(snapshot):
            yield Finding(
                severity="info",
                subject=Subject("queue", snapshot.keys.name),
                what=note.text,
                evidence={"waiting_at_least": snapshot.counts.waiting},
                remedy="for the jobs of the groups, ask BullMQ Pro: queue.getGroupsJobsCount()",
            )


def unreadable(exam: Examination) -> Iterator[Finding]:
    """Queues that this user may not read, or that have a key of the wrong type."""
    broken = dict(exam.queues.broken)
    queues = [*broken, *exam.keys]
    for keys, found in zip(queues, wrong_keys(exam.client, queues), strict=True):
        error = broken.get(keys)
        # A user who may not read a queue is perhaps not allowed to ask for types either.
        wrong = () if error is not None and isinstance(found, ReplyError) else checked(found)
        listed = "; ".join(f"its key {w.name} is of type {w.type}, not {w.expected}" for w in wrong)
        evidence: dict[str, object] = {}
        if error is not None:
            what = f"it cannot be read: {error.what}" + (f": {listed}" if wrong else "")
            evidence["redis_said"] = error.message
        elif wrong:
            what = f"some or all of BullMQ's scripts fail on it: {listed}"
        else:
            continue
        evidence["keys"] = [{"key": w.key, "type": w.type, "expected": w.expected} for w in wrong]
        remedy = error.hint if error is not None and not wrong else _REMEDY
        if any(w.name == "id" for w in wrong):
            # Without this key, ids start at 1 again, and BullMQ drops a new job whose id exists.
            remedy += "; set the key id to a number above the id of every job"
        yield Finding(
            severity="error",
            subject=Subject("queue", keys.name),
            what=what,
            evidence=evidence,
            remedy=remedy,
            commands=tuple(
                redis_cli(exam.address, None, "renamenx", w.key, f"wrong:{w.key}") for w in wrong
            ),
        )


def bull_queues(exam: Examination) -> Iterator[Finding]:
    """Queues of Bull 3 or 4. No other check examines them."""
    for name in (keys.name for keys in exam.queues.bull):
        yield Finding(
            severity="info",
            subject=Subject("queue", name),
            what=advice.BULL.text,
            evidence={"format": "bull"},
        )


def paused(exam: Examination) -> Iterator[Finding]:
    """Queues that are paused or being drained: who paused them and when, and how many jobs wait."""
    for snapshot in exam.snapshots:
        note, by = advice.paused(snapshot), snapshot.pause_note
        if note is None:
            continue
        is_draining = snapshot.lease is not None
        yield Finding(
            severity="info" if is_draining else "warning",
            subject=Subject("queue", snapshot.keys.name),
            what=note.text,
            evidence={
                "paused_by": None if by is None else str(by),
                "paused_at": utc_datetime(snapshot.paused_since_ms),
                "waiting": snapshot.backlog,
                "delayed": snapshot.counts.delayed,
            },
            commands=note.commands,
        )


def resumes_at_start(exam: Examination) -> Iterator[Finding]:
    """Apps that resume a queue when they start. A drain of the app saw and recorded this."""
    names = {keys.name for keys in exam.keys}
    try:
        resumers = read_resumers(exam.client, exam.settings.prefix)
    except ReplyError as error:
        if is_outage(error):
            raise
        # No CannotCheckError: a user who may read only the queues deserves no warning.
        why = "this Redis user may not read what drains have recorded"
        raise NothingToCheckError(why) from error
    for resumer in resumers:
        if resumer.queue not in names:
            continue
        yield Finding(
            severity="warning",
            subject=Subject("queue", resumer.queue),
            what=f"{advice.resumer_text(resumer)}: every start of that app ends a pause",
            evidence={"target": resumer.target, "seen_at": utc_datetime(resumer.at_ms)},
            remedy="remove the call of resume() from the start of the app",
        )


def legacy_paused(exam: Examination) -> Iterator[Finding]:
    """Jobs in BullMQ 5's ``paused`` list that no worker takes, or that BullMQ 5 may lose."""
    for snapshot in exam.snapshots:
        note = advice.legacy_paused(snapshot)
        in_wait = snapshot.counts.waiting - snapshot.legacy_paused
        remedy = ""
        if snapshot.paused and snapshot.legacy_paused and in_wait:
            note = advice.Note(
                f"paused with jobs both in wait ({in_wait:,}) and in BullMQ 5's paused list "
                f"({snapshot.legacy_paused:,}): the next pause or resume by BullMQ 5 loses the "
                "jobs of one list",
                (exam.command("resume", snapshot.keys.name),),
            )
            remedy = "resume it through qctl, which keeps the jobs of both lists"
        if note is not None:
            yield Finding(
                severity="error",
                subject=Subject("queue", snapshot.keys.name),
                what=note.text,
                evidence={"in_paused": snapshot.legacy_paused, "in_wait": in_wait},
                remedy=remedy,
                commands=note.commands,
            )


def global_concurrency(exam: Examination) -> Iterator[Finding]:
    """Queues whose global concurrency keeps jobs from starting."""
    for snapshot in exam.snapshots:
        note, counts = advice.maxed(snapshot), snapshot.counts
        is_invalid = snapshot.invalid_concurrency is not None
        if note is None or (snapshot.paused and not is_invalid):
            continue
        allows_none = is_invalid or (snapshot.concurrency or 0) <= 0
        is_stuck = allows_none or counts.stalled == counts.active
        remedy, commands = "", list[str]()
        if allows_none:
            remedy = "set it to a number from 1, or remove it"
            commands = [exam.command("queues set", snapshot.keys.name, "--concurrency", "none")]
        elif is_stuck:
            remedy = "put the stalled jobs back, so that other jobs can start"
            commands = [exam.command("jobs retry-stalled", snapshot.keys.name)]
        yield Finding(
            severity="error" if is_stuck else "info",
            subject=Subject("queue", snapshot.keys.name),
            what=note.text,
            evidence={
                "concurrency": snapshot.invalid_concurrency if is_invalid else snapshot.concurrency,
                "active": counts.active,
                "stalled": counts.stalled,
                "waiting": snapshot.backlog,
            },
            remedy=remedy,
            commands=tuple(commands),
        )


def mixed_versions(exam: Examination) -> Iterator[Finding]:
    """Queues that both BullMQ 5 and BullMQ 6 use: a pause by BullMQ 5 can lose jobs."""
    traces = read_bullmq5_traces(exam.client, exam.keys, exam.now_ms - LATELY_MS)
    try:
        # By queue: the processes that serve the queue, each with its installed BullMQ version.
        installed = installed_by_queue(exam.served)
    except (CannotCheckError, NothingToCheckError):
        # If the processes are unknown, the signs in Redis are the only evidence.
        installed = {}
    for snapshot in exam.snapshots:
        signs = version_signs(
            snapshot, traces[snapshot.keys], installed.get(snapshot.keys.name, ())
        )
        if signs[5] and signs[6]:
            five, six = ("; ".join(signs[version]) for version in (5, 6))
            yield Finding(
                severity="warning",
                subject=Subject("queue", snapshot.keys.name),
                what=f"BullMQ 5 ({five}) and BullMQ 6 ({six}) both work on it: a pause or resume "
                "by BullMQ 5 can lose jobs",
                evidence={"bullmq_5": signs[5], "bullmq_6": signs[6]},
                remedy="bring all of its producers and workers to one version; until then pause "
                "and resume it with qctl only",
            )
