"""``Queue`` and ``AsyncQueue``: an app's way to add jobs, flows and schedulers.

Both say the same to Redis (``wire/write/adding.py``, ``wire/schedulers/scheduling.py``), one over a
socket, the other over the event loop. Nothing is sent before the first use.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self, Unpack

from qctl.config.settings import load_settings
from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.runtime.loop.connection import AsyncConnection
from qctl.runtime.loop.per_loop import LoopConnections
from qctl.wire import scripts
from qctl.wire.keys import QueueKeys
from qctl.wire.options import Duration, JobKeywords, JobOptions
from qctl.wire.schedulers import scheduling
from qctl.wire.schedulers.scheduling import Schedule, Scheduler
from qctl.wire.scripts import ScriptCall
from qctl.wire.write import adding
from qctl.wire.write.adding import AddedJob, FlowJob, NewJob


class _Producer:
    """What both kinds of queue share: which calls to make."""

    def __init__(self, name: str, redis_url: str | None, prefix: str | None) -> None:
        adding.check_queue_name(name)
        settings = load_settings(redis_url=redis_url, prefix=prefix, environ=os.environ)
        self.keys = QueueKeys(settings.prefix, name)
        self._redis_url = settings.full_url()

    @property
    def name(self) -> str:
        return self.keys.name

    @property
    def prefix(self) -> str:
        return self.keys.prefix

    def _add_calls(self, jobs: Sequence[NewJob]) -> list[ScriptCall]:
        return adding.add_calls(self.keys, jobs, _now_ms())

    def _upsert_call(
        self,
        scheduler_id: str,
        schedule: Schedule,
        name: str | None,
        data: Any,
        options: JobKeywords,
    ) -> ScriptCall:
        return scheduling.upsert_call(
            self.keys, scheduler_id, schedule, name, data, JobOptions(**options), _now_ms()
        )


class Queue(_Producer):
    """Adds jobs to a queue. May be used by several threads, and after a fork.

        with Queue("emails") as queue:
            queue.add("welcome", {"user": 7}, delay=60, attempts=3, backoff="exponential:10s")

    Args:
        name: the queue's name, without a colon.
        redis_url: default: ``QCTL_REDIS_URL``, else ``REDIS_URL``, else the config's.
        prefix: BullMQ's key prefix; default as for the command line.
        client: use this connection instead of one of its own; it is not closed with the queue.

    Raises:
        UsageError: the name or the URL is none.
    """

    def __init__(
        self,
        name: str,
        *,
        redis_url: str | None = None,
        prefix: str | None = None,
        client: Client | None = None,
    ) -> None:
        super().__init__(name, redis_url, prefix)
        self._client = client or connect(self._redis_url)[1]
        self._owns_client = client is None
        # One per process: a lock that another thread held at a fork is never released in the child.
        self._locks: dict[int, threading.Lock] = {}

    def add(self, name: str, data: Any = None, **options: Unpack[JobKeywords]) -> str:
        """Add a job.

        Args:
            name: tells the worker what to do.
            data: its payload, anything that is JSON.
            options: see ``JobOptions``; durations are seconds or a ``timedelta``.

        Returns:
            its id; with ``job_id`` or ``dedup`` perhaps that of a job that is there already.

        Raises:
            UsageError: an option is wrong, or the data is not JSON.
            NotFoundError: there is no such parent.
            RefusedError: the job exists and has another parent.
            ReplyError, UnreachableError: Redis; after the latter the job may be there all the same.
        """
        return self.add_bulk([NewJob(name, data, **options)])[0]

    def add_bulk(self, jobs: Sequence[NewJob]) -> list[str]:
        """Add many jobs, in order and fast. Each is added or not; the whole is not atomic.

        Raises:
            UsageError: one of them is wrong; none was added.
            PartialError: some were not added.
            ReplyError, UnreachableError: as for ``add``; some may have been added.
        """
        return adding.added_ids(jobs, self._run_all(self._add_calls(jobs)))

    def add_flow(self, flow: FlowJob) -> AddedJob:
        """Add a job and those it waits for, in queues of this one's prefix, all at once.

        Raises:
            UsageError: a node is wrong; nothing was added.
            NotFoundError, RefusedError: the root was not added; see ``add``.
        """
        nodes = adding.flow_nodes(flow)
        call = adding.flow_call(self.prefix, nodes, _now_ms())
        return adding.added_flow(nodes, self._run(call))

    def upsert_scheduler(
        self,
        scheduler_id: str,
        *,
        cron: str | None = None,
        every: Duration | None = None,
        tz: str | None = None,
        limit: int | None = None,
        start: int | datetime | None = None,
        end: int | datetime | None = None,
        offset: Duration | None = None,
        immediately: bool = False,
        name: str | None = None,
        data: Any = None,
        **options: Unpack[JobKeywords],
    ) -> str:
        """Make a scheduler, or change one and its pending job.

        Args:
            cron, every, tz, limit, start, end, offset, immediately: see ``Schedule``.
            name: of its jobs; default: the scheduler's id.
            data: of its jobs.
            options: of its jobs, see ``JobOptions``; no delay, job_id, dedup, timestamp_ms, parent.

        Returns:
            the id of its pending job.

        Raises:
            UsageError: the schedule or an option is wrong.
            RefusedError: the job that would be made exists and runs.
        """
        schedule = Schedule(cron, every, tz, limit, start, end, offset, immediately)
        call = self._upsert_call(scheduler_id, schedule, name, data, options)
        return scheduling.upserted_id(scheduler_id, self._run(call))

    def remove_scheduler(self, scheduler_id: str) -> bool:
        """Remove a scheduler and its pending job if that is delayed; False if there is none."""
        return bool(self._run(scheduling.remove_call(self.keys, scheduler_id)))

    def schedulers(self) -> list[Scheduler]:
        """All schedulers, the one that is due next first."""
        with self._one_at_a_time():
            listed = self._client.call(*scheduling.list_command(self.keys))
            records = self._client.pipeline(scheduling.record_commands(self.keys, listed))
        return scheduling.schedulers(listed, records)

    def close(self) -> None:
        """Close the connection, if it is the queue's own."""
        if self._owns_client:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _one_at_a_time(self) -> threading.Lock:
        return self._locks.setdefault(os.getpid(), threading.Lock())

    def _run(self, call: ScriptCall) -> Any:
        with self._one_at_a_time():
            return scripts.run_call(self._client, call)

    def _run_all(self, calls: Sequence[ScriptCall]) -> list[Any]:
        with self._one_at_a_time():
            return scripts.run_all(self._client, calls)


class AsyncQueue(_Producer):
    """``Queue`` for event loops: the same methods, to be awaited. Each loop has a connection of its
    own, closed at the latest together with the loop.

        async with AsyncQueue("emails") as queue:
            await queue.add("welcome", {"user": 7})

    Args:
        name, redis_url, prefix: see ``Queue``.
        connection: use this one, of one event loop, instead of its own; it is not closed with the
            queue.

    Raises:
        UsageError: the name or the URL is none.
    """

    def __init__(
        self,
        name: str,
        *,
        redis_url: str | None = None,
        prefix: str | None = None,
        connection: AsyncConnection | None = None,
    ) -> None:
        super().__init__(name, redis_url, prefix)
        # Sends nothing; an embedded Redis lives as long as this client.
        address, self._client = connect(self._redis_url)
        self._given = connection
        self._own = LoopConnections(lambda: AsyncConnection(address, key=self.keys("")))

    async def add(self, name: str, data: Any = None, **options: Unpack[JobKeywords]) -> str:
        """Add a job; see ``Queue.add``."""
        return (await self.add_bulk([NewJob(name, data, **options)]))[0]

    async def add_bulk(self, jobs: Sequence[NewJob]) -> list[str]:
        """Add many jobs, in order and fast; see ``Queue.add_bulk``."""
        return adding.added_ids(jobs, await self._run_all(self._add_calls(jobs)))

    async def add_flow(self, flow: FlowJob) -> AddedJob:
        """Add a job and those it waits for, all at once; see ``Queue.add_flow``."""
        nodes = adding.flow_nodes(flow)
        call = adding.flow_call(self.prefix, nodes, _now_ms())
        return adding.added_flow(nodes, await (await self._connection()).run_call(call))

    async def upsert_scheduler(
        self,
        scheduler_id: str,
        *,
        cron: str | None = None,
        every: Duration | None = None,
        tz: str | None = None,
        limit: int | None = None,
        start: int | datetime | None = None,
        end: int | datetime | None = None,
        offset: Duration | None = None,
        immediately: bool = False,
        name: str | None = None,
        data: Any = None,
        **options: Unpack[JobKeywords],
    ) -> str:
        """Make a scheduler, or change one and its pending job; see ``Queue.upsert_scheduler``."""
        schedule = Schedule(cron, every, tz, limit, start, end, offset, immediately)
        call = self._upsert_call(scheduler_id, schedule, name, data, options)
        return scheduling.upserted_id(scheduler_id, await (await self._connection()).run_call(call))

    async def remove_scheduler(self, scheduler_id: str) -> bool:
        """Remove a scheduler; see ``Queue.remove_scheduler``."""
        call = scheduling.remove_call(self.keys, scheduler_id)
        return bool(await (await self._connection()).run_call(call))

    async def schedulers(self) -> list[Scheduler]:
        """All schedulers, the one that is due next first."""
        connection = await self._connection()
        listed = await connection.call(*scheduling.list_command(self.keys))
        commands = scheduling.record_commands(self.keys, listed)
        return scheduling.schedulers(listed, await connection.pipeline(commands))

    async def close(self) -> None:
        """Close the connection, if it is the queue's own."""
        await self._own.close()
        self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _connection(self) -> AsyncConnection:
        return self._given or await self._own.get()

    async def _run_all(self, calls: Sequence[ScriptCall]) -> list[Any]:
        if not calls:
            return []
        # The first brings the script along if need be; then all are on their way together.
        connection = await self._connection()
        first = await connection.run_call(calls[0])
        rest = await asyncio.gather(*map(connection.run_call, calls[1:]), return_exceptions=True)
        for answer in rest:
            if isinstance(answer, BaseException):
                raise answer
        return [first, *rest]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
