"""``WorkerState``: what ``Worker.state`` returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerState:
    """The state of a worker at one moment.

    Args:
        name: the worker's name in CLIENT LIST, and in the field ``pb`` of its jobs.
        owner: the worker's id; each of its lock tokens is ``OWNER:NUMBER``.
        quiet: whether the worker is stopping and fetches no more jobs.
        limited: whether a rate limit pauses fetching.
        since_fetch_s: seconds since the last successful fetch; None if no fetch has succeeded.
    """

    queue: str
    prefix: str
    name: str
    owner: str
    concurrency: int
    busy: int
    quiet: bool
    limited: bool
    completed: int
    failed: int
    since_fetch_s: float | None
