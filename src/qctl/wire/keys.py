"""Names of a queue's keys (wire format 2.1), and of qctl's own keys about it."""

from __future__ import annotations

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

    def __call__(self, suffix: str) -> str:
        """The queue's key ``suffix``, e.g. ``wait`` or a job id."""
        return f"{self.prefix}:{self.name}:{suffix}"

    @property
    def whole(self) -> tuple[str, str]:
        """``KEYS[1]`` and ``KEYS[2]`` of a script that may use any key of the queue.

        While a cluster moves a slot, a script runs only on a node that has all of its ``KEYS``. The
        first of these never exists, so the script runs nowhere until the move has ended: on either
        node, a part of the queue would look like all of it. That key alone would not be enough: a
        script with a single key runs on the node that the slot moves to.
        """
        return (self(""), self("meta"))

    def lock(self, job_id: str) -> str:
        return self(f"{job_id}:lock")

    def logs(self, job_id: str) -> str:
        return self(f"{job_id}:logs")

    def processed(self, job_id: str) -> str:
        """What the job's finished children returned."""
        return self(f"{job_id}:processed")

    def ignored_failures(self, job_id: str) -> str:
        """Why children of the job failed whose failure does not count."""
        return self(f"{job_id}:failed")

    def dedup(self, dedup_id: str) -> str:
        """The id of the job that owns a deduplication id."""
        return self(f"de:{dedup_id}")

    def scheduler(self, scheduler_id: str) -> str:
        return self(f"repeat:{scheduler_id}")

    # qctl's own keys are never under PFX:Q:, where BullMQ's removal of orphans deletes them. A hash
    # tag in the prefix or the name still keeps them in the queue's slot.

    @property
    def lease(self) -> str:
        """Held by the drain that works on this queue; expires by itself."""
        return f"qctl:lease:{self.prefix}:{self.name}"

    @property
    def pause_note(self) -> str:
        """Who paused this queue through qctl, when and why; deleted when it is resumed."""
        return f"qctl:paused:{self.prefix}:{self.name}"


# Suffixes of the queue's own keys, which a job cannot have as its id.
OWN_KEYS = frozenset(
    {
        *("id", "meta", "wait", "paused", "active", "prioritized", "delayed", "waiting-children"),
        *("completed", "failed", "stalled", "stalled-check", "marker", "events", "pc", "limiter"),
        *("repeat", "priority", "delay"),
    }
)

# What the ids of schedulers' jobs begin with (wire format 6.2).
ITERATION_PREFIX = "repeat:"


def iteration_prefix(scheduler_id: str) -> str:
    """The id of a scheduler's job, up to the time at which it is due, epoch ms."""
    return f"{ITERATION_PREFIX}{scheduler_id}:"


# A job: its queue and its id.
JobKey = tuple[QueueKeys, str]


def job_of(key: str, prefix: str) -> JobKey | None:
    """The queue and id in the full key of a job; None if it is under another prefix.

    A queue's name has no colon; an id may have one.
    """
    name, _, job_id = key.removeprefix(f"{prefix}:").partition(":")
    if not key.startswith(f"{prefix}:") or not job_id:
        return None
    return QueueKeys(prefix, name), job_id


def worker_heartbeat(owner: str) -> str:
    """A hash about one of qctl's own workers; expires soon after its last beat.

    Args:
        owner: what all the worker's lock tokens begin with.
    """
    return f"qctl:worker:{owner}"


def worker_index(prefix: str) -> str:
    """A sorted set: owners of the workers under a prefix, by their last beat in epoch ms."""
    return f"qctl:workers:{prefix}"


def drain_record(prefix: str) -> str:
    """A hash: how the drains under a prefix ended, and what they saw. It never expires."""
    return f"qctl:drains:{prefix}"
