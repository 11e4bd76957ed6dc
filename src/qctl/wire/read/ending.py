"""How a job ended, from its state or, if the job was removed at its end, from its events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qctl.connection.address import Arg, Client
from qctl.wire.events import Event, past_events
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import checked, read_checked, read_json, value_or
from qctl.wire.states import FINISHED, SORTED_SETS

# If a job is gone, at most this many events are searched; BullMQ keeps about 10,000.
MAX_EVENTS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a job ended, or where it is.

    Args:
        state: ``completed``, ``failed``, ``removed``, ``missing`` (no hash, and no event about its
            end in the last ``MAX_EVENTS``), or where the job is: ``delayed``, ``prioritized``,
            ``waiting-children``, ``active`` (if it has a lock) or ``waiting`` (anywhere else,
            including stalled jobs).
        returnvalue: of a completed job.
        failed_reason: of a failed job; None if it is no longer known.
        value_is_lost: whether the job has completed and its return value is no longer known.
    """

    state: str
    returnvalue: Any = None
    failed_reason: str | None = None
    value_is_lost: bool = False

    @property
    def is_final(self) -> bool:
        return self.state in FINISHED or self.state in {"removed", "missing"}


def read_ending(client: Client, keys: QueueKeys, job_id: str) -> Ending:
    """How the job ended, or where it is; one round trip, unless the job is gone.

    No list is searched, so the length of the queue does not matter.
    """
    ending = parse_ending(client.pipeline(ending_reads(keys, job_id)))
    return ending or ending_from_events(client, keys, job_id)


def ending_reads(keys: QueueKeys, job_id: str) -> list[tuple[Arg, ...]]:
    """The commands of ``read_ending``; see ``parse_ending``."""
    return [
        *(("ZSCORE", keys(name), job_id) for name in SORTED_SETS),
        ("HMGET", keys(job_id), "timestamp", "returnvalue", "failedReason"),
        ("EXISTS", keys.lock(job_id)),
    ]


def parse_ending(replies: Sequence[Any]) -> Ending | None:
    """The ending in the replies to ``ending_reads``; None if the job is gone.

    Then only events may show how the job ended (``ending_from_events``).
    """
    *scores, fields, lock = replies
    # Every job has a timestamp; other hashes of the queue, such as ``meta``, have none.
    made_at, returnvalue, failed_reason = value_or(fields, (None, None, None))
    places = zip(SORTED_SETS, map(checked, scores), strict=True)
    state = next((name for name, score in places if score is not None), None)
    if state is None and made_at is None:
        return None
    is_completed = state == "completed"
    return Ending(
        state=state or ("active" if checked(lock) else "waiting"),
        returnvalue=read_json(returnvalue, None)[0] if is_completed else None,
        failed_reason=failed_reason if state == "failed" else None,
        value_is_lost=is_completed and made_at is None,
    )


def ending_of(event: Event) -> Ending | None:
    """How a job ended, from an event; None if the event ends no job.

    BullMQ writes a ``failed`` event only if the job is not retried.
    """
    fields = event.fields
    if event.name == "completed":
        value = read_json(fields.get("returnvalue"), None)[0]
        return Ending(state="completed", returnvalue=value)
    if event.name == "failed":
        return Ending(state="failed", failed_reason=fields.get("failedReason"))
    if event.name == "removed":
        # ``prev`` is the state in which the job was removed.
        previous = fields.get("prev", "")
        return Ending(
            state=previous if previous in FINISHED else "removed",
            value_is_lost=previous == "completed",
        )
    return None


def ending_from_events(client: Client, keys: QueueKeys, job_id: str) -> Ending:
    """How a job ended, from its newest events. The job's hash must be gone.

    The caller checks the hash before this function reads the events: the script that deletes a job
    also writes its event, so once the hash is gone, the event is in the stream.
    """
    removed = None
    for index, event in enumerate(past_events(client, keys)):
        if index == MAX_EVENTS:
            break
        ending = ending_of(event) if event.job_id == job_id else None
        if ending is None:
            continue
        if event.name != "removed" or ending.state == "removed":
            return ending
        # The job had ended before it was removed; an older event may contain its result.
        removed = removed or ending
    return removed or Ending(state="missing")


def has_ended(client: Client, keys: QueueKeys, job_id: str) -> bool:
    """Whether the job is completed, failed or gone."""
    scores = [("ZSCORE", keys(state), job_id) for state in FINISHED]
    completed, failed, exists = read_checked(client, [*scores, ("EXISTS", keys(job_id))])
    return completed is not None or failed is not None or not exists
