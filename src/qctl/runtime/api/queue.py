"""``Queue`` and ``AsyncQueue``: add jobs, flows and schedulers, and ask for jobs.

``Queue`` blocks; ``AsyncQueue`` is for event loops. Both connect on first use, and send the same
calls to Redis (``wire/write/adding.py``, ``wire/schedulers/scheduling.py``).
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from datetime import datetime
from typing import Any, Self, Unpack

from qctl.config.prefixes import escaped
from qctl.config.settings import load_settings
from qctl.connection.address import Client
from qctl.runtime.api.access import Access, AsyncAccess
from qctl.runtime.api.events import follow, follow_async
from qctl.runtime.api.handle import AsyncJobHandle, JobHandle
from qctl.runtime.api.jobs import DEFAULT_LIMIT, JobInfo, list_jobs, read_counts, read_job
from qctl.runtime.api.telemetry import J, Telemetry, traced
from qctl.runtime.loop.connection import AsyncConnection
from qctl.wire.events import Event
from qctl.wire.keys import QueueKeys
from qctl.wire.options import Duration, JobKeywords, JobOptions
from qctl.wire.read.snapshot import Counts
from qctl.wire.schedulers import scheduling
from qctl.wire.schedulers.scheduling import Schedule, Scheduler
from qctl.wire.scripts import ScriptCall
from qctl.wire.write import adding
from qctl.wire.write.adding import AddedJob, FlowJob, NewJob

_SCHEDULE_FIELDS = {field.name for field in fields(Schedule)}


class SchedulerKeywords(JobKeywords, total=False):
    """A scheduler's ``Schedule``, and its jobs' ``name``, ``data`` and ``JobOptions``."""

    cron: str | None
    every: Duration | None
    tz: str | None
    limit: int | None
    start: int | datetime | None
    end: int | datetime | None
    offset: Duration | None
    immediately: bool
    name: str | None
    data: Any


class _Producer:
    """The part that ``Queue`` and ``AsyncQueue`` share: settings, and the calls to send."""

    def __init__(
        self, name: str, redis_url: str | None, prefix: str | None, telemetry: Telemetry | None
    ) -> None:
        adding.check_queue_name(name)
        prefixes = [] if prefix is None else [escaped(prefix)]
        settings = load_settings(redis_url=redis_url, prefixes=prefixes, environ=os.environ)
        self.name, self.prefix = name, settings.prefix_of(name)
        self.keys = QueueKeys(self.prefix, name)
        self._redis_url = settings.full_url()
        self._telemetry = telemetry

    def _tracing(self, jobs: Sequence[J]) -> AbstractContextManager[Sequence[J]]:
        """A context in which to add jobs. Its value is the jobs, with a trace if there is one."""
        if self._telemetry is None or not jobs:
            return nullcontext(jobs)
        return traced(self._telemetry, self.name, jobs)

    def _add_calls(self, jobs: Sequence[NewJob]) -> list[ScriptCall]:
        return adding.add_calls(self.keys, jobs, _now_ms())

    def _upsert_call(self, scheduler_id: str, keywords: SchedulerKeywords) -> ScriptCall:
        options: dict[str, Any] = {**keywords}
        schedule = Schedule(**{key: options.pop(key) for key in _SCHEDULE_FIELDS & options.keys()})
        name, data = options.pop("name", None), options.pop("data", None)
        return scheduling.upsert_call(
            self.keys, scheduler_id, schedule, name, data, JobOptions(**options), _now_ms()
        )


class Queue(_Producer):
    """Adds jobs to a queue. Several threads and forked processes may share a ``Queue``.

        with Queue("emails") as queue:
            queue.add("welcome", {"user": 7}, delay=60, attempts=3, backoff="exponential:10s")

    Args:
        name: the queue's name, without a colon.
        redis_url: default: ``QCTL_REDIS_URL``, else ``REDIS_URL``, else the config file's URL.
        prefix: BullMQ's key prefix; default: ``QCTL_PREFIX``, else the config file's prefix,
            else ``bull``.
        client: an open client to use instead of a new one. ``close`` leaves this client open.
        telemetry: an object that passes a trace on to the jobs, such as ``qctl.otel.Tracing()``.

    Raises:
        UsageError: the name or the URL is malformed.
    """

    def __init__(
        self,
        name: str,
        *,
        redis_url: str | None = None,
        prefix: str | None = None,
        client: Client | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        super().__init__(name, redis_url, prefix, telemetry)
        self._access = Access(self.keys, self._redis_url, client)

    def add(self, name: str, data: Any = None, **options: Unpack[JobKeywords]) -> JobHandle:
        """Add a job.

        Args:
            name: the job's name; it decides which handler runs the job.
            data: the job's payload, any JSON value; None is stored as ``{}``.
            options: see ``JobOptions``. Durations are seconds or a ``timedelta``.

        Returns:
            the job's id, with methods such as ``result``. With ``job_id`` or ``dedup``, this may be
            the id of an existing job.

        Raises:
            UsageError: an option is wrong, or the data is not JSON. Nothing was sent.
            NotFoundError: the parent does not exist.
            RefusedError: the job exists and has another parent.
            ReplyError: Redis refuses the command.
            UnreachableError: there is no connection, or it broke. If it broke, the job may have
                been added. With a ``job_id``, it is safe to add the job again.
        """
        return self.add_bulk([NewJob(name, data, **options)])[0]

    def add_bulk(self, jobs: Sequence[NewJob]) -> list[JobHandle]:
        """Add many jobs in the given order. Not atomic: each script call adds up to 200 jobs.

        Returns:
            the jobs' ids, in the same order.

        Raises:
            UsageError: a job is wrong. No job was added.
            PartialError: some jobs were not added; see NotFoundError and RefusedError of ``add``.
            ReplyError, UnreachableError: as for ``add``; some jobs may have been added.
        """
        with self._tracing(jobs) as traced_jobs:
            answers = self._access.run_all(self._add_calls(traced_jobs))
            ids = adding.added_ids(jobs, answers)
        return JobHandle.of(ids, self._access)

    def add_flow(self, flow: FlowJob) -> AddedJob:
        """Add a job and the children that it waits for, atomically, to any queues with this prefix.

        Returns:
            the added job, with its children.

        Raises:
            UsageError: a job of the flow is wrong. Nothing was added.
            NotFoundError, RefusedError: the root was not added; see ``add``.
            ReplyError, UnreachableError: as for ``add``.
        """
        with self._tracing([flow]) as (root,):
            nodes = adding.flow_nodes(root)
            call = adding.flow_call(self.prefix, nodes, _now_ms())
            return adding.added_flow(nodes, self._access.run(call))

    def upsert_scheduler(self, scheduler_id: str, **options: Unpack[SchedulerKeywords]) -> str:
        """Make a scheduler, or change an existing one and its pending job.

        Args:
            scheduler_id: the scheduler's id, unique in the queue.
            cron: five fields, or six if seconds come first.
            every: the interval, in seconds or as a ``timedelta``, instead of ``cron``.
            tz, limit, start, end, offset, immediately: see ``Schedule``.
            name: the name of the scheduler's jobs; default: ``scheduler_id``.
            data: the payload of these jobs, any JSON value.
            options: options of these jobs; see ``JobOptions``. ``delay``, ``job_id``, ``dedup``,
                ``timestamp_ms`` and ``parent`` are not allowed.

        Returns:
            the id of the pending job.

        Raises:
            UsageError: the schedule or an option is wrong.
            RefusedError, FailedError: jobs for the next due times exist already. Nothing changed.
            ReplyError, UnreachableError: as for ``add``.
        """
        call = self._upsert_call(scheduler_id, options)
        return scheduling.upserted_id(scheduler_id, self._access.run(call))

    def remove_scheduler(self, scheduler_id: str) -> bool:
        """Remove a scheduler and its delayed job. Return False if the scheduler does not exist."""
        return bool(self._access.run(scheduling.remove_call(self.keys, scheduler_id)))

    def schedulers(self) -> list[Scheduler]:
        """Read all schedulers of the queue, in the order of their next jobs."""
        return self._access.call(scheduling.read_schedulers)

    def handle(self, job_id: str) -> JobHandle:
        """The handle of a job whose id is known. Redis is not asked whether the job exists."""
        return JobHandle.of([job_id], self._access)[0]

    def get_job(self, job_id: str) -> JobInfo | None:
        """Read one job; None if it does not exist."""
        return self._access.call(read_job, job_id)

    def jobs(self, state: str, *, limit: int = DEFAULT_LIMIT) -> list[JobInfo]:
        """Read jobs of one state.

        Finished jobs come newest first. Waiting, delayed and prioritized jobs come in the order in
        which they will run. All other jobs come oldest first.

        Args:
            state: one of the states of ``JobInfo``, except ``unknown``.
            limit: the largest number of jobs to read.

        Raises:
            UsageError: there is no such state.
        """
        return self._access.call(list_jobs, state, limit)

    def counts(self) -> Counts:
        """Read how many jobs are in each state. ``active`` includes ``stalled``.

        Raises:
            NotFoundError: the queue does not exist in this Redis: it may have another name or
                prefix, or no job was added yet. Counts of 0 would hide that.
        """
        return self._access.call(read_counts)

    def events(self, *, after: str | None = None) -> Iterator[Event]:
        """Yield the queue's events as they happen, without end.

            for event in queue.events():
                if event.name == "completed":
                    print(event.job_id, event.values["returnvalue"])

        An outage of Redis only interrupts the loop. BullMQ keeps about 10,000 events of a queue. If
        events may be missing, because they were trimmed before they were read or because Redis has
        lost them, an event named ``missed`` stands in their place; its field ``why`` says why.
        Each loop has a connection of its own.

        Args:
            after: the ``id`` of an event; the loop begins with the event after it. None begins with
                the next new event, ``"0-0"`` begins with the oldest event.

        Raises:
            UsageError: the Queue was made with ``client=``.
            UnreachableError, ReplyError: Redis cannot be reached at the start, or refuses.
        """
        return follow(self._access, after)

    def close(self) -> None:
        """Close the connection, unless ``client`` was given."""
        self._access.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncQueue(_Producer):
    """``Queue`` for event loops: the same methods, to be awaited.

    Each event loop that uses the queue has its own connection. The connection is closed by
    ``close``, or at the latest when the loop ends.

        async with AsyncQueue("emails") as queue:
            await queue.add("welcome", {"user": 7})

    Args:
        name, redis_url, prefix, telemetry: see ``Queue``.
        connection: a connection to use instead of new ones. Then only one event loop may use the
            queue, and ``close`` leaves the connection open.

    Raises:
        UsageError: the name or the URL is malformed.
    """

    def __init__(
        self,
        name: str,
        *,
        redis_url: str | None = None,
        prefix: str | None = None,
        connection: AsyncConnection | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        super().__init__(name, redis_url, prefix, telemetry)
        self._access = AsyncAccess(self.keys, self._redis_url, connection)

    async def add(
        self, name: str, data: Any = None, **options: Unpack[JobKeywords]
    ) -> AsyncJobHandle:
        """Add a job; see ``Queue.add``."""
        return (await self.add_bulk([NewJob(name, data, **options)]))[0]

    async def add_bulk(self, jobs: Sequence[NewJob]) -> list[AsyncJobHandle]:
        """Add many jobs, in their order; see ``Queue.add_bulk``."""
        with self._tracing(jobs) as traced_jobs:
            answers = await self._access.run_all(self._add_calls(traced_jobs))
            ids = adding.added_ids(jobs, answers)
        return AsyncJobHandle.of(ids, self._access)

    async def add_flow(self, flow: FlowJob) -> AddedJob:
        """Add a job and the children that it waits for; see ``Queue.add_flow``."""
        with self._tracing([flow]) as (root,):
            nodes = adding.flow_nodes(root)
            call = adding.flow_call(self.prefix, nodes, _now_ms())
            return adding.added_flow(nodes, await self._access.run(call))

    async def upsert_scheduler(
        self, scheduler_id: str, **options: Unpack[SchedulerKeywords]
    ) -> str:
        """Make or change a scheduler; see ``Queue.upsert_scheduler``."""
        call = self._upsert_call(scheduler_id, options)
        return scheduling.upserted_id(scheduler_id, await self._access.run(call))

    async def remove_scheduler(self, scheduler_id: str) -> bool:
        """Remove a scheduler; see ``Queue.remove_scheduler``."""
        call = scheduling.remove_call(self.keys, scheduler_id)
        return bool(await self._access.run(call))

    async def schedulers(self) -> list[Scheduler]:
        """Read all schedulers of the queue; see ``Queue.schedulers``."""
        return await self._access.call(scheduling.read_schedulers)

    def handle(self, job_id: str) -> AsyncJobHandle:
        """The handle of a job whose id is known; see ``Queue.handle``. Not to be awaited."""
        return AsyncJobHandle.of([job_id], self._access)[0]

    async def get_job(self, job_id: str) -> JobInfo | None:
        """Read one job; see ``Queue.get_job``."""
        return await self._access.call(read_job, job_id)

    async def jobs(self, state: str, *, limit: int = DEFAULT_LIMIT) -> list[JobInfo]:
        """Read jobs of one state; see ``Queue.jobs``."""
        return await self._access.call(list_jobs, state, limit)

    async def counts(self) -> Counts:
        """Read how many jobs are in each state; see ``Queue.counts``."""
        return await self._access.call(read_counts)

    def events(self, *, after: str | None = None) -> AsyncGenerator[Event, None]:
        """Yield the queue's events as they happen; see ``Queue.events``.

        async for event in queue.events():
            if event.name == "completed":
                print(event.job_id, event.values["returnvalue"])
        """
        return follow_async(self._access, after)

    async def close(self) -> None:
        """Close this event loop's connection, unless ``connection`` was given.

        If a task of this event loop still waits for a job's result, its wait raises a UsageError.
        """
        await self._access.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
