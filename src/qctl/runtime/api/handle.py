"""A job that was added: its id, with methods that ask Redis about the job."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, Self, TypeVar

from qctl.runtime.api.access import Access, AsyncAccess
from qctl.runtime.api.jobs import cancel_job, promote_job, read_job, remove_job
from qctl.runtime.api.results import await_result, wait_for_result

_A = TypeVar("_A", Access, AsyncAccess)


class _Handle(str, Generic[_A]):
    __slots__ = ("_access",)
    _access: _A

    @classmethod
    def of(cls, ids: Iterable[str], access: _A) -> list[Self]:
        """The handles of jobs; only a queue makes handles."""
        # A loop, because a constructor of our own would cost 3 % of a bulk add.
        handles = []
        for job_id in ids:
            handle = cls(job_id)
            handle._access = access
            handles.append(handle)
        return handles

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


class JobHandle(_Handle[Access]):
    """The id of a job of a ``Queue``: a ``str`` that also has the methods below.

        handle = queue.add("resize", {"file": 7})
        print(handle.result(timeout_s=30))

    A pickled or copied handle is a plain ``str``; ``Queue.handle(id)`` makes a handle of it.
    """

    __slots__ = ()

    def result(self, timeout_s: float | None = None) -> Any:
        """Wait until the job has ended, and return what its handler returned.

        A job that ended before this call is found as long as Redis has the job, or the event about
        its end: BullMQ keeps about 10,000 events of a queue. The result of a job that is removed
        when it completes (``remove_on_complete``) comes from that event. If Redis has neither the
        job nor the event, this method raises a ``JobRemovedError``. If Redis is away for a part of
        the wait, the wait goes on.

        Args:
            timeout_s: the longest wait in seconds; None waits for ever, 0 only looks.

        Raises:
            JobFailedError: the job has failed, and is not retried; ``reason`` says why.
            JobRemovedError: the job was removed before it had ended, or its result is gone.
            ResultTimeoutError: the time is up; the job goes on. It is a kind of ``TimeoutError``.
            UnreachableError: Redis is away at the start, or when the time is up.
            ReplyError: Redis refuses a command.
        """
        return wait_for_result(self._access, self, timeout_s)

    def status(self) -> str:
        """Read the job's state, as in ``JobInfo``; ``missing`` if the job is gone."""
        found = self._access.call(read_job, self)
        return found.state if found else "missing"

    def remove(self) -> bool:
        """Delete the job, unless a worker runs it. Return False if it does not exist.

        A parent that waited only for this job continues.

        Raises:
            RefusedError: a worker runs the job, its children have not ended, or it is the next job
                of a scheduler.
        """
        return self._access.call(remove_job, self)

    def promote(self) -> bool:
        """Run a delayed job now. Return False if the job is not delayed, or does not exist."""
        return self._access.call(promote_job, self)

    def cancel(self, reason: str = "") -> bool:
        """Cancel the job, and wait until that is done. Return False if it had ended already.

        A job that has not started is deleted. If the job runs on a qctl worker, its handler gets
        an ``asyncio.CancelledError`` within 1.5 s; if the handler has ``isolate=True``, its process
        is killed instead. The job then fails without a retry, for the reason ``cancelled: REASON``.

        Raises:
            RefusedError: the job waits for its children, is the next job of a scheduler, or runs in
                a thread, which cannot be interrupted. Or the job's worker did not answer within
                5 s. A Node worker never answers, because BullMQ can cancel a job only in the
                worker's own process.
            TimedOutError: the handler was cancelled, and has not ended within 10 s.
        """
        return self._access.call_alone(cancel_job, self, reason)


class AsyncJobHandle(_Handle[AsyncAccess]):
    """The id of a job of an ``AsyncQueue``: a ``str`` that also has the methods of ``JobHandle``.

        handle = await queue.add("resize", {"file": 7})
        print(await handle.result(timeout_s=30))

    In one event loop, all handles that wait for results share one connection for the events.
    """

    __slots__ = ()

    async def result(self, timeout_s: float | None = None) -> Any:
        """Wait until the job has ended; see ``JobHandle.result``."""
        return await await_result(self._access, self, timeout_s)

    async def status(self) -> str:
        """Read the job's state; see ``JobHandle.status``."""
        found = await self._access.call(read_job, self)
        return found.state if found else "missing"

    async def remove(self) -> bool:
        """Delete the job; see ``JobHandle.remove``."""
        return await self._access.call(remove_job, self)

    async def promote(self) -> bool:
        """Run a delayed job now; see ``JobHandle.promote``."""
        return await self._access.call(promote_job, self)

    async def cancel(self, reason: str = "") -> bool:
        """Cancel the job, and wait until that is done; see ``JobHandle.cancel``."""
        return await self._access.call_alone(cancel_job, self, reason)
