"""Adds one job from the command line, with the same calls as the runtime's ``Queue.add``."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from qctl.connection.address import Client
from qctl.durations import duration_s, parse_duration_s
from qctl.errors import NotFoundError, UsageError
from qctl.ops.processes.suggest import command
from qctl.ops.queues.find import find_queues, require_bullmq
from qctl.ops.queues.status import count_workers
from qctl.ops.times import utc_datetime
from qctl.wire import scripts
from qctl.wire.encoding import duration_ms, parse_backoff
from qctl.wire.keys import QueueKeys
from qctl.wire.options import Dedup, Keep
from qctl.wire.read.locate import locate
from qctl.wire.read.snapshot import QueueSnapshot
from qctl.wire.write.adding import NewJob, add_calls, added_job, check_queue_name

# Python cannot read a number of more than 4,300 digits. This limit costs nothing: a Node.js worker
# reads any number of more than 309 digits as Infinity.
_MAX_DIGITS = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class AddReport:
    """What ``jobs add`` did, or would do.

    Args:
        id: the id of the new job, or of the existing job if nothing was added. None in a dry run if
            the queue would give the job a number.
        outcome: ``added``; or, if nothing was added, ``exists`` (there was a job with this id) or
            ``deduplicated`` (there was a job with this deduplication id).
        state: the first state of a new job, or the current state of an existing job; None if that
            job is in no state.
        created_queue: whether the queue did not exist before.
        remarks: why the job may not run soon.
    """

    queue: str
    id: str | None
    name: str
    outcome: str
    state: str | None
    due_at: datetime | None
    created_queue: bool
    remarks: tuple[str, ...]
    dry_run: bool


def add_job(
    client: Client,
    prefix: str,
    queue: str,
    job: NewJob,
    *,
    db: int = 0,
    create: bool = False,
    dry_run: bool = False,
) -> AddReport:
    """Add ``job`` to ``queue``.

    Args:
        db: the number of the database; workers connected to another database do not count.
        create: create the queue if it does not exist. False by default: the name may be mistyped.

    Raises:
        NotFoundError: the queue is missing and ``create`` is False, or the parent job is missing.
        RefusedError: the queue belongs to Bull 3 or 4, or the job exists and has another parent.
        UsageError: an option is wrong.
    """
    check_queue_name(queue)
    snapshot = _find(client, prefix, queue, create=create)
    keys = QueueKeys(prefix, queue)
    now_ms = time.time_ns() // 1_000_000
    delay_ms = 0 if job.delay is None else duration_ms(job.delay, "delay")
    due_at = utc_datetime(now_ms + delay_ms)
    if due_at is None:
        raise UsageError(
            "the delay is too long",
            why="the job would be due after the year 9999",
        )
    calls = add_calls(keys, [job], now_ms)
    if dry_run:
        job_id, outcome = _foresee(client, keys, job)
    else:
        answers = [scripts.run_call(client, call) for call in calls]
        done = added_job(job, answers)
        job_id, outcome = done.id, done.outcome
    if not delay_ms:
        due_at = None
    state: str | None = "delayed" if delay_ms else "prioritized" if job.priority else "waiting"
    if outcome != "added" and job_id is not None:
        found = locate(client, keys, job_id)
        state = found.state
        due_at = utc_datetime(found.due_ms)
    return AddReport(
        queue=queue,
        id=job_id,
        name=job.name,
        outcome=outcome,
        state=state,
        due_at=due_at,
        created_queue=snapshot is None,
        remarks=run_remarks(client, keys, snapshot, db) if outcome == "added" else (),
        dry_run=dry_run,
    )


def _find(client: Client, prefix: str, queue: str, *, create: bool) -> QueueSnapshot | None:
    try:
        (snapshot,) = find_queues(client, prefix, [queue])
    except NotFoundError as error:
        if create:
            return None
        raise NotFoundError(
            error.what,
            why=f"{error.why}\nadding a job would create the queue",
            hint="if the name is right, repeat the command with --create",
        ) from None
    require_bullmq([snapshot], hint="use Bull's own queue.add()")
    return snapshot


def run_remarks(
    client: Client, keys: QueueKeys, snapshot: QueueSnapshot | None, db: int
) -> tuple[str, ...]:
    """Why a job that was just added may not run soon."""
    found = []
    if snapshot is not None and snapshot.paused:
        pauser = f" by {snapshot.pause_note}" if snapshot.pause_note else ""
        resume = command(keys.prefix, "resume", keys.name)
        found.append(f"queue {keys.name} is paused{pauser}: the job runs after `{resume}`")
    running = 0 if snapshot is None else snapshot.counts.running
    if count_workers(client, keys, db, running) == 0:
        found.append(f"no worker of queue {keys.name} is connected")
    return tuple(found)


def _foresee(client: Client, keys: QueueKeys, job: NewJob) -> tuple[str | None, str]:
    """The id and the outcome that an add would have now."""
    if job.job_id and client.call("EXISTS", keys(job.job_id)):
        return job.job_id, "exists"
    if job.dedup is not None:
        owner = client.call("GET", keys.dedup(job.dedup.id))
        if owner is not None:
            return str(owner), "deduplicated"
    return job.job_id, "added"


# Parsing of the options


def parse_data(text: str | None) -> Any:
    """The payload in ``--data``.

    Raises:
        UsageError: the text is not JSON, is nested too deeply, or is null.
    """
    if text is None:
        return None
    try:
        data = json.loads(text, parse_constant=_refuse_constant, parse_int=_parse_int)
    except RecursionError:
        raise UsageError("--data is nested too deeply") from None
    except ValueError as error:
        raise UsageError(
            "--data is not JSON",
            why=str(error),
            hint="""--data '{"to": "ada"}', --data @FILE, or --data - for stdin""",
        ) from None
    if data is None:
        # Probably a mistake: `jq .payload` prints null if there is no such field.
        raise UsageError(
            "--data is null",
            why="a job without data has {}",
            hint="leave out --data if the job needs none",
        )
    return data


def _parse_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits is more than a worker can read")
    return int(digits)


def _refuse_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def check_backoff(text: str | None) -> str | None:
    """The text of ``--backoff``, checked.

    Raises:
        UsageError: the text is not a backoff.
    """
    if text is None:
        return None
    try:
        parse_backoff(text)
    except UsageError:
        raise UsageError(
            f"--backoff {text!r} is not understood",
            why="a backoff is a kind (fixed, exponential or a name known to the worker) and a time",
            hint="--backoff exponential:60s or --backoff fixed:500ms",
        ) from None
    return text


def parse_keep(text: str | None, flag: str) -> bool | int | Keep | None:
    """The rule in ``--remove-on-complete`` or ``--remove-on-fail``.

    ``true`` removes a job at once, ``false`` never; ``100`` keeps 100 jobs, ``24h`` keeps each job
    for 24 hours, and ``100,24h`` keeps 100 jobs, each for at most 24 hours.

    Raises:
        UsageError: the text is not such a rule.
    """
    if text is None:
        return None
    if text in ("true", "false"):
        return text == "true"
    count: int | None = None
    age_s: float | None = None
    for part in text.split(","):
        if part.isascii() and part.isdigit() and count is None and len(part) < _MAX_DIGITS:
            count = int(part)
        elif age_s is None and duration_s(part, unit_required=True) is not None:
            age_s = parse_duration_s(part, flag)
        else:
            raise UsageError(
                f"{flag} {text!r} is not understood",
                why="the rule is true (remove at once), false (never), a number of jobs to keep, a "
                "time for which to keep them, or both",
                hint=f"{flag} true, {flag} 1000, {flag} 24h or {flag} 1000,24h",
            )
    if age_s is None:
        return count
    if age_s < 1 or age_s != int(age_s):
        raise UsageError(f"{flag} {text!r}: BullMQ counts the time in whole seconds, from 1 s")
    return Keep(count=count, age_s=int(age_s))


def parse_dedup(text: str | None) -> Dedup | None:
    """The value of ``--dedup``: ``ID`` or ``ID:TTL``.

    The TTL needs a unit, so that an id may end in a colon and a number.

    Raises:
        UsageError: there is no id.
    """
    if text is None:
        return None
    head, colon, tail = text.rpartition(":")
    dedup = Dedup(text)
    if colon and duration_s(tail, unit_required=True) is not None:
        dedup = Dedup(head, ttl_s=parse_duration_s(tail, "the TTL of --dedup"))
    if not dedup.id:
        raise UsageError(f"--dedup {text!r} has no id", hint="--dedup user-7, or --dedup user-7:5s")
    return dedup
