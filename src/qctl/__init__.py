"""qctl: operate BullMQ job queues in Redis, add jobs to them, and run workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from qctl.runtime.api.handle import AsyncJobHandle, JobHandle
    from qctl.runtime.api.jobs import JobInfo
    from qctl.runtime.api.queue import AsyncQueue, Queue
    from qctl.runtime.api.results import JobFailedError, JobRemovedError, ResultTimeoutError
    from qctl.runtime.api.worker import Worker
    from qctl.runtime.job.current import current_job
    from qctl.runtime.job.job import Job, SyncJob
    from qctl.runtime.job.outcomes import (
        RateLimited,
        RetryLater,
        UnrecoverableError,
        WaitForChildren,
    )
    from qctl.runtime.logs import JobFields
    from qctl.runtime.loop.options import RateLimit
    from qctl.wire.events import Event
    from qctl.wire.options import Backoff, Dedup, Keep, OnFailure, Parent
    from qctl.wire.write.adding import AddedJob, FlowJob, NewJob

# Loaded when first used, so that the command line does not load the runtime.
_MODULES = {
    "runtime.api.handle": ("AsyncJobHandle", "JobHandle"),
    "runtime.api.jobs": ("JobInfo",),
    "runtime.api.queue": ("AsyncQueue", "Queue"),
    "runtime.api.results": ("JobFailedError", "JobRemovedError", "ResultTimeoutError"),
    "runtime.api.worker": ("Worker",),
    "runtime.job.current": ("current_job",),
    "runtime.job.job": ("Job", "SyncJob"),
    "runtime.job.outcomes": ("RateLimited", "RetryLater", "UnrecoverableError", "WaitForChildren"),
    "runtime.logs": ("JobFields",),
    "runtime.loop.options": ("RateLimit",),
    "wire.events": ("Event",),
    "wire.options": ("Backoff", "Dedup", "Keep", "OnFailure", "Parent"),
    "wire.write.adding": ("AddedJob", "FlowJob", "NewJob"),
}

__all__ = [
    "AddedJob",
    "AsyncJobHandle",
    "AsyncQueue",
    "Backoff",
    "Dedup",
    "Event",
    "FlowJob",
    "Job",
    "JobFailedError",
    "JobFields",
    "JobHandle",
    "JobInfo",
    "JobRemovedError",
    "Keep",
    "NewJob",
    "OnFailure",
    "Parent",
    "Queue",
    "RateLimit",
    "RateLimited",
    "ResultTimeoutError",
    "RetryLater",
    "SyncJob",
    "UnrecoverableError",
    "WaitForChildren",
    "Worker",
    "__version__",
    "current_job",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    from importlib import import_module  # noqa: PLC0415

    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"qctl.{module}"), name)
    raise AttributeError(f"module 'qctl' has no attribute {name!r}")
