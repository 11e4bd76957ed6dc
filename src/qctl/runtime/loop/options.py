"""The options of a ``Worker``, checked once."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from qctl.errors import UsageError
from qctl.runtime.job.policy import KEEP_ALL, CustomBackoff

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``jobs`` starts in ``per_s`` seconds, counted over all workers with this limit.

    ``WorkerOptions`` checks that both numbers are above 0.
    """

    jobs: int
    per_s: float


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The options of a ``Worker``; the docstring of ``Worker`` explains them.

    Args:
        keep_completed, keep_failed: the rule for jobs that have no rule of their own; the result of
            ``keep_rule``.

    Raises:
        UsageError: the name has a blank or is not printable ASCII, or a number is too small.
    """

    concurrency: int = 1
    name: str = ""
    lock_ttl_s: float = 30.0
    stalled_interval_s: float = 30.0
    max_stalled_count: int = 1
    max_started_attempts: int | None = None
    drain_delay_s: float = 5.0
    rate_limit: RateLimit | None = None
    keep_completed: str = KEEP_ALL
    keep_failed: str = KEEP_ALL
    metrics_minutes: int | None = None
    blocked_after_s: float = 5.0
    backoffs: Mapping[str, CustomBackoff] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("concurrency", "lock_ttl_s", "stalled_interval_s", "drain_delay_s"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} must be above 0, not {getattr(self, name)}")
        if not all("!" <= character <= "~" for character in self.name):
            # Redis accepts no other characters in the name of a connection.
            raise UsageError(
                f"a worker's name must be printable ASCII without blanks, not {self.name!r}"
            )
        if self.rate_limit and (self.rate_limit.jobs <= 0 or self.rate_limit.per_s <= 0):
            raise UsageError("a rate limit needs jobs and per_s above 0")


def default_name() -> str:
    """Return a worker name that no other worker has: ``HOST-PID-N``."""
    # Redis accepts only printable ASCII without blanks in the name of a connection.
    host = "".join(c if "!" <= c <= "~" else "-" for c in socket.gethostname())
    return f"{host}-{os.getpid()}-{next(_numbers)}"
