"""Job schedulers, which make jobs at an interval or by a cron pattern (wire format 6).

This module builds the calls that change schedulers, but does not send them; it also reads
schedulers. A scheduler has one pending job: the worker that fetches that job makes the next one
(``next_iteration_call``). So workers in Python and in Node can share a scheduler.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from qctl.connection.address import Arg, Client
from qctl.errors import FailedError, RefusedError, UsageError
from qctl.wire.encoding import (
    OptionSet,
    check_id,
    duration_ms,
    encode_data,
    encode_json,
    encode_name,
    integer,
    option_set,
)
from qctl.wire.keys import QueueKeys, iteration_prefix
from qctl.wire.options import Duration, JobOptions
from qctl.wire.replies import read_json, read_object, to_dict, to_int
from qctl.wire.schedulers.cron import check_pattern, next_time_ms
from qctl.wire.scripts import ScriptCall

# The key of a legacy repeatable job (made by an old version of BullMQ): name:id:endDate:tz:suffix,
# where the suffix is a cron pattern or an interval in ms (wire format 6.6).
_LEGACY_KEY = re.compile(r"[^:]*:[^:]*:\d*:[^:]*:(.* .*|\d+)")
# Skipped due times are counted up to this number.
MAX_SKIPPED = 1000
# ``upsert_scheduler.lua`` answers this if unfinished jobs exist for all due times in the call.
_PATTERN_TIMES_TAKEN = -10
# How many due times of a pattern are passed to ``upsert_scheduler.lua``, and how many due times of
# an interval the script itself computes and tries.
_PATTERN_TIMES, _INTERVAL_TIMES = 2, 32
# Options that a scheduler's next job does not take over from the present one.
_NOT_LASTING = frozenset({"jobId", "delay", "timestamp", "prevMillis", "repeatJobKey", "repeat"})


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a scheduler makes jobs: by ``cron`` or by ``every``.

    Args:
        cron: five fields, or six with seconds first.
        every: an interval, in seconds or as a ``timedelta``.
        tz: the time zone of ``cron``, such as ``Europe/Berlin`` or ``UTC+2``; None or ``local`` for
            the time zone of the process that makes the next job.
        limit: how many jobs the scheduler makes at most.
        start: no job is due before this; epoch ms or a ``datetime`` (a naive one is local time).
        end: no job is due after this; given like ``start``.
        offset: how long after each multiple of ``every`` a job is due; given like ``every``.
        immediately: the first job of ``cron`` is due at once.
    """

    cron: str | None = None
    every: Duration | None = None
    tz: str | None = None
    limit: int | None = None
    start: int | datetime | None = None
    end: int | datetime | None = None
    offset: Duration | None = None
    immediately: bool = False


@dataclass(frozen=True, slots=True)
class Scheduler:
    """A scheduler as it is stored. Times are epoch milliseconds.

    Args:
        next_ms: when the pending job is or was due; None if the stored score is not a time.
        iterations: how many jobs the scheduler has made.
        opts: the options of the scheduler's jobs, as stored.
        package: the Python package whose worker made the scheduler from code (``Worker.cron``);
            None for all others.
    """

    id: str
    name: str
    next_ms: int | None
    iterations: int
    cron: str | None
    every_ms: int | None
    tz: str | None
    offset_ms: int
    limit: int | None
    start_ms: int | None
    end_ms: int | None
    data: Any
    opts: Mapping[str, Any]
    package: str | None = None


def is_legacy_key(scheduler_id: str) -> bool:
    """Whether an id has the form of a legacy repeatable job's key (wire format 6.6)."""
    return _LEGACY_KEY.fullmatch(scheduler_id) is not None


def check_scheduler_id(scheduler_id: str) -> None:
    """Check that a new scheduler may have this id.

    Raises:
        UsageError: it may not.
    """
    check_id(scheduler_id, "a scheduler")
    if is_legacy_key(scheduler_id):
        raise UsageError(
            f"a scheduler cannot have the id {scheduler_id!r}",
            why="it looks like the key of a legacy repeatable job",
        )


def upsert_call(
    keys: QueueKeys,
    scheduler_id: str,
    schedule: Schedule,
    name: str | None,
    data: Any,
    options: JobOptions,
    now_ms: int,
    *,
    package: str = "",
    kept: Mapping[str, Any] = {},
    keeps_due: bool = False,
) -> ScriptCall:
    """The call that makes or changes a scheduler.

    Args:
        name: the name of the jobs; None for the scheduler's id.
        keeps_due: if nothing has changed, leave the scheduler and its waiting job as they are. If
            something has changed, but neither the pattern nor its time zone, the new job gets the
            due time of the waiting job. If False, a job for the pattern's next time replaces the
            waiting job, even if the waiting job is due; BullMQ does the same.
        package: the Python package whose code has the scheduler; stored in the record. "" for none.
        kept: stored options of the jobs, used for the options that ``options`` does not set.

    Raises:
        UsageError: the id, the schedule, or the name, data or options of the jobs are wrong.
    """
    check_scheduler_id(scheduler_id)
    record, repeat, next_times = _encoded(schedule, now_ms)
    template = {**kept, **_template(options, keys.prefix)}
    job_name = encode_name(scheduler_id if name is None else name)
    json_data = encode_data(data)
    if json_data != "{}":
        record["data"] = json_data
    if template:
        record["opts"] = encode_json(template, "an option")
    opts = template | {"repeat": repeat | {"count": 1}, "repeatJobKey": scheduler_id}
    args: list[Arg] = [
        scheduler_id, now_ms, record.get("every", ""), " ".join(map(str, next_times)),
        repeat.get("offset", ""), record.get("startDate", ""), job_name, json_data,
        to_int(template.get("priority")) or 0, "1" if template.get("lifo") else "",
        # Without the last brace, because the script adds fields.
        encode_json(opts, "an option")[:-1], "1" if keeps_due else "", package,
    ]  # fmt: skip
    for field, value in record.items():
        args += (field, value)
    return ScriptCall("upsert_scheduler", keys.whole, tuple(args))


def upserted_id(scheduler_id: str, answer: Any) -> str:
    """The pending job's id, from the answer to ``upsert_call``.

    Raises:
        RefusedError: jobs for the pattern's next due times exist and have not ended.
        FailedError: jobs for the interval's next ``_INTERVAL_TIMES`` due times exist.
    """
    if answer == _PATTERN_TIMES_TAKEN:
        raise RefusedError(
            f"scheduler {scheduler_id} was not changed",
            why="the jobs for its next due times exist already and have not ended",
        )
    if isinstance(answer, int):
        raise FailedError(
            f"scheduler {scheduler_id} was not changed",
            why=f"the jobs for its next {_INTERVAL_TIMES} due times exist already",
        )
    return str(answer[0])


def remove_call(
    keys: QueueKeys, scheduler_id: str, id_prefix: str | None = None, package: str = ""
) -> ScriptCall:
    """The call that removes a scheduler; it answers 1, or 0 if there is no such scheduler.

    Args:
        id_prefix: for a legacy repeatable job, the part of its jobs' ids that precedes the due
            time.
        package: remove the scheduler only if the code of this Python package made it.
    """
    prefix = iteration_prefix(scheduler_id) if id_prefix is None else id_prefix
    return ScriptCall("remove_scheduler", keys.whole, (scheduler_id, prefix, package))


@dataclass(frozen=True, slots=True)
class Template:
    """What a scheduler's jobs are made from; ``data`` is JSON."""

    name: str
    data: str
    opts: Mapping[str, Any]


def template_of(record: Mapping[str, str], pending: Mapping[str, str]) -> Template:
    """What the next job would be made from (wire format 6.4).

    Args:
        record: the scheduler's record.
        pending: the hash of the pending job, empty if that job is gone. The pending job's options
            replace the options in the record.
    """
    opts = read_object(pending.get("opts") if pending else record.get("opts"))
    return Template(
        record.get("name") or pending.get("name", ""),
        record.get("data") or pending.get("data") or "{}",
        lasting_options(opts),
    )


def lasting_options(opts: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a scheduler's next job takes over from the present one."""
    # As in BullMQ, attempts are 0 by default, and a backoff that is a number means a fixed delay.
    found = {"attempts": 0} | {key: opts[key] for key in opts if key not in _NOT_LASTING}
    if isinstance(backoff := found.get("backoff"), int | float):
        found["backoff"] = {"type": "fixed", "delay": backoff}
    return found


def run_now_call(keys: QueueKeys, template: Template, now_ms: int) -> ScriptCall:
    """The call that adds one ordinary job made from the template; it answers ``[id]``.

    The job gets no ``rjk`` and no ``opts.repeat``: with these, a worker would make a next job.
    """
    opts = template.opts
    priority, lifo = str(to_int(opts.get("priority")) or 0), "1" if opts.get("lifo") else ""
    options = OptionSet(encode_json(opts, "an option"), priority=priority, lifo=lifo)
    # The call passes one set of options, and the job uses set number 1.
    args = (now_ms, 1, *options, "1", template.name, template.data)
    return ScriptCall("add", keys.whole, args)


def next_iteration_call(
    keys: QueueKeys, job_id: str, fields: Mapping[str, str], now_ms: int
) -> ScriptCall | None:
    """The call that makes a scheduler's next job, for the worker that has fetched the present one.

    Args:
        fields: the fetched job's hash.

    Returns:
        None if the schedule has ended, or if the job was made by a legacy repeatable job or by no
        scheduler.

    Raises:
        UsageError: qctl does not understand the job's pattern or time zone.
    """
    scheduler_id = fields.get("rjk", "")
    opts = read_object(fields.get("opts"))
    repeat = opts.get("repeat")
    if (
        not scheduler_id
        or not repeat
        or not isinstance(repeat, dict)
        or is_legacy_key(scheduler_id)
    ):
        return None
    iteration = (to_int(repeat.get("count")) or 0) + 1
    limit, end = to_int(repeat.get("limit")), to_int(repeat.get("endDate"))
    if (limit is not None and iteration > limit) or (end is not None and now_ms > end):
        return None
    next_ms = None
    if pattern := repeat.get("pattern"):
        base_ms = max(now_ms, to_int(opts.get("prevMillis")) or 0)
        tz = repeat.get("tz")
        next_ms = next_time_ms(str(pattern), None if tz is None else str(tz), base_ms)
        if next_ms is None or (end is not None and next_ms > end):
            return None
    renewed = lasting_options(opts)
    renewed["repeat"] = {key: repeat[key] for key in repeat if key != "immediately"}
    renewed["repeat"]["count"] = iteration
    renewed["repeatJobKey"] = scheduler_id
    every = to_int(repeat.get("every"))
    args = (
        scheduler_id, job_id, now_ms, "" if every is None else every,
        "" if next_ms is None else next_ms, to_int(repeat.get("offset")) or 0,
        to_int(opts.get("priority")) or 0, "1" if opts.get("lifo") else "",
        # Without the last brace, because the script adds fields.
        encode_json(renewed, "an option")[:-1],
    )  # fmt: skip
    return ScriptCall("next_iteration", keys.whole, args)


def due_times_ms(
    pattern: str | None, tz: str | None, every_ms: int | None, after_ms: int
) -> Iterator[int]:
    """The due times after the due time ``after_ms``. If ``every_ms`` is set, ignores ``pattern``.

    Raises:
        UsageError: qctl does not understand the pattern or the time zone.
    """
    if every_ms:
        # An endless iterator.
        yield from itertools.count(after_ms + every_ms, every_ms)
    due_ms: int | None = after_ms
    while pattern is not None and due_ms is not None:
        if (due_ms := next_time_ms(pattern, tz, due_ms)) is not None:
            yield due_ms


def schedule_has_ended(
    pattern: str | None,
    tz: str | None,
    every_ms: int | None,
    *,
    limit: int | None,
    jobs_made: int,
    end_ms: int | None,
    last_due_ms: int | None,
    now_ms: int,
) -> bool:
    """Whether a scheduler makes no further job, because it reached its limit or its end date.

    False if the end date is in the future and qctl cannot compute the next due time.

    Args:
        last_due_ms: when the scheduler's last job was due; None if unknown.
    """
    if limit is not None and jobs_made >= limit:
        return True
    if end_ms is None:
        return False
    if now_ms > end_ms:
        return True
    if last_due_ms is None or not (pattern or every_ms):
        return False
    try:
        return next(due_times_ms(pattern, tz, every_ms, last_due_ms), end_ms + 1) > end_ms
    except UsageError:
        return False


def skipped_count(
    pattern: str | None, tz: str | None, every_ms: int | None, *, since_ms: int, now_ms: int
) -> int | None:
    """How many due times have passed since the pending job was due (at most ``MAX_SKIPPED``).

    None if there is no interval and no pattern, or if qctl does not understand the pattern or the
    time zone.
    """
    if every_ms:
        return min(max(now_ms - since_ms, 0) // every_ms, MAX_SKIPPED)
    if pattern is None:
        return None
    try:
        due = itertools.islice(due_times_ms(pattern, tz, None, since_ms), MAX_SKIPPED)
        return sum(1 for _ in itertools.takewhile(lambda due_ms: due_ms <= now_ms, due))
    except UsageError:
        return None


def read_schedulers(client: Client, keys: QueueKeys) -> list[Scheduler]:
    """All schedulers of a queue, in the order of their next jobs."""
    listed = client.call(*list_command(keys))
    return parse_schedulers(listed, client.pipeline(record_commands(keys, listed)))


def list_command(keys: QueueKeys) -> tuple[Arg, ...]:
    """The command that lists all schedulers, soonest first: id, due time, id, due time …"""
    return ("ZRANGE", keys("repeat"), 0, -1, "WITHSCORES")


def record_commands(keys: QueueKeys, listed: Sequence[str]) -> list[tuple[Arg, ...]]:
    """The commands that read the records of the schedulers in the reply to ``list_command``."""
    return [("HGETALL", keys.scheduler(scheduler_id)) for scheduler_id in listed[::2]]


def parse_schedulers(listed: Sequence[str], records: Sequence[Any]) -> list[Scheduler]:
    """The schedulers in the replies to ``list_command`` and ``record_commands``; no legacy ones."""
    found = (
        parse_scheduler(scheduler_id, score, to_dict(flat) if isinstance(flat, list) else {})
        for (scheduler_id, score), flat in zip(to_dict(listed).items(), records, strict=True)
    )
    return [scheduler for scheduler in found if scheduler is not None]


def parse_scheduler(scheduler_id: str, score: str, fields: Mapping[str, str]) -> Scheduler | None:
    """The scheduler with this record; None for a legacy repeatable job or an empty record."""
    if "ic" not in fields:
        return None
    return Scheduler(
        id=scheduler_id,
        name=fields.get("name", scheduler_id),
        next_ms=to_int(score),
        iterations=to_int(fields["ic"]) or 0,
        cron=fields.get("pattern"),
        every_ms=to_int(fields.get("every")),
        tz=fields.get("tz"),
        offset_ms=to_int(fields.get("offset")) or 0,
        limit=to_int(fields.get("limit")),
        start_ms=to_int(fields.get("startDate")),
        end_ms=to_int(fields.get("endDate")),
        data=read_json(fields.get("data"), {})[0],
        opts=read_object(fields.get("opts")),
        package=fields.get("qctl"),
    )


def _encoded(schedule: Schedule, now_ms: int) -> tuple[dict[str, str], dict[str, Any], list[int]]:
    """The record's fields, ``opts.repeat``, and a pattern's next due times (none for ``every``)."""
    if (schedule.cron is None) == (schedule.every is None):
        raise UsageError("a scheduler needs either cron or every")
    if schedule.immediately and schedule.start is not None:
        raise UsageError("a scheduler cannot have both immediately and start")
    if schedule.cron is None and schedule.tz is not None:
        raise UsageError("only a scheduler with cron can have tz")
    start_ms, end_ms = _epoch_ms(schedule.start, "start"), _epoch_ms(schedule.end, "end")
    if end_ms is not None and end_ms <= max(now_ms, start_ms or 0):
        raise UsageError("end must be later than now and than start")
    limit = integer(schedule.limit, "limit")
    if limit is not None and limit < 1:
        raise UsageError("limit must be 1 or more")
    every_ms = None if schedule.every is None else duration_ms(schedule.every, "every")
    if every_ms == 0:
        raise UsageError("every must be 1 ms or more")
    offset = None if schedule.offset is None else duration_ms(schedule.offset, "offset")
    next_times = _next_times(schedule, max(now_ms, start_ms or 0), end_ms)
    if schedule.immediately and schedule.cron is not None:
        next_times.insert(0, now_ms)
    repeat = {
        "pattern": schedule.cron,
        "every": every_ms,
        "tz": schedule.tz,
        "limit": limit,
        "startDate": start_ms,
        "endDate": end_ms,
        "offset": offset,
    }
    repeat = {field: value for field, value in repeat.items() if value is not None}
    # The script itself stores the offset: if none is given, it computes one.
    record = {field: str(value) for field, value in repeat.items() if field != "offset"}
    return record, repeat, next_times


def _next_times(schedule: Schedule, after_ms: int, end_ms: int | None) -> list[int]:
    """The pattern's next two due times: if the first has an unfinished job, the second is used."""
    if schedule.cron is None:
        return []
    check_pattern(schedule.cron)
    due = itertools.islice(due_times_ms(schedule.cron, schedule.tz, None, after_ms), _PATTERN_TIMES)
    times = [due_ms for due_ms in due if end_ms is None or due_ms <= end_ms]
    if not times:
        before_end = "" if end_ms is None else " before the scheduler's end"
        raise UsageError(f"the pattern {schedule.cron!r} is never due{before_end}")
    return times


def _epoch_ms(value: int | datetime | None, what: str) -> int | None:
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000)
    return integer(value, what)


def _template(options: JobOptions, prefix: str) -> dict[str, Any]:
    """The jobs' options for the record."""
    for name in ("delay", "job_id", "dedup", "timestamp_ms", "parent"):
        if getattr(options, name) is not None:
            raise UsageError(f"{name} is not an option of a scheduler's jobs")
    template = read_object(option_set(options, prefix).opts)
    if options.attempts is None:
        # BullMQ does not store the default value of attempts in the record.
        del template["attempts"]
    return template
