"""Names of a queue's keys (wire format 2.1), and of qctl's own keys about queues and workers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class QueueKeys:
    """All key names of one queue.

    Args:
        prefix: BullMQ's key prefix, ``bull`` by default; may contain any character.
        name: the queue's name, which has no colon.
    """

    prefix: str
    name: str

    @property
    def full_name(self) -> str:
        """``NAME@PREFIX``, as a command line takes it."""
        return f"{self.name}@{self.prefix}"

    def label(self, prefix: str | None) -> str:
        """The queue's name if its prefix is ``prefix``, else its full name."""
        return self.name if self.prefix == prefix else self.full_name

    def __call__(self, suffix: str) -> str:
        """The full key for a suffix, which is e.g. ``wait`` or a job id."""
        return f"{self.prefix}:{self.name}:{suffix}"

    @property
    def whole(self) -> tuple[str, str]:
        """``KEYS[1]`` and ``KEYS[2]`` of a script that may use any key of the queue.

        While a cluster moves a slot, a part of the queue is on the old node and a part on the new
        node. A script must not run on one part alone. During the move, each of these nodes refuses
        a script if a key in ``KEYS`` is not on that node. The first key is on no node, because it
        never exists, so the script runs only after the move. The second key is needed because the
        new node would not refuse a script with a single key.
        """
        return (self(""), self("meta"))

    def lock(self, job_id: str) -> str:
        return self(f"{job_id}:lock")

    def logs(self, job_id: str) -> str:
        return self(f"{job_id}:logs")

    def processed(self, job_id: str) -> str:
        """The hash with the return values of the job's completed children."""
        return self(f"{job_id}:processed")

    def ignored_failures(self, job_id: str) -> str:
        """The hash with the failed children that the job ignores, and why each of them failed."""
        return self(f"{job_id}:failed")

    def dedup(self, dedup_id: str) -> str:
        """The key that holds the id of the job which owns a deduplication id."""
        return self(f"de:{dedup_id}")

    def scheduler(self, scheduler_id: str) -> str:
        return self(f"repeat:{scheduler_id}")

    # qctl's own keys do not begin with PREFIX:NAME:, because BullMQ's removal of orphans would
    # delete them. A hash tag in the prefix or the name still keeps them in the queue's slot.

    @property
    def lease(self) -> str:
        """The key that says which drain works on this queue; it expires."""
        return f"qctl:lease:{self.prefix}:{self.name}"

    @property
    def pause_note(self) -> str:
        """The key that says who paused this queue with qctl, and when; qctl's resume deletes it."""
        return f"qctl:paused:{self.prefix}:{self.name}"

    @property
    def cancel_requests(self) -> str:
        """The hash of requests to cancel running jobs; see ``wire/write/cancelling.py``."""
        return f"qctl:cancel:{self.prefix}:{self.name}"


def common_prefix(queues: Iterable[QueueKeys]) -> str | None:
    """The prefix of all these queues; None if they have several prefixes, or there are none."""
    prefixes = {keys.prefix for keys in queues}
    return prefixes.pop() if len(prefixes) == 1 else None


# Suffixes of the queue's own keys. A job cannot have any of these as its id.
OWN_KEYS = frozenset(
    {
        *("id", "meta", "wait", "paused", "active", "prioritized", "delayed", "waiting-children"),
        *("completed", "failed", "stalled", "stalled-check", "marker", "events", "pc", "limiter"),
        *("repeat", "priority", "delay"),
    }
)

# The id of every job that was made by a scheduler begins with this (wire format 6.2).
ITERATION_PREFIX = "repeat:"


def iteration_prefix(scheduler_id: str) -> str:
    """All ids of a scheduler's jobs begin with this; the due time in epoch ms follows."""
    return f"{ITERATION_PREFIX}{scheduler_id}:"


# A job: its queue and its id.
JobKey = tuple[QueueKeys, str]


def job_of(key: str, prefix: str) -> JobKey | None:
    """The queue and the id in the full key of a job; None if the key has another prefix, or no id.

    A queue's name has no colon, but an id may have colons.
    """
    name, _, job_id = key.removeprefix(f"{prefix}:").partition(":")
    if not key.startswith(f"{prefix}:") or not job_id:
        return None
    return QueueKeys(prefix, name), job_id


def worker_heartbeat(owner: str) -> str:
    """The hash about one of qctl's own workers; it expires soon after the worker's last heartbeat.

    All lock tokens of the worker begin with ``owner``.
    """
    return f"qctl:worker:{owner}"


def worker_index(prefix: str) -> str:
    """The sorted set of the ``owner`` of each worker; its score is the last heartbeat, epoch ms."""
    return f"qctl:workers:{prefix}"


def drain_record(prefix: str) -> str:
    """The hash that records how the drains under a prefix ended; it never expires."""
    return f"qctl:drains:{prefix}"
