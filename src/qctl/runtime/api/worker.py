"""``Worker``: an app's handlers for the jobs of one queue."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, Unpack

from qctl.config.prefixes import escaped
from qctl.config.settings import Settings, load_settings
from qctl.connection.connect import connect
from qctl.errors import QctlError, UsageError
from qctl.runtime import logs
from qctl.runtime.api import schedules
from qctl.runtime.api.foreground import run_until_signal
from qctl.runtime.api.lifespan import Lifespan, RunningLifespan, check_lifespan
from qctl.runtime.api.schedules import CodeSchedule
from qctl.runtime.api.state import WorkerState
from qctl.runtime.handlers.isolated import IsolatedPool
from qctl.runtime.handlers.payloads import job_handler, names_of_caller
from qctl.runtime.handlers.tasks import (
    Call,
    Handler,
    Middleware,
    TaskSpec,
    in_thread,
    in_time,
    wrap,
)
from qctl.runtime.handlers.threads import Threads
from qctl.runtime.job.policy import KEEP_ALL, CustomBackoff, keep_rule
from qctl.runtime.loop.engine import Engine
from qctl.runtime.loop.options import RateLimit, WorkerOptions, default_name
from qctl.runtime.loop.renewal import Renewal
from qctl.runtime.loop.running import JobRunner
from qctl.runtime.waiting import wait_first
from qctl.wire.encoding import keep_option
from qctl.wire.keys import QueueKeys
from qctl.wire.options import Duration, JobKeywords, JobOptions, Keep
from qctl.wire.schedulers.scheduling import Schedule, check_scheduler_id
from qctl.wire.write.adding import check_queue_name

H = TypeVar("H", bound=Handler)


# The default grace: how long running jobs may take when a worker stops.
GRACE_S = 30.0
# After the grace: how long cancelled handlers may clean up.
CANCEL_S = 2.0


class Worker:
    """Runs the jobs of one queue.

        worker = Worker("emails", concurrency=20)

        @worker.task("welcome")
        async def welcome(job): ...

        worker.run()

    Args:
        queue: the queue's name, without a colon.
        concurrency: how many jobs run at a time in this process.
        redis_url: default: ``QCTL_REDIS_URL``, else ``REDIS_URL``, else the config file's URL.
        prefix: BullMQ's key prefix; default: ``QCTL_PREFIX``, else the config file's prefix,
            else ``bull``.
        name: unique among the queue's workers, in printable ASCII without blanks; default:
            ``HOST-PID-N``. Bull Board and ``qctl workers`` show this name.
        lifespan: ``async def lifespan(worker)`` that yields once. The part before ``yield`` runs
            before the first job, and the rest after the last job. The yielded value is
            ``job.state``.
        middleware: functions ``async def layer(job, call_next)`` that wrap each handler; the first
            is the outermost.
        backoffs: custom backoffs by name. Each is a ``function(attempts made, error)`` that returns
            the delay in seconds, or less than 0 for no retry.
        rate_limit: how many jobs may start in a period, over all workers of the queue.
        lock_ttl_s: how long a lock lasts; it is renewed after a quarter of that time. If a worker
            dies, its jobs run again when their locks have expired; under ``qctl worker``, they run
            again at once.
        stalled_interval_s: how often to look for stalled jobs: active jobs without a lock.
        max_stalled_count: a job that stalls more often than this fails.
        max_started_attempts: a job that is started more often than this fails; None for no limit.
        drain_delay_s: on an empty queue, the worker asks Redis again after this time, even if Redis
            has signalled no new job.
        remove_on_complete, remove_on_fail: which ended jobs to keep, if a job does not have this
            option. True keeps no ended job, a number keeps that many, ``Keep(…)`` keeps by number
            and age, None keeps all.
        metrics_minutes: for how many minutes BullMQ's metrics are kept; None for no metrics.
        blocked_after_s: log a job that blocks the event loop for longer than this.
        prune_schedules: at the start, remove old schedulers: those that ``cron`` or ``every`` once
            made for the Python packages of this worker's handlers, and that are no longer in the
            code. By default, the worker only logs these schedulers.

    Attributes:
        options: the options that the worker was made with.

    Raises:
        UsageError: the queue's name or an option is not allowed.
    """

    def __init__(
        self,
        queue: str,
        *,
        concurrency: int = 1,
        redis_url: str | None = None,
        prefix: str | None = None,
        name: str | None = None,
        lifespan: Lifespan | None = None,
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
        prune_schedules: bool = False,
    ) -> None:
        check_queue_name(queue)
        self.queue = queue
        if lifespan is not None:
            check_lifespan(lifespan)
        self._lifespan = lifespan
        self._redis_url = redis_url
        self._prefix = prefix
        self._middleware = list(middleware)
        self._tasks: dict[str | None, TaskSpec] = {}
        self._schedules: dict[str, CodeSchedule] = {}
        self._prune_schedules = prune_schedules
        self.options = WorkerOptions(
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
        # What ``stop`` closes, in reverse order.
        self._resources = contextlib.AsyncExitStack()
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
        """Decorate a function to register it as a handler.

        An ``async def`` runs on the event loop, a plain ``def`` in a thread. The handler takes the
        job, and the data too if it has a second parameter. If the data has an annotation (``data:
        Welcome`` or ``job: Job[Welcome]``), the worker checks it; data that does not fit fails the
        job. The handler's result must be JSON; it becomes the job's return value.

        Args:
            name: the name of the jobs to handle; None for all names that no other handler has.
            isolate: run a plain ``def`` in a child process, which can be killed.
            timeout_s: a longer run is cancelled, and the attempt fails. A thread cannot be
                cancelled: the attempt fails, but the function goes on.
            kill_after_s: a longer run is killed, and the attempt fails; needs ``isolate``.

        Raises:
            UsageError: the name has a handler already, the options do not fit the function, or qctl
                cannot use the function's parameters or annotations (``handlers/payloads.py``).
        """

        def register(handler: H) -> H:
            is_async = asyncio.iscoroutinefunction(handler)
            kind = "process" if isolate else "async" if is_async else "thread"
            if name in self._tasks:
                taken = "without a name" if name is None else f"for {name!r}"
                raise UsageError(f"there are two tasks {taken}", hint="rename one of them")
            adapted = job_handler(handler, names_of_caller())
            self._tasks[name] = TaskSpec(handler, adapted, kind, timeout_s, kill_after_s)
            return handler

        return register

    def cron(
        self,
        pattern: str,
        *,
        tz: str | None = None,
        name: str | None = None,
        scheduler_id: str | None = None,
        data: Any = None,
        **options: Unpack[JobKeywords],
    ) -> Callable[[H], H]:
        """Decorate a handler to run it at the times of a cron pattern.

            @worker.cron("0 7 * * 1-5", tz="Europe/Berlin")
            async def digest(job): ...

        When the worker starts, it makes a job scheduler, which all workers of the queue share:
        however many processes run, each due time has one job. If ``@worker.cron(…)`` stands above
        ``@worker.task(…)``, it schedules that task. A function that is no task yet becomes one.

        Args:
            pattern: five fields, or six with seconds first.
            tz: the pattern's time zone, such as ``Europe/Berlin`` or ``UTC+2``; None or ``local``
                for that of the worker's process.
            name: the name of the task; default: if the function is a task already, the name of
                that task, else the function's own name.
            scheduler_id: default: the task's name. Several schedules of a task need different ids.
            data: the payload of the jobs, any JSON value.
            options: see ``JobOptions``. ``delay``, ``job_id``, ``dedup``, ``timestamp_ms`` and
                ``parent`` are not allowed.

        Raises:
            UsageError: the pattern, the time zone or an option is wrong; or see ``task``.
        """
        if not isinstance(pattern, str):
            raise UsageError(
                f"a cron pattern must be a text, not {pattern!r}", hint='@worker.cron("0 7 * * *")'
            )
        return self._scheduled(Schedule(cron=pattern, tz=tz), name, scheduler_id, data, options)

    def every(
        self,
        interval: Duration,
        *,
        name: str | None = None,
        scheduler_id: str | None = None,
        data: Any = None,
        **options: Unpack[JobKeywords],
    ) -> Callable[[H], H]:
        """Decorate a handler to run it at an interval, in seconds or as a ``timedelta``.

        The first job is due at once. A later start of the worker does not change the times. Missed
        times are skipped. The other arguments are those of ``cron``.

        Raises:
            UsageError: the interval or an option is wrong; or see ``task``.
        """
        if callable(interval):
            raise UsageError("every needs an interval in seconds", hint="@worker.every(30)")
        return self._scheduled(Schedule(every=interval), name, scheduler_id, data, options)

    def _scheduled(
        self,
        schedule: Schedule,
        name: str | None,
        scheduler_id: str | None,
        data: Any,
        options: JobKeywords,
    ) -> Callable[[H], H]:
        def code_schedule(sid: str, package: str, task: str) -> CodeSchedule:
            return CodeSchedule(sid, package, schedule, task, data, JobOptions(**options))

        # Refuse a wrong schedule even if the decorator is never applied.
        code_schedule("unnamed", "", "unnamed")

        def register(handler: H) -> H:
            own = [task for task, spec in self._tasks.items() if spec.handler is handler]
            task = name or next(filter(None, own), "") or getattr(handler, "__name__", "")
            if not task:
                raise UsageError(f"{handler!r} has no name", hint='add name="…"')
            sid = task if scheduler_id is None else scheduler_id
            check_scheduler_id(sid)
            if sid in self._schedules:
                raise UsageError(
                    f"there are two schedules with the id {sid!r}",
                    hint='give one of them another id: scheduler_id="…"',
                )
            if task not in own:
                self.task(task)(handler)
            self._schedules[sid] = code_schedule(sid, schedules.package_of(handler), task)
            return handler

        return register

    def use(self, middleware: Middleware) -> Middleware:
        """Decorate a function to add it as the innermost middleware around every job.

        ``async def layer(job, call_next)`` should return the result of ``await call_next(job)``.
        """
        self._middleware.append(middleware)
        return middleware

    # Start and stop

    def settings(self) -> Settings:
        """Load the URL and the prefix of the worker's Redis. Raises as ``load_settings`` does."""
        prefixes = [] if self._prefix is None else [escaped(self._prefix)]
        return load_settings(redis_url=self._redis_url, prefixes=prefixes, environ=os.environ)

    async def start(
        self, *, owner: str = "", redis_url: str = "", schedules_run: bool = True
    ) -> None:
        """Connect and begin to fetch jobs, on the running event loop.

        Args:
            owner: the first part of the lock tokens (``OWNER:NUMBER``). Each start needs an id that
                was never used before; "" makes one.
            redis_url: the URL of Redis; "" for the URL in the worker's settings.
            schedules_run: whether to make the schedulers of ``cron`` and ``every``.

        Raises:
            UsageError: the worker has no task, or runs already.
            UsageError, NotFoundError: as for ``settings``.
            FailedError: the lifespan failed before its ``yield``.
            UnreachableError, ReplyError: Redis cannot be reached, or refuses the connection.
        """
        if not self._tasks:
            raise UsageError(
                f"the worker of {self.queue} has no task", hint="add one: @worker.task()"
            )
        if self._engine is not None and not self._engine.is_stopping:
            raise UsageError(f"the worker of {self.queue} runs already", hint="await stop() first")
        # An ``asyncio.Event`` belongs to one event loop, so each start needs a new one.
        self._hurry = asyncio.Event()
        settings = self.settings()
        options = self.options
        if not options.name:
            options = replace(options, name=default_name())
        keys = QueueKeys(settings.prefix_of(self.queue), self.queue)
        # This client renews locks, and keeps an embedded Redis running.
        address, client = connect(redis_url or settings.full_url())
        async with contextlib.AsyncExitStack() as resources:
            lifespan: RunningLifespan | None = None
            try:
                if self._lifespan is not None:
                    lifespan = await RunningLifespan.start(self._lifespan, self)
                    resources.push_async_callback(lifespan.stop)
                if schedules_run:
                    await self._apply_schedules(address.url, keys)
            except BaseException:
                client.close()
                raise
            threads = resources.enter_context(contextlib.closing(Threads(self.queue)))
            children = resources.enter_context(contextlib.closing(IsolatedPool(threads)))
            engine = Engine(keys, address, options, owner)
            if lifespan is not None:
                engine.link.set_state(lifespan.state)
            self._runner = JobRunner(engine, self._calls(threads, children))
            renewal = Renewal(engine, client, self._tasks, self._runner.cancel)
            renewal.start()
            self._engine = engine
            resources.push_async_callback(engine.close)
            resources.callback(renewal.stop)
            await engine.open(self._runner.start, self._runner.fail_refused)
            self._resources = resources.pop_all()
        engine.log.info(
            "worker started", tasks=",".join(sorted(name or "*" for name in self._tasks)),
            concurrency=options.concurrency, redis=address, prefix=keys.prefix, worker=options.name,
        )  # fmt: skip

    async def _apply_schedules(self, redis_url: str, keys: QueueKeys) -> None:
        packages = {schedules.package_of(spec.handler) for spec in self._tasks.values()}
        own = list(self._schedules.values())
        # A client of its own: the client that renews locks needs no connection until a job runs.
        with contextlib.closing(connect(redis_url)[1]) as client:
            await asyncio.to_thread(
                schedules.apply, client, keys, own, packages=packages, prune=self._prune_schedules
            )

    def _calls(self, threads: Threads, children: IsolatedPool) -> dict[str | None, Call]:
        """Wrap each handler; return the calls by job name, with the key None for other names."""
        calls: dict[str | None, Call] = {}
        for name, spec in self._tasks.items():
            call: Call = spec.job_handler
            if spec.kind == "thread":
                call = in_thread(spec.job_handler, threads)
            elif spec.kind == "process":
                call = children.in_child(spec)
            call = wrap(call, self._middleware)
            # A child process applies the timeout itself.
            if spec.timeout_s is not None and spec.kind != "process":
                call = in_time(call, spec.timeout_s)
            calls[name] = call
        return calls

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """Fetch no more jobs, let the jobs in hand finish, and disconnect.

        At the end of the grace, jobs that still run are cancelled and go back to wait; no attempt
        is counted. A function in a thread cannot be cancelled: its job goes back while the function
        still runs. Until this process ends, the job may therefore run twice at the same time. If
        Redis is away, jobs that cannot be given back are left to a stalled check.

        Args:
            grace_s: how long jobs may take, in seconds; 0 for no limit.

        Raises:
            UsageError: the worker has not been started.
        """
        engine, runner = self._require_started()
        engine.stop_fetching()
        await wait_first(engine.wait_idle(), self._hurry.wait(), timeout_s=grace_s or None)
        if engine.is_busy:
            jobs = runner.cancel_all()
            engine.log.warning("the grace is over: giving jobs back", count=len(jobs))
            await wait_first(engine.wait_idle(), timeout_s=CANCEL_S)
            with contextlib.suppress(QctlError, TimeoutError):
                async with asyncio.timeout(CANCEL_S):
                    await engine.give_back(list(engine.in_hand.values()))
        await self._resources.aclose()
        engine.log.info("worker stopped", completed=engine.completed_count)

    def state(self) -> WorkerState:
        """Return the worker's current state.

        Raises:
            UsageError: the worker has not been started.
        """
        engine, runner = self._require_started()
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
        """End the grace now. If called before ``stop``, the next stop has no grace."""
        self._hurry.set()

    async def wait_until_idle(self) -> None:
        """Wait until no job is in hand, no rate limit applies, and the queue has no job to run."""
        await self._require_started()[0].wait_queue_empty()

    def run(self, *, grace_s: float = GRACE_S) -> None:
        """Run until SIGTERM or SIGINT, then ``stop(grace_s)``; a second signal ends the grace.

        Raises:
            QctlError: as for ``start``.
        """
        if not logging.getLogger("qctl").hasHandlers():
            # The app has not set up logging.
            logs.configure()
            logs.share_with_app()
        asyncio.run(run_until_signal(self, grace_s))

    def _require_started(self) -> tuple[Engine, JobRunner]:
        if self._engine is None or self._runner is None:
            raise UsageError(f"the worker of {self.queue} has not been started")
        return self._engine, self._runner


def _keep_rule(option: bool | int | Keep | None, what: str) -> str:
    # ``keep_option`` comes first, because it refuses texts. ``keep_rule`` would read a text as
    # True, and True removes all jobs.
    return keep_rule(keep_option(option, what)) or KEEP_ALL
