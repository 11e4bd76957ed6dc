"""The error for a job that does not exist."""

from __future__ import annotations

from qctl.errors import NotFoundError
from qctl.ops.processes.suggest import command
from qctl.wire.keys import QueueKeys


def not_found(keys: QueueKeys, job_id: str, state: str | None) -> NotFoundError:
    """The error for an id without a job hash; ``state`` is the state that still has the id."""
    if state is not None:
        return NotFoundError(
            f"job {job_id!r} of queue {keys.name!r} has no record",
            why=f"its id is still in {state!r}, but its data is gone from Redis: "
            "deleted by hand, or evicted",
            hint=command(keys.prefix, "jobs", "list", keys.name, "--state", state),
        )
    return NotFoundError(
        f"no job {job_id!r} in queue {keys.name!r}",
        why="it never existed, or was removed when it finished "
        "(removeOnComplete, removeOnFail) or by hand",
        hint=command(keys.prefix, "jobs", "list", keys.name, "--state", "failed"),
    )
