"""Replaces a legacy repeatable job with a job scheduler (wire format 6.6).

The scheduler takes over the times, data and options. The scheduler's first job gets the due time of
the repeatable's pending job. One script makes the whole replacement, so that the schedule is never
missing and never there twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from qctl.connection.address import Client
from qctl.wire import scripts
from qctl.wire.encoding import encode_json
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import read_object, to_dict, to_int
from qctl.wire.schedulers.iterations import Iteration, Registered
from qctl.wire.schedulers.scheduling import lasting_options
from qctl.wire.scripts import ScriptCall
from qctl.wire.states import DELAY_FACTOR

# A search for a pending job reads at most this many delayed jobs, all due in the same millisecond.
_MAX_SEARCHED = 1000
# States of a pending job that still waits. In the state ``unknown`` this is not certain, so the
# script looks for the job.
PENDING = frozenset({"delayed", "waiting", "prioritized", "unknown"})


@dataclass(frozen=True, slots=True, kw_only=True)
class NewScheduler:
    """The scheduler that replaces a repeatable. Times are epoch milliseconds.

    Args:
        pattern, every_ms: exactly one of the two is set.
        next_ms: when its first job is due.
    """

    id: str
    name: str
    pattern: str | None
    every_ms: int | None
    tz: str | None
    limit: int | None
    start_ms: int | None
    end_ms: int | None
    next_ms: int


def with_pending_job(client: Client, keys: QueueKeys, entry: Registered) -> Registered:
    """Return the entry, if possible with a pending job whose hash exists.

    The pending job's id in the entry may be a wrong guess. So if no hash has this id, look for the
    job among the delayed jobs. If that finds nothing, the entry stays as it is.
    """
    if entry.pending.fields or entry.next_ms is None:
        return entry
    first, last = entry.next_ms * DELAY_FACTOR, (entry.next_ms + 1) * DELAY_FACTOR - 1
    ids = client.call("ZRANGEBYSCORE", keys("delayed"), first, last, "LIMIT", 0, _MAX_SEARCHED)
    for job_id in ids:
        if client.call("HGET", keys(job_id), "rjk") == entry.id:
            fields = to_dict(client.call("HGETALL", keys(job_id)))
            return replace(entry, pending=Iteration(job_id, "delayed", fields))
    return entry


def migrate(
    client: Client, keys: QueueKeys, entry: Registered, new: NewScheduler, now_ms: int
) -> str:
    """Replace the repeatable ``entry``, whose pending job's hash exists.

    Returns:
        the id of the scheduler's pending job; or, if nothing was changed, ``changed``, ``running``
        or ``taken`` (see ``migrate_repeatable.lua``).
    """
    return str(scripts.run_call(client, _call(keys, entry, new, now_ms)))


def _call(keys: QueueKeys, entry: Registered, new: NewScheduler, now_ms: int) -> ScriptCall:
    fields = entry.pending.fields
    opts = read_object(fields.get("opts"))
    repeat = opts.get("repeat")
    count = to_int(repeat.get("count")) if isinstance(repeat, dict) else None
    data = fields.get("data") or "{}"
    timing: dict[str, Any] = {
        "pattern": new.pattern,
        "every": new.every_ms,
        "tz": new.tz,
        "limit": new.limit,
        "startDate": new.start_ms,
        "endDate": new.end_ms,
    }
    timing = {field: value for field, value in timing.items() if value is not None}
    lasting = lasting_options(opts)
    job_opts = lasting | {
        "repeat": timing | {"count": count or 1},
        "repeatJobKey": new.id,
    }
    template = {key: value for key, value in lasting.items() if key != "attempts" or value}
    record = {
        "name": new.name,
        "ic": str(count or 1),
        "offset": str(new.next_ms % new.every_ms if new.every_ms else 0),
        **{field: str(value) for field, value in timing.items()},
    }
    if data != "{}":
        record["data"] = data
    if template:
        record["opts"] = encode_json(template, "an option")
    is_pending = entry.pending.state in PENDING
    args = (
        entry.id, str(entry.next_ms), entry.pending.id, "1" if is_pending else "",
        new.id, new.next_ms, now_ms, new.name, data,
        str(to_int(opts.get("priority")) or 0), "1" if opts.get("lifo") else "",
        encode_json(job_opts, "an option")[:-1], "1" if new.pattern is not None else "",
        *(word for pair in record.items() for word in pair),
    )  # fmt: skip
    return ScriptCall("migrate_repeatable", keys.whole, args)
