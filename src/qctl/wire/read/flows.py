"""The jobs of flows: a parent, its children in any queue, and their states (wire format 5.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.connection.address import Arg, Client
from qctl.wire.jobs import parse_lock
from qctl.wire.keys import JobKey, QueueKeys, job_of
from qctl.wire.read.children import child_keys
from qctl.wire.read.locate import states_in_lists
from qctl.wire.replies import checked, read_groups, read_object, value_or
from qctl.wire.states import SORTED_SETS

_FIELDS = ("name", "timestamp", "failedReason", "parentKey", "parent")
# The keys in which a parent lists its children, each with the command that counts them.
_COUNTS = {"dependencies": "SCARD", "unsuccessful": "ZCARD", "failed": "HLEN", "processed": "HLEN"}
# The most jobs for which one call searches whole lists. To search a long list for one job takes up
# to 20 ms.
_MAX_SEARCHES = 20
# A key with more colons is not split.
_MAX_COLONS = 12


@dataclass(frozen=True, slots=True)
class FlowJob:
    """A job of a flow.

    Args:
        state: one of ``STATES``. None if the job is in no state, or somewhere in a long list that
            was not searched.
        exists: whether the job has a hash, or is in some state.
        parent_key: the full key of its parent; "" if it has none.
        parent: queue and id of its parent; None if it has none, or if they are unknown.
        children: how many children it lists, ended or not.
    """

    name: str
    state: str | None
    exists: bool
    failed_reason: str | None
    parent_key: str
    parent: JobKey | None
    children: int


@dataclass(frozen=True, slots=True)
class ListedChild:
    """A child as its parent lists it.

    Args:
        job: its queue and id; None if they are unknown.
        ended: ``completed`` or ``failed`` if the parent has noted that; None if it has not.
    """

    key: str
    job: JobKey | None
    ended: str | None


def read_flow_jobs(client: Client, jobs: Sequence[JobKey]) -> list[FlowJob]:
    """Read some jobs of any queues, in three round trips.

    A job that moves from one state to another meanwhile may look as if it were in none.
    """
    reads: list[list[tuple[Arg, ...]]] = [
        [
            ("HMGET", keys(job_id), *_FIELDS),
            ("GET", keys.lock(job_id)),
            *((command, keys(f"{job_id}:{name}")) for name, command in _COUNTS.items()),
            *(("ZSCORE", keys(name), job_id) for name in SORTED_SETS),
        ]
        for keys, job_id in jobs
    ]
    rows = read_groups(client, reads)
    # Like BullMQ, search the lists before ``waiting-children``, which is the last of SORTED_SETS.
    states = {
        job: name
        for job, row in zip(jobs, rows, strict=True)
        for name, score in reversed([*zip(SORTED_SETS, row[-len(SORTED_SETS) :], strict=True)])
        if checked(score) is not None
    }
    left = [job for job in jobs if states.get(job, SORTED_SETS[-1]) == SORTED_SETS[-1]]
    states |= states_in_lists(client, left, max_searches=_MAX_SEARCHES)
    found = []
    for job, (fields, token, *rest) in zip(jobs, rows, strict=True):
        name, timestamp, reason, parent_key, parent = value_or(fields, [None] * len(_FIELDS))
        state = states.get(job)
        if state == "active" and parse_lock(token, -1)[0] is None:
            state = "stalled"
        found.append(
            FlowJob(
                name=name or "",
                state=state,
                exists=state is not None or timestamp is not None,
                failed_reason=reason if state == "failed" else None,
                parent_key=parent_key or "",
                parent=parent_of(parent_key or "", parent, job[0].prefix),
                children=sum(value_or(count, 0) for count in rest[: len(_COUNTS)]),
            )
        )
    return found


def parent_of(parent_key: str, parent: str | None, prefix: str) -> JobKey | None:
    """Queue and id of a parent, from the fields of its child; None if they are unknown.

    Args:
        parent: the field ``parent`` of the child.
        prefix: the child's key prefix.
    """
    found = read_object(parent)
    queue, job_id = found.get("queueKey"), found.get("id")
    if queue and job_id and f"{queue}:{job_id}" == parent_key:
        # A queue's name has no colon.
        parent_prefix, _, name = str(queue).rpartition(":")
        return QueueKeys(parent_prefix, name), str(job_id)
    return job_of(parent_key, prefix)


def list_children(client: Client, job: JobKey, limit: int) -> list[ListedChild]:
    """At most ``limit`` children of a job: completed children last, otherwise in any order."""
    keys, job_id = job
    listed: dict[str, str] = {}
    for suffix, found in child_keys(client, keys(job_id)):
        for key in found:
            listed.setdefault(key, suffix)
        if len(listed) >= limit:
            break
    ended = {"dependencies": None, "processed": "completed"}
    chosen = [*listed.items()][:limit]
    jobs = _split(client, [key for key, _ in chosen], keys.prefix)
    return [
        ListedChild(key, child, ended.get(suffix, "failed"))
        for (key, suffix), child in zip(chosen, jobs, strict=True)
    ]


def _split(client: Client, keys: Sequence[str], prefix: str) -> list[JobKey | None]:
    """The queues and ids in full keys of jobs; None if unknown.

    Prefixes and ids may have colons. So a key that does not begin with ``prefix`` can be split in
    several ways. If the queue exists for only one of these ways, this is the right way.
    """
    ways = [_ways(key, prefix) for key in keys]
    unsure = [way for group in ways if len(group) > 1 for way in group]
    commands: list[tuple[Arg, ...]] = [
        ("EXISTS", queue(name)) for queue, _ in unsure for name in ("meta", "events")
    ]
    replies = iter([bool(checked(reply)) for reply in client.pipeline(commands)])
    exists = {queue: [next(replies), next(replies)] for queue, _ in unsure}
    found: list[JobKey | None] = []
    for group in ways:
        likely = [way for way in group if len(group) == 1 or any(exists[way[0]])]
        found.append(likely[0] if len(likely) == 1 else None)
    return found


def _ways(key: str, prefix: str) -> list[JobKey]:
    if (own := job_of(key, prefix)) is not None:
        return [own]
    parts = key.split(":")
    if len(parts) > _MAX_COLONS:
        return []
    return [
        (QueueKeys(":".join(parts[:at]), parts[at]), ":".join(parts[at + 1 :]))
        for at in range(1, len(parts) - 1)
    ]
