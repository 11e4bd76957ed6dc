"""A job's data and options as BullMQ stores them (wire format 3.2 and 3.3).

Every function raises UsageError if a value does not fit the function's docstring. ``what`` is the
name of the value in the message.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from enum import Enum
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

from qctl.durations import duration_s
from qctl.errors import UsageError
from qctl.similar import similar_names
from qctl.wire.keys import OWN_KEYS
from qctl.wire.options import Backoff, Dedup, Duration, JobOptions, Keep, OnFailure, Parent
from qctl.wire.replies import MAX_INTEGER

MAX_PRIORITY = 2**21 - 1
_BACKOFF_KINDS = ("exponential", "fixed")


def _to_json(value: Any) -> Any:
    """Turn a value whose type JSON lacks, such as a dataclass or a date, into a JSON value."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if hasattr(value, "model_dump"):  # of pydantic, which may not be installed
        return value.model_dump(mode="json")
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    from decimal import Decimal  # noqa: PLC0415 - 4 ms that most processes need not pay
    from uuid import UUID  # noqa: PLC0415

    if isinstance(value, UUID | Decimal):
        return str(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_ENCODER = json.JSONEncoder(
    separators=(",", ":"), allow_nan=False, ensure_ascii=False, default=_to_json
)
_POLICY_NAMES = {
    OnFailure.FAIL_PARENT: "fpof",
    OnFailure.CONTINUE_PARENT: "cpof",
    OnFailure.IGNORE_DEPENDENCY: "idof",
    OnFailure.REMOVE_DEPENDENCY: "rdof",
}


class OptionSet(NamedTuple):
    """Options for a script; ``special`` is "", or JSON with the rare options that add.lua lists."""

    opts: str
    timestamp: str = ""
    delay: str = "0"
    priority: str = "0"
    lifo: str = ""
    special: str = ""


def encode_json(value: Any, what: str) -> str:
    """A value as compact JSON; see ``_to_json`` for types that JSON does not have."""
    try:
        text = _ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{what} is not JSON", why=str(error)) from None
    if text.isascii() or _is_utf8(text):
        return text
    # UTF-8 cannot represent a lone surrogate, but JSON can, as an escape.
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def encode_data(data: Any) -> str:
    """A job's data as JSON; ``{}`` for None, as in BullMQ."""
    return "{}" if data is None else encode_json(data, "the job's data")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def valid_text(text: str) -> str:
    """Text as valid Unicode.

    A surrogate pair becomes the character that it stands for; a lone surrogate becomes U+FFFD.
    """
    if text.isascii() or _is_utf8(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def check_id(id_: str, what: str) -> None:
    """Check that an id, which becomes part of a key, is valid Unicode and not empty."""
    if not isinstance(id_, str) or not id_ or valid_text(id_) != id_:
        raise UsageError(
            f"{what} cannot have the id {id_!r}",
            why="an id must be a string of valid Unicode, and not empty",
        )


def duration_ms(value: Duration, what: str) -> int:
    """A duration of 0 s or more, in whole milliseconds."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise UsageError(f"{what} must be a number of seconds or a timedelta, not {value!r}")
    if not math.isfinite(seconds) or seconds < 0 or seconds * 1000 > MAX_INTEGER:
        raise UsageError(f"{what} must be from 0 s to {MAX_INTEGER // 1000:,} s, not {value!r}")
    return round(seconds * 1000)


def parse_backoff(value: Backoff | str) -> Backoff:
    """``"exponential:60s"`` as a ``Backoff``; the duration needs a unit."""
    if isinstance(value, Backoff):
        return value
    kind, _, delay = str(value).partition(":")
    delay_s = duration_s(delay, unit_required=True)
    if isinstance(value, str) and kind and delay_s is not None:
        return Backoff(kind, delay_s)
    is_number = isinstance(value, int | float)
    raise UsageError(
        f"a backoff of {value!r} is not understood",
        why="a number alone has no unit" if is_number else "",
        hint=f'for example backoff="fixed:{value}s" or "fixed:{value}ms"'
        if is_number
        else 'for example backoff="exponential:60s", "fixed:500ms" or Backoff(…)',
    )


def check_job_id(job_id: str) -> None:
    """Check that a job's id follows wire format 3.3 and is not one of ``OWN_KEYS``."""
    if not isinstance(job_id, str):
        raise UsageError(f"a job id must be a string, not {job_id!r}")
    check_id(job_id, "a job")
    why = ""
    # The pattern takes up to 16 digits, as many as MAX_INTEGER has.
    if re.fullmatch(r"0|-?[1-9][0-9]{0,15}", job_id) and abs(int(job_id)) <= MAX_INTEGER:
        why = "whole numbers are the ids of jobs that are added without an id"
    # BullMQ accepts an id with two colons, but treats an id that begins with "0:" as a marker.
    elif job_id.startswith("0:") or (":" in job_id and job_id.count(":") != 2):
        why = "colons separate the parts of a key"
    elif job_id in OWN_KEYS:
        why = "the queue itself has a key of this name"
    if why:
        raise UsageError(f"a job cannot have the id {job_id!r}", why=why)


_FIELDS = tuple(field.name for field in fields(JobOptions))
_values = attrgetter(*_FIELDS)


def option_set(options: JobOptions, prefix: str) -> OptionSet:
    """The encoded options of a job, from a cache if possible."""
    if options.extra is not None or options.job_id:
        # Not cached: ``extra`` cannot be hashed, and options with a job's id are used only once.
        return _encode(prefix, *_values(options))
    try:
        return _encode_cached(prefix, *_values(options))
    except TypeError:
        # A value cannot be hashed, for example a dict.
        return _encode(prefix, *_values(options))


def _encode(prefix: str, *values: Any) -> OptionSet:
    o = JobOptions(**dict(zip(_FIELDS, values, strict=True)))
    if o.job_id:
        check_job_id(o.job_id)
    delay_ms = 0 if o.delay is None else duration_ms(o.delay, "delay")
    priority = integer(o.priority, "priority", MAX_PRIORITY) or 0
    opts: dict[str, Any] = {"attempts": integer(o.attempts, "attempts", minimum=1) or 0}
    given = {
        "delay": None if o.delay is None else delay_ms,
        "priority": o.priority,
        "backoff": None if o.backoff is None else _backoff(parse_backoff(o.backoff)),
        "jobId": o.job_id or None,
        "lifo": o.lifo or None,
        "removeOnComplete": keep_option(o.remove_on_complete, "remove_on_complete"),
        "removeOnFail": keep_option(o.remove_on_fail, "remove_on_fail"),
        "timestamp": integer(o.timestamp_ms, "timestamp_ms"),
        "kl": integer(o.keep_logs, "keep_logs"),
        "stackTraceLimit": integer(o.stack_trace_limit, "stack_trace_limit"),
    }
    opts |= {name: value for name, value in given.items() if value is not None}
    special: dict[str, Any] = {"id": o.job_id} if o.job_id else {}
    policy = {} if o.on_failure is None else {_policy(o.on_failure): True}
    opts |= policy
    if o.parent is not None:
        if not isinstance(o.parent, Parent):
            raise UsageError(f"parent must be a Parent(…), not {o.parent!r}")
        queue_key = f"{prefix}:{o.parent.queue}"
        opts["parent"] = {"id": o.parent.id, "queue": queue_key}
        parent = {"id": o.parent.id, "queueKey": queue_key} | policy
        special["parent_key"] = f"{queue_key}:{o.parent.id}"
        special["parent"] = encode_json(parent, "parent")
    if o.dedup is not None:
        if o.parent is not None:
            raise UsageError("a job with a parent cannot be deduplicated")
        opts["de"] = special["dedup"] = _dedup(o.dedup)
    if o.extra:
        if refused := sorted(set(o.extra) & _NOT_EXTRA):
            raise UsageError(
                f"extra cannot contain {', '.join(refused)}",
                hint="set these with their own arguments, and a schedule with upsert_scheduler()",
            )
        opts |= o.extra
    return OptionSet(
        encode_json(opts, "an option"),
        "" if o.timestamp_ms is None else str(o.timestamp_ms),
        str(delay_ms),
        str(priority),
        "1" if o.lifo else "",
        encode_json(special, "an option") if special else "",
    )


# ``typed``, because True and 1 are equal in Python, but as options they mean different things.
_encode_cached = lru_cache(maxsize=512, typed=True)(_encode)

# Options that qctl sets from its own arguments, so ``extra`` must not contain them.
_NOT_EXTRA = frozenset(
    {
        *("attempts", "delay", "priority", "backoff", "jobId", "lifo", "timestamp"),
        *("stackTraceLimit", "removeOnComplete", "removeOnFail", "kl", "keepLogs", "parent"),
        *("de", "deduplication", "debounce", "fpof", "cpof", "idof", "rdof"),
        *("failParentOnFailure", "continueParentOnFailure", "ignoreDependencyOnFailure"),
        *("removeDependencyOnFailure", "repeat", "repeatJobKey", "prevMillis"),
    }
)


def encode_name(name: str) -> str:
    """A job's name, which may be any string, as valid Unicode."""
    if not isinstance(name, str):
        raise UsageError(f"a job's name must be a string, not {name!r}")
    return valid_text(name)


def integer(
    value: int | None, what: str, maximum: int = MAX_INTEGER, *, minimum: int = 0
) -> int | None:
    """A whole number from ``minimum`` to ``maximum``, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        raise UsageError(
            f"{what} must be a whole number from {minimum} to {maximum}, not {value!r}"
        )
    return value


def _backoff(backoff: Backoff) -> dict[str, Any]:
    _check_backoff_kind(backoff)
    found: dict[str, Any] = {"type": backoff.kind}
    if backoff.delay_s is not None:
        found["delay"] = duration_ms(backoff.delay_s, "the delay of backoff")
    if backoff.jitter is not None:
        if not 0 <= backoff.jitter <= 1:
            raise UsageError(f"jitter must be between 0 and 1, not {backoff.jitter!r}")
        found["jitter"] = backoff.jitter
    return found


def _check_backoff_kind(backoff: Backoff) -> None:
    """Refuse a built-in kind that has no delay, and a name that looks like a misspelled one."""
    kind = backoff.kind
    if not isinstance(kind, str) or not kind:
        raise UsageError(f"the kind of a backoff must be a text, not {kind!r}")
    if kind in _BACKOFF_KINDS:
        if backoff.delay_s is None:
            raise UsageError(
                f"a backoff of the kind {kind!r} needs a delay", hint=f'backoff="{kind}:10s"'
            )
        return
    # Any other kind may be a custom backoff of the worker, for example "fixed2" or "slow-fixed".
    for near in similar_names(kind, _BACKOFF_KINDS, cutoff=0.85):
        if kind.isalpha() and not kind.startswith(near):
            raise UsageError(
                f"there is no backoff of the kind {kind!r}",
                hint=f"did you mean {near!r}? Give a custom backoff a name that differs more",
            )


def keep_option(value: Any, what: str) -> Any:
    """``removeOnComplete`` or ``removeOnFail`` as BullMQ stores it.

    Args:
        value: True, False, a number of jobs, a ``Keep``, None, or a mapping with the keys
            ``count``, ``age`` and ``limit``, as in BullMQ.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return integer(value, what)
    if isinstance(value, Mapping) and value.keys() <= {"count", "age", "limit"}:
        value = Keep(value.get("count"), value.get("age"), value.get("limit"))
    if not isinstance(value, Keep):
        raise UsageError(
            f"{what} cannot be {value!r}", hint="True, False, a number of jobs, or Keep(…)"
        )
    found = {
        "count": integer(value.count, f"{what}.count"),
        "age": integer(value.age_s, f"{what}.age_s"),
        "limit": integer(value.limit, f"{what}.limit"),
    }
    return {name: number for name, number in found.items() if number is not None}


def _policy(value: OnFailure | str) -> str:
    try:
        return _POLICY_NAMES[OnFailure(value)]
    except ValueError:
        raise UsageError(
            f"on_failure must be one of {', '.join(OnFailure)}, not {value!r}"
        ) from None


def _dedup(dedup: Dedup) -> dict[str, Any]:
    if not isinstance(dedup, Dedup):
        raise UsageError(f"dedup must be a Dedup(…), not {dedup!r}")
    check_id(dedup.id, "a deduplication")
    found: dict[str, Any] = {"id": dedup.id}
    if dedup.ttl_s is not None:
        found["ttl"] = duration_ms(dedup.ttl_s, "ttl_s")
    flags = {
        "extend": dedup.extend,
        "replace": dedup.replace,
        "keepLastIfActive": dedup.keep_last_if_active,
        "reschedule": dedup.reschedule,
    }
    return found | {name: True for name, is_set in flags.items() if is_set}
