"""Runs the checks of ``qctl doctor``: problems of queues, workers, processes and Redis.

A check writes nothing. Each check is one function in the file of its subject. If a check fails, its
failure is a finding, and the other checks go on. The cost of a check is bounded: where a queue may
hold millions of jobs, the check reads a sample and reports the sample's size (docs/doctor.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from qctl.config.prefixes import Prefixes, only
from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.errors import FailedError, QctlError, ReplyError, UnreachableError, is_outage
from qctl.ops.doctor import (
    growth,
    jobs,
    processes,
    queues,
    redis,
    schedulers,
    trends,
    workers,
)
from qctl.ops.doctor.examination import Check, Examination, name_of
from qctl.ops.doctor.findings import (
    SEVERITIES,
    CannotCheckError,
    CheckResult,
    Diagnosis,
    Examined,
    Finding,
    NothingToCheckError,
    Subject,
    denied,
)
from qctl.ops.doctor_errors import DoctorMemory
from qctl.ops.processes.targets import Target, open_target, read_connections
from qctl.ops.queues.find import Queues, all_queues, read_queues
from qctl.ops.queues.missing import no_such_queue
from qctl.ops.queues.names import server_id
from qctl.ops.queues.select import choose_queues
from qctl.ops.queues.served import select_served, under_other_prefixes
from qctl.wire.keys import QueueKeys
from qctl.wire.read.snapshot import QueueSnapshot

CHECKS: tuple[Check, ...] = (
    redis.eviction,
    redis.persistence,
    redis.memory,
    redis.redis_version,
    redis.clock,
    redis.replica,
    redis.cluster_prefix,
    redis.moving_slots,
    queues.unreadable,
    queues.bull_queues,
    queues.paused,
    queues.resumes_at_start,
    queues.legacy_paused,
    queues.groups,
    queues.global_concurrency,
    queues.mixed_versions,
    jobs.stalled,
    jobs.gone_workers,
    jobs.last_stall,
    jobs.missing_hashes,
    jobs.lost_jobs,
    jobs.stale_deduplications,
    jobs.stuck_parents,
    schedulers.dead_schedulers,
    schedulers.overdue_schedulers,
    schedulers.duplicate_schedulers,
    schedulers.outdated_schedulers,
    schedulers.legacy_repeatables,
    workers.no_workers,
    workers.not_fetching,
    workers.overdue_jobs,
    workers.worker_names,
    workers.unnamed_workers,
    workers.unlisted_workers,
    processes.kill_timeout,
    processes.signal_path,
    processes.stop_signal,
    processes.treekill,
    processes.process_names,
    processes.stopped_apps,
    processes.crash_loops,
    growth.event_streams,
    growth.kept_finished_jobs,
    trends.growing_backlog,
    trends.failure_rate,
    trends.host_clocks,
)


# How checks can end, the most important first.
_BY_RANK = ("failed", "found", "ok", "skipped")


def examine(
    client: Client,
    address: Address,
    settings: Settings,
    names: Sequence[str] = (),
    *,
    target: str | None = None,
    full: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Diagnosis:
    """Run every check on the named queues, or on all queues under the prefixes.

    Args:
        target: examine only this target's processes. If ``names`` is empty, examine only the queues
            that these processes serve.
        full: read every job and key instead of samples; slow where there are many.
        sleep: called to wait between the two readings that some checks make.

    Raises:
        NotFoundError: a named queue or the target does not exist, or there is no queue at all.
        UsageError: qctl does not know the target's manager, or the target serves queues only
            under other prefixes.
        FailedError: the target does not run.
        UnreachableError: Redis, or the target's process manager, does not answer.
    """
    # Read the queues before the target, so that a misspelt queue is reported as such.
    queues = _queues(client, settings.prefixes, names) if names or not target else None
    found = open_target(settings, target) if target else None
    left_out: Collection[QueueKeys] = ()
    if queues is None and found is not None:
        served, left_out = _served_by(client, address, settings, found)
        queues = _read(client, served) if served else None
    by_prefix = (queues or _queues(client, settings.prefixes, ())).by_prefix()
    exams = [
        Examination(
            client=client,
            address=address,
            settings=settings.under(prefix),
            queues=own,
            chosen=None if found is None else found.processes,
            full=full,
            sleep=sleep,
            is_alone=len(by_prefix) == 1,
        )
        for prefix, own in by_prefix.items()
    ]
    diagnosis = _merged([(exam.settings.prefix, _diagnose(exam)) for exam in exams])
    examined = replace(
        diagnosis.examined, left_out=tuple(keys.full_name for keys in sorted(left_out))
    )
    return replace(diagnosis, examined=examined)


def remember_errors(
    client: Client, address: Address, settings: Settings, diagnosis: Diagnosis
) -> None:
    """Store the errors that a run on all queues has found. ``qctl status`` mentions them."""
    memory = DoctorMemory(settings.state_home, address, settings.prefixes, server_id(client))
    errors = [found.title for found in diagnosis.findings if found.severity == "error"]
    memory.remember(errors)


def _diagnose(exam: Examination) -> Diagnosis:
    """Run every check on the queues of one prefix."""
    findings: list[Finding] = []
    results = []
    for check in CHECKS:
        result, own = _run(check, exam)
        results.append(result)
        findings += own
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Diagnosis(tuple(findings), tuple(results), _examined(exam))


def _merged(diagnoses: Sequence[tuple[str, Diagnosis]]) -> Diagnosis:
    """The diagnoses of several prefixes as one, in which queues are called ``NAME@PREFIX``."""
    if len(diagnoses) == 1:
        return diagnoses[0][1]
    findings: list[Finding] = []
    for prefix, diagnosis in diagnoses:
        for finding in diagnosis.findings:
            if finding.subject.kind == "queue":
                keys = QueueKeys(prefix, finding.subject.name)
                findings.append(replace(finding, subject=Subject("queue", keys.full_name)))
            elif finding not in findings:
                # A finding about Redis is the same for each prefix.
                findings.append(finding)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    results = []
    for own in zip(*(diagnosis.checks for _, diagnosis in diagnoses), strict=True):
        status = min((result.status for result in own), key=_BY_RANK.index)
        whys = dict.fromkeys(result.why for result in own if result.status == status and result.why)
        results.append(CheckResult(own[0].check, status, "; ".join(whys)))
    sizes = [diagnosis.examined for _, diagnosis in diagnoses]
    workers = [size.workers for size in sizes]
    processes = [size.processes for size in sizes]
    examined = Examined(
        queues=sum(size.queues for size in sizes),
        workers=None if None in workers else sum(filter(None, workers)),
        # The processes of this host are the same for each prefix.
        processes=None if None in processes else max(filter(None, processes), default=0),
    )
    return Diagnosis(tuple(findings), tuple(results), examined)


def _queues(client: Client, prefixes: Prefixes, names: Sequence[str]) -> Queues:
    """The named queues, or all. Unreadable queues are included, because a check reports them."""
    if not names:
        return all_queues(client, prefixes)
    chosen: dict[QueueKeys, QueueSnapshot | ReplyError] = {}
    for each in choose_queues(client, prefixes, names).values():
        chosen |= each
    broken = {keys: error for keys, error in chosen.items() if isinstance(error, ReplyError)}
    for error in broken.values():
        if is_outage(error):
            raise error
    readable = (found for found in chosen.values() if not isinstance(found, ReplyError))
    return Queues(tuple(readable), tuple(broken.items()))


def _read(client: Client, wanted: Collection[QueueKeys]) -> Queues:
    """These queues. Unreadable queues are included, because a check reports them."""
    queues, missing = read_queues(client, sorted(wanted))
    if missing:
        names = [keys.name for keys in missing if keys.prefix == missing[0].prefix]
        raise no_such_queue(client, only(missing[0].prefix), names)
    return queues


def _served_by(
    client: Client, address: Address, settings: Settings, target: Target
) -> tuple[Collection[QueueKeys], Collection[QueueKeys]]:
    """The target's queues under the prefixes in force, and its queues under other prefixes.

    Both are empty if the connected workers cannot be listed.
    """
    try:
        connections = read_connections(client, settings, address.db, target.processes)
    except FailedError:
        # The checks that need the workers report the error.
        return (), ()
    serves = connections.queues_of(target.processes)
    selected, others = select_served(client, settings.prefixes, target, serves)
    if others and not selected:
        raise under_other_prefixes(target, others)
    return selected, others


def _run(check: Check, exam: Examination) -> tuple[CheckResult, list[Finding]]:
    name = name_of(check)
    found: list[Finding] = []
    coverage: list[str] = []
    failure: QctlError
    try:
        for item in check(exam):
            if isinstance(item, str):
                coverage.append(item)
            else:
                found.append(replace(item, check=name))
    except NothingToCheckError as error:
        return CheckResult(name, "skipped", str(error)), found
    except UnreachableError:
        raise
    except ReplyError as error:
        failure = denied(error)
    except QctlError as error:
        failure = error
    except Exception as error:
        # An unexpected error in one check must not hide the findings of the others.
        failure = CannotCheckError(f"unexpected: {type(error).__name__}: {error}")
    else:
        return CheckResult(name, "found" if found else "ok", "; ".join(coverage)), found
    unknown = Finding(
        check=name,
        severity="warning",
        subject=Subject("check", name),
        what=f"could not be checked: {failure.what}",
        remedy=failure.hint,
    )
    return CheckResult(name, "failed", failure.what), [*found, unknown]


def _examined(exam: Examination) -> Examined:
    def size(read: Callable[[], object]) -> int | None:
        try:
            return len(read())  # type: ignore[arg-type]
        except NothingToCheckError:
            return 0
        except CannotCheckError:
            return None

    examined = {snapshot.keys.name for snapshot in exam.queues.readable}
    return Examined(
        queues=len(exam.queues.readable) + len(exam.queues.broken),
        workers=size(lambda: [w for w in exam.workers if w.queue in examined]),
        processes=size(lambda: exam.all_processes if exam.chosen is None else exam.chosen),
    )
