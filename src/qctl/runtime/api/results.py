"""Waits until a job has ended, and returns its result.

The events of the queue are followed first, and then the job's hash is read, so a job that ends
between the two is not missed. A few changes have no event (a job that BullMQ's ``clean`` deletes),
and events may be trimmed, so the hash is also read every ``POLL_S``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

from qctl.connection.address import Client
from qctl.errors import FailedError, NotFoundError, QctlError, TimedOutError, is_outage
from qctl.runtime.api.access import Access, AsyncAccess
from qctl.wire.events import last_event_id, read_events
from qctl.wire.keys import QueueKeys
from qctl.wire.read.ending import (
    Ending,
    ending_from_events,
    ending_of,
    ending_reads,
    parse_ending,
    read_ending,
)

# The longest time between two reads of the job.
POLL_S = 5.0
# The pause between two attempts to reach Redis again.
RETRY_S = 0.5


class JobFailedError(FailedError):
    """The job has failed, and will not be retried.

    Attributes:
        reason: the job's failed reason, as the worker stored it; "" if it is no longer known.
    """

    def __init__(self, what: str, reason: str | None) -> None:
        super().__init__(what, why=reason or "its reason is not known")
        self.reason = reason or ""


class JobRemovedError(NotFoundError):
    """The job, or its result, is no longer in Redis."""


class ResultTimeoutError(TimedOutError, TimeoutError):
    """The job had not ended when the time was up. The job goes on."""


def wait_for_result(access: Access, job_id: str, timeout_s: float | None) -> Any:
    """Wait in this thread; see ``JobHandle.result``."""
    ending = access.call(read_ending, job_id)
    wait = _Wait(access.keys, job_id, ending, timeout_s)
    if wait.goes_on:
        with contextlib.closing(access.new_client()) as client:
            cursors = {access.keys: last_event_id(client, access.keys)}
            while wait.goes_on:
                with wait.patience():
                    wait.ending = read_ending(client, access.keys, job_id)
                    if not wait.ending.is_final:
                        wait.ending = _next_ending(client, cursors, wait) or wait.ending
                if wait.outage:
                    time.sleep(min(RETRY_S, wait.pause_s))
    return wait.result()


def _next_ending(client: Client, cursors: dict[QueueKeys, str], wait: _Wait) -> Ending | None:
    """How the job ends, from the events of the next ``POLL_S``; None if they do not show it."""
    until = time.monotonic() + wait.pause_s
    while (left_s := until - time.monotonic()) > 0:
        events = read_events(client, cursors, block_ms=max(int(left_s * 1000), 1))
        for _, event in events:
            if event.job_id == wait.job_id and (ending := ending_of(event)):
                return ending
    return None


async def await_result(access: AsyncAccess, job_id: str, timeout_s: float | None) -> Any:
    """Wait on the running event loop; see ``AsyncJobHandle.result``."""
    wait = _Wait(access.keys, job_id, await _read(access, job_id), timeout_s)
    if wait.goes_on:
        watch = access.endings.get()
        future = await watch.add(job_id)
        try:
            while wait.goes_on:
                with wait.patience():
                    wait.ending = await _read(access, job_id)
                if wait.goes_on:
                    await asyncio.wait([future], timeout=wait.pause_s)
                if future.done():
                    wait.ending = future.result()
        finally:
            watch.discard(job_id, future)
    return wait.result()


class _Wait:
    """One wait for the end of a job.

    Attributes:
        ending: how the job ended, or where it was when it was last read.
        outage: the error of the last read, if Redis was away.
    """

    def __init__(
        self, keys: QueueKeys, job_id: str, ending: Ending, timeout_s: float | None
    ) -> None:
        self.job_id = job_id
        self.ending = ending
        self.outage: QctlError | None = None
        self._keys = keys
        self._timeout_s = float("inf") if timeout_s is None else timeout_s
        self._deadline = time.monotonic() + self._timeout_s

    @property
    def goes_on(self) -> bool:
        """Whether the job has not ended, and there is time left."""
        return not self.ending.is_final and time.monotonic() < self._deadline

    @property
    def pause_s(self) -> float:
        """The time until the next read of the job."""
        return max(min(self._deadline - time.monotonic(), POLL_S), 0.001)

    @contextlib.contextmanager
    def patience(self) -> Iterator[None]:
        """Around a read: note an outage of Redis instead of raising it."""
        self.outage = None
        try:
            yield
        except QctlError as error:
            if not is_outage(error):
                raise
            self.outage = error

    def result(self) -> Any:
        """What the job returned. If there is no result, raise an error that says why."""
        ending = self.ending
        job = f"job {self.job_id} of queue {self._keys.name}"
        if not ending.is_final:
            if self.outage is not None:
                raise self.outage
            raise ResultTimeoutError(
                f"{job} has not ended within {self._timeout_s:g} s", why=f"it is {ending.state}"
            )
        if ending.state == "failed":
            raise JobFailedError(f"{job} failed", ending.failed_reason)
        if ending.state == "removed":
            raise JobRemovedError(f"{job} was removed before it had ended")
        if ending.state == "missing":
            raise JobRemovedError(
                f"{job} does not exist",
                why="it never existed, or was removed, and the events about it are no longer kept",
            )
        if ending.value_is_lost:
            raise JobRemovedError(
                f"{job} has completed, and its result is no longer kept",
                why="the job was removed, and the event with its result was trimmed",
                hint="keep ended jobs for longer: remove_on_complete=Keep(age_s=3600)",
            )
        return ending.returnvalue


async def _read(access: AsyncAccess, job_id: str) -> Ending:
    connection = await access.connection()
    ending = parse_ending(await connection.pipeline(ending_reads(access.keys, job_id)))
    if ending is not None:
        return ending
    return await access.call(ending_from_events, job_id)
