"""Queues as a whole: paused, of two versions, unreadable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qctl.errors import ReplyError, is_outage
from qctl.ops.doctor.examination import Examination
from qctl.ops.doctor.findings import CannotCheckError, Finding, NothingToCheckError, Subject
from qctl.ops.processes.suggest import quoted
from qctl.ops.queues import advice
from qctl.ops.queues.versions import LATELY_MS, installed_by_queue, version_signs
from qctl.ops.times import utc_datetime
from qctl.plurals import counted
from qctl.wire.checks.key_types import WrongKey, wrong_keys
from qctl.wire.drain_record import read_resumers
from qctl.wire.events import recent_events
from qctl.wire.keys import QueueKeys
from qctl.wire.read.versions import read_bullmq5_traces
from qctl.wire.replies import checked

# Events searched for the pause: of all paused queues together, and of one.
_MAX_EVENTS = 20_000
_MAX_EVENTS_OF_ONE = 1000
_REMEDY = (
    "find out who writes there, stop the queue's workers, and move what is there out of the way"
)


def unreadable(exam: Examination) -> Iterator[Finding]:
    """Queues that this user may not read, or with a key of a type that BullMQ never uses."""
    for name, error, wrong in _broken(exam):
        yield Finding(
            severity="error",
            subject=Subject("queue", name),
            what=f"it cannot be read: {error.what}" + (f": {_listed(wrong)}" if wrong else ""),
            evidence={"redis_said": error.message, "keys": _as_json(wrong)},
            remedy=_remedy(wrong) if wrong else error.hint,
            commands=_renames(exam, wrong),
        )
    for keys, found in zip(exam.keys, wrong_keys(exam.client, exam.keys), strict=True):
        wrong = checked(found)
        if wrong:
            yield Finding(
                severity="error",
                subject=Subject("queue", keys.name),
                what="BullMQ's scripts fail on it, some of them or all: " + _listed(wrong),
                evidence={"keys": _as_json(wrong)},
                remedy=_remedy(wrong),
                commands=_renames(exam, wrong),
            )


def _broken(exam: Examination) -> Iterator[tuple[str, ReplyError, Sequence[WrongKey]]]:
    keys = [QueueKeys(exam.settings.prefix, name) for name, _ in exam.queues.broken]
    found = wrong_keys(exam.client, keys)
    for (name, error), wrong in zip(exam.queues.broken, found, strict=True):
        # A user who may not read a queue may not ask for types either.
        yield name, error, () if isinstance(wrong, ReplyError) else wrong


def _listed(wrong: Sequence[WrongKey]) -> str:
    return "; ".join(
        f"its key {each.name} is of type {each.type}, not {each.expected}" for each in wrong
    )


def _as_json(wrong: Sequence[WrongKey]) -> list[dict[str, str]]:
    return [{"key": each.key, "type": each.type, "expected": each.expected} for each in wrong]


def _remedy(wrong: Sequence[WrongKey]) -> str:
    # Ids would start at 1 again, and BullMQ drops a new job whose id exists.
    has_id = any(each.name == "id" for each in wrong)
    return _REMEDY + ("; set id to a number above that of every job" if has_id else "")


def _renames(exam: Examination, wrong: Sequence[WrongKey]) -> tuple[str, ...]:
    return tuple(
        exam.redis_cli(None, "renamenx", quoted(each.key), quoted(f"wrong:{each.key}"))
        for each in wrong
    )


def bull_queues(exam: Examination) -> Iterator[Finding]:
    """Queues of Bull 3 or 4, which no other check examines."""
    for snapshot in exam.queues.readable:
        if snapshot.format == "bull":
            yield Finding(
                severity="info",
                subject=Subject("queue", snapshot.keys.name),
                what=advice.BULL.text,
                evidence={"format": "bull"},
            )


def paused(exam: Examination) -> Iterator[Finding]:
    """Queues that are paused: by whom, since when, and how much waits."""
    found = [(s, note) for s in exam.snapshots if (note := advice.paused(s)) is not None]
    count = max(min(_MAX_EVENTS // max(len(found), 1), _MAX_EVENTS_OF_ONE), 20)
    events = recent_events(exam.client, [snapshot.keys for snapshot, _ in found], count)
    for snapshot, note in found:
        by, at_ms = snapshot.pause_note, None
        if by is not None:
            at_ms = by.at_ms
        elif snapshot.paused:
            times = (e.at_ms for e in events[snapshot.keys] if e.name == "paused")
            at_ms = next(times, None)
        paused_at = utc_datetime(at_ms)
        at_work = snapshot.lease is not None
        text = note.text
        if paused_at and not at_work:
            text += f", since {paused_at:%Y-%m-%d %H:%M:%S} UTC"
        if snapshot.backlog and not at_work:
            text += f"; {counted(snapshot.backlog, 'job waits', 'jobs wait')}"
        yield Finding(
            severity="info" if at_work else "warning",
            subject=Subject("queue", snapshot.keys.name),
            what=text,
            evidence={
                "paused_by": None if by is None else str(by),
                "paused_at": paused_at,
                "waiting": snapshot.backlog,
                "delayed": snapshot.counts.delayed,
            },
            commands=note.commands,
        )


def resumes_at_start(exam: Examination) -> Iterator[Finding]:
    """Apps that resumed a queue when they started, as seen by its last drain."""
    names = {keys.name for keys in exam.keys}
    try:
        resumers = read_resumers(exam.client, exam.settings.prefix)
    except ReplyError as error:
        if is_outage(error):
            raise
        why = "this Redis user may not read what drains have seen"
        raise NothingToCheckError(why) from error
    for resumer in resumers:
        if resumer.queue not in names:
            continue
        yield Finding(
            severity="warning",
            subject=Subject("queue", resumer.queue),
            what=f"{advice.resumer_text(resumer)}: every start of that app ends a pause",
            evidence={"target": resumer.target, "seen_at": utc_datetime(resumer.at_ms)},
            remedy="take the call of resume() out of the start of the app",
        )


def legacy_paused(exam: Examination) -> Iterator[Finding]:
    """Jobs in BullMQ 5's ``paused`` list that no worker takes, or that a resume may lose."""
    for snapshot in exam.snapshots:
        note = advice.legacy_paused(snapshot)
        in_wait = snapshot.counts.waiting - snapshot.legacy_paused
        evidence = {"in_paused": snapshot.legacy_paused, "in_wait": in_wait}
        if note is not None:
            yield Finding(
                severity="error",
                subject=Subject("queue", snapshot.keys.name),
                what=note.text,
                evidence=evidence,
                commands=note.commands,
            )
        elif snapshot.paused and snapshot.legacy_paused and in_wait:
            yield Finding(
                severity="error",
                subject=Subject("queue", snapshot.keys.name),
                what=f"paused with jobs both in wait ({in_wait:,}) and in BullMQ 5's paused list "
                f"({snapshot.legacy_paused:,}): a resume or another pause by BullMQ 5 loses those "
                "of one list",
                evidence=evidence,
                remedy="resume it through qctl, which keeps both",
                commands=(exam.command("resume", snapshot.keys.name),),
            )


def global_concurrency(exam: Examination) -> Iterator[Finding]:
    """Queues held back by their global concurrency, and which jobs use it up."""
    for snapshot in exam.snapshots:
        note, counts = advice.maxed(snapshot), snapshot.counts
        is_odd = snapshot.invalid_concurrency is not None
        if note is None or (snapshot.paused and not is_odd):
            continue
        is_none = is_odd or (snapshot.concurrency or 0) <= 0
        is_stuck = is_none or counts.stalled == counts.active
        remedy = ""
        if is_none:
            remedy = (
                "set it with BullMQ's queue.setGlobalConcurrency(n), or take it away with "
                "removeGlobalConcurrency()"
            )
        elif is_stuck:
            remedy = "put the stalled jobs back: that makes room"
        name = snapshot.keys.name
        retry = exam.command("jobs retry-stalled", name)
        yield Finding(
            severity="error" if is_stuck else "info",
            subject=Subject("queue", name),
            what=note.text,
            evidence={
                "concurrency": snapshot.invalid_concurrency if is_odd else snapshot.concurrency,
                "active": counts.active,
                "stalled": counts.stalled,
                "waiting": snapshot.backlog,
            },
            remedy=remedy,
            commands=(retry,) if is_stuck and not is_none else (),
        )


def mixed_versions(exam: Examination) -> Iterator[Finding]:
    """Traces of BullMQ 5 and of BullMQ 6 in one queue: their pauses lose each other's jobs."""
    traces = read_bullmq5_traces(exam.client, exam.keys, exam.now_ms - LATELY_MS)
    installed = _installed(exam)
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


def _installed(exam: Examination) -> dict[str, list[tuple[str, str]]]:
    """By queue: the processes that serve it, each with the BullMQ that it has installed."""
    try:
        return installed_by_queue(exam.served)
    except (CannotCheckError, NothingToCheckError):
        # The traces in Redis are enough.
        return {}
