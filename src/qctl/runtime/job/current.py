"""The job that the running code belongs to."""

from __future__ import annotations

from contextvars import ContextVar

from qctl.runtime.job.job import Job

_current: ContextVar[Job | None] = ContextVar("qctl_job", default=None)
# Called once per run of a job, in the job's own task, thread or process.
set_current_job = _current.set


def current_job() -> Job | None:
    """Return the job whose handler called this function, directly or not; None outside of a job.

    It also works in middleware, in tasks that the handler starts, and in threads started with
    ``asyncio.to_thread``. A plain ``def`` handler cannot await the methods of the returned job. It
    should read only the job's attributes, and call the methods of its own ``job`` argument: these
    methods block.
    """
    return _current.get()
