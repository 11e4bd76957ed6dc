"""``Worker``: an app's handlers for the jobs of one queue."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from qctl.config.settings import Settings, load_settings
from qctl.connection.connect import connect
from qctl.errors import QctlError, UsageError
from qctl.runtime import logs
from qctl.runtime.handlers.isolated import IsolatedPool
from qctl.runtime.handlers.tasks import Call, Handler, Middleware, Tasks, TaskSpec, in_thread
from qctl.runtime.handlers.threads import Threads
from qctl.runtime.job.policy import KEEP_ALL, CustomBackoff, keep_rule
from qctl.runtime.loop.engine import Engine
from qctl.runtime.loop.options import RateLimit, WorkerOptions, default_name
from qctl.runtime.loop.renewal import Renewer
from qctl.runtime.loop.running import JobRunner
from qctl.wire.encoding import keep_option
from qctl.wire.keys import QueueKeys
from qctl.wire.options import Keep
from qctl.wire.read.clients import client_name

H = TypeVar("H", bound=Handler)


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker as it is now.

    Args:
        name: its name in ``pb`` and CLIENT LIST.
        owner: what all its lock tokens begin with, up to a colon.
        busy: jobs in hand.
        quiet: it takes no more jobs.
        limited: a rate limit keeps it from fetching.
        completed, failed: jobs that ended here.
        since_fetch_s: seconds since Redis last answered a fetch; None before the first answer.
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


GRACE_S = 30.0
# After the grace, for cancelled handlers to clean up.
CANCEL_S = 2.0


class Worker:
    """Takes jobs of one queue and runs them.

        worker = Worker("emails", concurrency=20)

        @worker.task("welcome")
        async def welcome(job): ...

        worker.run()

    Args:
        queue: the queue's name.
        concurrency: jobs that run at a time in this process.
        redis_url: default: ``QCTL_REDIS_URL``, else ``REDIS_URL``, else the config's.
        prefix: BullMQ's key prefix; default as for the command line.
        name: unique among the queue's workers, which the default (host, pid, number) is; written to
            the jobs, and shown by Bull Board and ``qctl workers``.
        middleware: functions ``async def layer(job, call_next)`` around every job, outermost first.
        backoffs: backoff functions by name: (attempts made, error) → delay in seconds.
        rate_limit: over all workers of the queue.
        lock_ttl_s: how long a lock holds without being renewed.
        stalled_interval_s: how often jobs of workers that are gone are looked for.
        max_stalled_count: a job that stalls more often fails.
        max_started_attempts: a job that is started more often fails; None for no limit.
        remove_on_complete, remove_on_fail: for jobs that say nothing themselves: True, a number to
            keep, or ``Keep(…)``.
        metrics_minutes: minutes of BullMQ metrics to keep; None for none.
        blocked_after_s: an event loop that does not turn for so long is reported.

    Raises:
        UsageError: an option is out of range.
    """

    def __init__(
        self,
        queue: str,
        *,
        concurrency: int = 1,
        redis_url: str | None = None,
        prefix: str | None = None,
        name: str | None = None,
        middleware: Sequence[Middleware] = (),
        backoffs: Mapping[str, CustomBackoff] | None = None,
        rate_limit: RateLimit | None = None,
        lock_ttl_s: float = 30.0,
        stalled_interval_s: float = 30.0,
        max_stalled_count: int = 1,
        max_started_attempts: int | None = None,
        drain_delay_s: float = 5.0,
        remove_on_complete: bool | int | Keep | None = None,
        remove_on_fail: bool | int | Keep | None = None,
        metrics_minutes: int | None = None,
        blocked_after_s: float = 5.0,
    ) -> None:
        if not queue or ":" in queue:
            raise UsageError(
                f"{queue!r} cannot be a queue's name", why="it is empty or has a colon"
            )
        self.queue = queue
        self._redis_url = redis_url
        self._prefix = prefix
        self._middleware = list(middleware)
        self._tasks = Tasks()
        self._options = WorkerOptions(
            concurrency=concurrency,
            name=name or "",
            lock_ttl_s=lock_ttl_s,
            stalled_interval_s=stalled_interval_s,
            max_stalled_count=max_stalled_count,
            max_started_attempts=max_started_attempts,
            drain_delay_s=drain_delay_s,
            rate_limit=rate_limit,
            keep_completed=_keep_rule(remove_on_complete, "remove_on_complete"),
            keep_failed=_keep_rule(remove_on_fail, "remove_on_fail"),
            metrics_minutes=metrics_minutes,
            blocked_after_s=blocked_after_s,
            backoffs=dict(backoffs or {}),
        )
        self._engine: Engine | None = None
        self._runner: JobRunner | None = None
        self._renewer: Renewer | None = None
        self._threads: Threads | None = None
        self._children: IsolatedPool | None = None
        self._hurry = asyncio.Event()

    # Registration

    def task(
        self,
        name: str | None = None,
        *,
        isolate: bool = False,
        timeout_s: float | None = None,
        kill_after_s: float | None = None,
    ) -> Callable[[H], H]:
        """Register a handler; a decorator.

        Args:
            name: the job name it takes; without one it takes every name that has no other handler.
            isolate: run a plain function in a child process that can be killed.
            timeout_s, kill_after_s: see ``TaskSpec``.

        Raises:
            UsageError: the name is taken, or the options do not fit the function.
        """

        def register(handler: H) -> H:
            is_async = asyncio.iscoroutinefunction(handler)
            kind = "process" if isolate else "async" if is_async else "thread"
            self._tasks.add(TaskSpec(name, handler, kind, timeout_s, kill_after_s))
            return handler

        return register

    def use(self, middleware: Middleware) -> Middleware:
        """Add a layer around every job, inside those there are; a decorator."""
        self._middleware.append(middleware)
        return middleware

    # Life

    @property
    def options(self) -> WorkerOptions:
        """How it works."""
        return self._options

    def settings(self) -> Settings:
        """Where its Redis and its queue are.

        Raises:
            UsageError, NotFoundError: as for ``load_settings``.
        """
        return load_settings(redis_url=self._redis_url, prefix=self._prefix, environ=os.environ)

    async def start(self, *, owner: str = "", redis_url: str = "") -> None:
        """Connect and begin to take jobs, on the running event loop.

        Args:
            owner: what all its lock tokens shall begin with; never used before. Made if not given.
            redis_url: use this Redis instead of the worker's own.

        Raises:
            UsageError: it has no task, or it works already.
            UnreachableError, ReplyError: Redis cannot be reached, or refuses.
        """
        from qctl.wire.schedulers.scheduling import next_iteration_call  # noqa: PLC0415

        if not self._tasks.specs:
            raise UsageError(
                f"the worker of {self.queue} has no task", hint="add one: @worker.task()"
            )
        if self._engine is not None and not self._engine.is_stopping:
            raise UsageError(f"the worker of {self.queue} works already", hint="await stop() first")
        # Anew, for the loop that it runs on this time.
        self._hurry = asyncio.Event()
        settings = self.settings()
        loop = asyncio.get_running_loop()
        options = self._options
        if not options.name:
            options = replace(options, name=default_name())
        keys = QueueKeys(settings.prefix, self.queue)
        name = client_name(keys.prefix, keys.name, options.name)
        # For the renewals; an embedded Redis lives as long as this client.
        address, client = connect(redis_url or settings.full_url())
        self._engine = engine = Engine(keys, address, options, name, owner)
        self._threads = Threads(self.queue)
        self._children = IsolatedPool(self._threads)
        calls = self._tasks.build(self._middleware, self._caller)
        self._runner = JobRunner(engine, calls, next_iteration_call)
        self._renewer = Renewer(engine, client, loop)
        self._renewer.start()
        try:
            await engine.open(self._runner)
        except BaseException:
            await self._end()
            raise
        engine.log.info("worker started", worker=options.name, concurrency=options.concurrency)

    def _caller(self, spec: TaskSpec) -> Call:
        if spec.kind == "async":
            return spec.handler
        assert self._threads is not None and self._children is not None  # noqa: S101, PT018
        if spec.kind == "process":
            return self._children.caller(spec)
        return in_thread(spec.handler, self._threads)

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """Take no more jobs, let those in hand finish, and leave.

        At the end of the grace what still runs is cancelled and goes back to wait, no attempt
        counted. A function in a thread cannot be cancelled: its job goes back all the same, and the
        process should end.

        Args:
            grace_s: in seconds; 0 to wait for ever.
        """
        engine, runner = self._started()
        engine.stop_fetching()
        if not await self._finished(grace_s or None):
            jobs = runner.cancel_all()
            engine.log.warning("the grace is over: giving jobs back", count=len(jobs))
            if not await _within(engine.wait_idle(), CANCEL_S):
                with contextlib.suppress(QctlError, TimeoutError):
                    async with asyncio.timeout(CANCEL_S):
                        await engine.give_back(list(engine.in_hand.values()))
        await self._end()
        engine.log.info("worker stopped", completed=engine.completed_count)

    def state(self) -> WorkerState:
        """What it is doing.

        Raises:
            UsageError: it has not been started.
        """
        engine, runner = self._started()
        since = time.monotonic() - engine.last_fetch_at if engine.last_fetch_at else None
        return WorkerState(
            queue=self.queue,
            prefix=engine.keys.prefix,
            name=engine.options.name,
            owner=engine.owner,
            concurrency=engine.options.concurrency,
            busy=len(engine.in_hand),
            quiet=engine.is_stopping,
            limited=engine.is_limited,
            completed=engine.completed_count,
            failed=runner.failed_count,
            since_fetch_s=since,
        )

    def hurry(self) -> None:
        """End the grace of a stop now."""
        self._hurry.set()

    async def wait_until_idle(self) -> None:
        """Until the queue has nothing that could run now, and nothing is in hand."""
        await self._started()[0].wait_queue_empty()

    def run(self, *, grace_s: float = GRACE_S) -> None:
        """Run until SIGTERM or SIGINT, then ``stop``; a second signal ends the grace."""
        if not logging.getLogger("qctl").hasHandlers():
            # Nobody has said where they go.
            logs.configure()
        asyncio.run(self._run(grace_s))

    async def _run(self, grace_s: float) -> None:
        stop = asyncio.Event()

        def on_signal() -> None:
            (self.hurry if stop.is_set() else stop.set)()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        await self.start()
        await stop.wait()
        await self.stop(grace_s)

    def _started(self) -> tuple[Engine, JobRunner]:
        if self._engine is None or self._runner is None:
            raise UsageError(f"the worker of {self.queue} has not been started")
        return self._engine, self._runner

    async def _finished(self, grace_s: float | None) -> bool:
        """Whether all jobs ended within the grace, and nobody was in a hurry."""
        engine, _ = self._started()
        idle = asyncio.ensure_future(engine.wait_idle())
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait({idle, hurry}, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
        is_idle = idle.done()
        for future in (idle, hurry):
            future.cancel()
        return is_idle

    async def _end(self) -> None:
        if self._renewer is not None:
            self._renewer.stop()
        if self._engine is not None:
            await self._engine.close()
        if self._children is not None:
            self._children.close()
        if self._threads is not None:
            self._threads.close()


async def _within(awaitable: Any, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            await awaitable
    except TimeoutError:
        return False
    return True


def _keep_rule(option: bool | int | Keep | None, what: str) -> str:
    # A text in a job's options would be true; here it is a mistake, and would delete every job.
    return keep_rule(keep_option(option, what)) or KEEP_ALL
