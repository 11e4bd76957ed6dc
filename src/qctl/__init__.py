"""qctl: operate Redis-backed job queues in BullMQ's format, and work on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from qctl.runtime.job import Job, SyncJob
    from qctl.runtime.options import RateLimit
    from qctl.runtime.outcomes import RateLimited, RetryLater, UnrecoverableError, WaitForChildren
    from qctl.runtime.queue import AsyncQueue, Queue
    from qctl.runtime.worker import Worker

# The command line must not pay for the runtime: each name is loaded when it is first used.
_MODULES = {
    "AsyncQueue": "queue",
    "Job": "job",
    "Queue": "queue",
    "RateLimit": "options",
    "RateLimited": "outcomes",
    "RetryLater": "outcomes",
    "SyncJob": "job",
    "UnrecoverableError": "outcomes",
    "WaitForChildren": "outcomes",
    "Worker": "worker",
}

__all__ = [
    "AsyncQueue",
    "Job",
    "Queue",
    "RateLimit",
    "RateLimited",
    "RetryLater",
    "SyncJob",
    "UnrecoverableError",
    "WaitForChildren",
    "Worker",
    "__version__",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module  # noqa: PLC0415

    if name not in _MODULES:
        raise AttributeError(f"module 'qctl' has no attribute {name!r}")
    return getattr(import_module(f"qctl.runtime.{_MODULES[name]}"), name)
