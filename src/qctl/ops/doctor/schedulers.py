"""Checks of schedulers that make no more jobs, are late, or make a job twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qctl.durations import duration
from qctl.grouping import grouped
from qctl.ops.doctor.examination import Examination, read_once
from qctl.ops.doctor.findings import (
    MAX_EXAMPLES,
    Finding,
    NothingToCheckError,
    Severity,
    Subject,
    examples,
)
from qctl.plurals import counted
from qctl.wire.checks.registrations import Registration, read_registrations
from qctl.wire.keys import QueueKeys

# A scheduler is reported only if its pending job is at least this late.
OVERDUE_S = 60


def dead_schedulers(exam: Examination) -> Iterator[Finding | str]:
    """Schedulers without a pending job.

    They make no more jobs, because a scheduler's next job is added when its pending job starts.
    """
    registrations, scope = _registrations(exam)
    # Skip legacy repeatables without fields, because it is unknown whether they have ended.
    dead = [
        each
        for each in registrations
        if not each.pending and each.fields and not each.has_ended(exam.now_ms)
    ]
    for keys, found in grouped(dead, lambda each: each.keys).items():
        yield Finding(
            severity="error",
            subject=Subject("queue", keys.name),
            what=counted(len(found), "scheduler has", "schedulers have")
            + " no pending job, and will make no more jobs",
            evidence=_examples(found),
            remedy="upsert them again: usually a restart of the app does so",
            commands=(exam.command("schedules show", keys.name, found[0].id),),
        )
    yield from scope


def overdue_schedulers(exam: Examination) -> Iterator[Finding | str]:
    """Schedulers whose pending job is so late that further runs are skipped."""
    registrations, scope = _registrations(exam)
    late = []
    latest_ms = exam.now_ms - OVERDUE_S * 1000
    for each in registrations:
        is_late = each.next_ms is not None and each.next_ms <= latest_ms
        is_late &= bool(each.pending and each.fields)
        if is_late and each.following_ms() <= exam.now_ms and not each.has_ended(exam.now_ms):
            late.append(each)
    for keys, found in grouped(late, lambda each: each.keys).items():
        skipped = {each.id: each.skipped(exam.now_ms) for each in found[:MAX_EXAMPLES]}
        worst = max(exam.now_ms - (each.next_ms or 0) for each in found)
        first = skipped[found[0].id]
        runs = "" if first is None else f" ({found[0].id!r}: {first:,} skipped so far)"
        yield Finding(
            severity="warning",
            subject=Subject("queue", keys.name),
            what=counted(len(found), "scheduler is", "schedulers are")
            + f" overdue, by {duration(worst / 1000)} at most: the next job waits for a worker, "
            f"and until a worker takes that job, further runs are skipped{runs}",
            evidence=_examples(found) | {"skipped": skipped, "overdue_s": worst / 1000},
            remedy="make sure that a worker can take the job: is the queue paused, without "
            "workers, or far behind?",
            commands=(exam.command("schedules list", keys.name),),
        )
    yield from scope


def duplicate_schedulers(exam: Examination) -> Iterator[Finding | str]:
    """Several schedulers that make the same job at the same times, so the job runs twice."""
    registrations, scope = _registrations(exam)
    groups = grouped((each for each in registrations if each.pending and each.timing), _job)
    for (keys, name, timing, data), found in groups.items():
        # The data of a legacy repeatable is unknown, so the repeatable may make
        # the same job.
        legacy = groups.get((keys, name, timing, ""), []) if data else []
        if len(found) < 2 and not legacy:
            continue
        alike = [*found, *legacy]
        yield Finding(
            severity="warning",
            subject=Subject("queue", keys.name),
            what=f"{len(alike)} schedulers make the same job, {name!r}, {timing}"
            + (f"; {len(legacy)} of them are repeatables of old versions" if legacy else ""),
            evidence=_examples(alike) | {"name": name, "timing": timing},
            remedy="remove all but one",
            commands=tuple(
                exam.command("schedules remove", keys.name, each.id)
                for each in [*legacy, *found][: len(alike) - 1][:MAX_EXAMPLES]
            ),
        )
    yield from scope


def outdated_schedulers(exam: Examination) -> Iterator[Finding | str]:
    """Several schedulers that make the same job at different times.

    Perhaps somebody changed the times by adding a scheduler with a new id, or a repeatable with a
    new pattern. The old one stays, so the job is made at the old times as well.
    """
    registrations, scope = _registrations(exam)
    running = [
        each
        for each in registrations
        if each.pending and each.timing and not each.has_ended(exam.now_ms)
    ]
    for (keys, name), named in grouped(running, lambda each: _job(each)[:2]).items():
        legacy = [each for each in named if each.is_legacy]
        alike = [each for each in named if not each.is_legacy]
        # Schedulers are newer than repeatables. The data of a repeatable is unknown, so only the
        # times are compared.
        others = [each for each in legacy if all(each.timing != new.timing for new in alike)]
        if alike and others:
            yield _outdated(
                [*others, *alike], "warning",
                f"{counted(len(others), 'repeatable')} of old versions still "
                f"{'makes' if len(others) == 1 else 'make'} the job {name!r} beside a scheduler "
                "with other times",
                remedy="if the scheduler replaces it, remove the repeatable",
                commands=tuple(
                    exam.command("schedules remove", keys.name, each.id)
                    for each in others[:MAX_EXAMPLES]
                ),
            )  # fmt: skip
            continue
        for same in grouped(alike or legacy, lambda each: _job(each)[3]).values():
            if len({each.timing for each in same}) > 1:
                yield _outdated(
                    same, "info",
                    f"{len(same):,} {'schedulers' if alike else 'repeatables'} make the job "
                    f"{name!r} at different times: "
                    "if its times were changed, the job also still runs at the old times",
                    remedy="if only one is wanted, remove the others (`schedules remove`)",
                    commands=(exam.command("schedules list", keys.name),),
                )  # fmt: skip
    yield from scope


def _outdated(
    found: Sequence[Registration],
    severity: Severity,
    what: str,
    *,
    remedy: str,
    commands: tuple[str, ...],
) -> Finding:
    shown = found[:MAX_EXAMPLES]
    # The one that has made fewer jobs is usually the newer one.
    each = "; ".join(f"{one.id!r}: {one.timing}, {one.jobs_made:,} made" for one in shown)
    return Finding(
        severity=severity,
        subject=Subject("queue", found[0].keys.name),
        what=f"{what} ({each})",
        evidence=_examples(found)
        | {"timings": {one.id: one.timing for one in shown}}
        | {"jobs_made": {one.id: one.jobs_made for one in shown}},
        remedy=remedy,
        commands=commands,
    )


def legacy_repeatables(exam: Examination) -> Iterator[Finding | str]:
    """Repeatables of old versions: BullMQ 6 runs their jobs with empty data, or not at all."""
    registrations, scope = _registrations(exam)
    legacy = [each for each in registrations if each.is_legacy]
    versions = {snapshot.keys: snapshot.client_version for snapshot in exam.snapshots}
    for keys, found in grouped(legacy, lambda each: each.keys).items():
        is_six = (versions.get(keys) or "").startswith("6.")
        yield Finding(
            severity="warning" if is_six else "info",
            subject=Subject("queue", keys.name),
            what=f"{len(found):,} repeatables of old versions: BullMQ 6 runs them with empty data, "
            "or not at all" + ("" if is_six else "; do not update before they are replaced"),
            evidence=_examples(found) | {"client_version": versions.get(keys)},
            remedy="turn them into job schedulers, and let the code call upsertJobScheduler",
            commands=(exam.command("schedules migrate", keys.name),),
        )
    yield from scope


@read_once
def _registrations(exam: Examination) -> tuple[Sequence[Registration], Sequence[str]]:
    if not any(snapshot.schedulers for snapshot in exam.snapshots):
        raise NothingToCheckError("the queues have no schedulers")
    found, total = read_registrations(exam.client, exam.snapshots, full=exam.full)
    scope = exam.coverage(f"{len(found):,} of {total:,} schedulers")
    return found, [scope] if len(found) < total else []


def _job(each: Registration) -> tuple[QueueKeys, str, str, str]:
    """The queue, name, times and data ("" if unknown) of the jobs that a scheduler makes."""
    data = "" if each.is_legacy else each.fields.get("data", "{}")
    return each.keys, each.fields.get("name", each.id), each.timing, data


def _examples(found: Sequence[Registration]) -> dict[str, object]:
    return examples("schedulers", [each.id for each in found])
