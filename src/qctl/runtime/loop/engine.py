"""The core of a worker: one queue, one event loop, and the cycle fetch → run → settle.

    open ──► _send_steps ──► Redis: settle + fetch ──► _on_reply ──► runner.start(job)
                  ▲                                        │              │
                  │                                        │         handler runs
                  │                                        │          │       │
                  │◄─────────── complete(job, value) ◄─────┼────── returned   │
                  │                                        │                raised
                  │◄─────────── released(job) ◄────────────┼── fail, retry … ◄┘
                  │                                        │
                  │◄── Listener: a marker has come ◄───────┤ found nothing
                  │◄── timer: the limit is over ◄──────────┤ rate limited
                  └◄── Recovery: Redis is back ◄───────────┘ failed, or the connection broke

A *step* is one call of ``settle_and_fetch.lua``: it settles completed jobs, and fetches new jobs
if there is room, as many of each as ``step_size.py`` allows. Two steps may be in flight, so that
Redis runs one step while handlers run the jobs of the other step. If a handler raises, the runner
(``running.py``) settles the job with another script, and then calls ``released``. A *marker* is
BullMQ's signal that a job can run now or at a certain time (``listener.py``).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

from qctl.connection.address import Address
from qctl.errors import QctlError, ReplyError
from qctl.runtime.job.job import Job
from qctl.runtime.logs import Log
from qctl.runtime.loop.link import RetryingLink
from qctl.runtime.loop.listener import Listener
from qctl.runtime.loop.options import WorkerOptions
from qctl.runtime.loop.recovery import Recovery
from qctl.runtime.loop.shared_connection import SharedConnection
from qctl.runtime.loop.sharing import Places
from qctl.runtime.loop.step_size import StepSize
from qctl.wire.keys import QueueKeys
from qctl.wire.scripts import source
from qctl.wire.write import worker_calls

MAX_STEPS_IN_FLIGHT = 2
# The longest pause between two fetches because of a rate limit.
MAX_LIMIT_WAIT_S = 30.0

# A job and what its handler returned, as JSON.
Completed = tuple[Job, str]


class Engine:
    """Fetches jobs, passes them to a runner, and completes the jobs whose handlers return.

    Args:
        owner: an id that no other engine has or had; "" makes a new id. The engine's lock tokens
            are ``OWNER:STEP``, where STEP is the number of the step that fetched the job.

    Attributes:
        in_hand: the engine's jobs by id. A job stays until it is settled or given back.
        link: sends the calls of running jobs to Redis.
        completed_count: how many jobs were settled as completed.
        last_fetch_at: when a fetch last succeeded, by the loop's clock; 0 for never.
    """

    def __init__(
        self,
        keys: QueueKeys,
        address: Address,
        options: WorkerOptions,
        owner: str = "",
    ) -> None:
        self.keys = keys
        self.owner = owner or str(uuid.uuid4())
        self.options = options
        self.log = Log("worker", queue=keys.name)
        self.connection = SharedConnection(address, key=keys(""))
        self.link = RetryingLink(keys, self.connection)
        self.in_hand: dict[str, Job] = {}
        self.completed_count = 0
        self.last_fetch_at = 0.0
        self.is_stopping = False
        self._listener = Listener(self, address, options)
        self._recovery = Recovery(
            keys, self.connection, self.log,
            owner=self.owner, in_hand=self.in_hand, on_recovered=self._on_recovered,
        )  # fmt: skip
        limit = options.rate_limit
        limiter = (limit.jobs, round(limit.per_s * 1000)) if limit else None
        self._step_head = worker_calls.step_head(keys)
        self._step_options = worker_calls.step_options(
            options.name, limiter, options.metrics_minutes
        )
        self._lock_ms = round(options.lock_ttl_s * 1000)
        # A lock is renewed after a quarter of its time. After half of it, it may run out before.
        self._max_reply_ms = self._lock_ms / 2
        # At most half of the concurrency, so that both steps in flight have jobs to settle and to
        # fetch.
        half = -(-options.concurrency // MAX_STEPS_IN_FLIGHT)
        self._step_size = StepSize(min(worker_calls.MAX_BATCH, half), options.concurrency)
        # How many more jobs may be fetched now; below 0 if Redis has refused to complete jobs.
        self._free = options.concurrency
        # Used if the queue limits how many jobs run at a time in all its workers (``sharing.py``).
        self._places = Places()
        self._completed: deque[Completed] = deque()
        self._steps_sent = 0
        self._steps_in_flight = 0
        # How many of the steps in flight settle no jobs.
        self._fetches_in_flight = 0
        self._is_send_due = False
        # Whether the last fetch showed that no job can run now.
        self._nothing_to_fetch = False
        # Set while a rate limit pauses fetching.
        self._limit_timer: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []
        # Set by ``stop_fetching``: disconnects the listener.
        self._leaving: asyncio.Task[None]
        # Set when a condition of ``wait_idle`` or ``wait_queue_empty`` may have become true.
        self._changed = asyncio.Event()
        self._start: Callable[[Job], None]
        self._fail_refused: Callable[[Job, int], None]

    async def open(
        self, start: Callable[[Job], None], fail_refused: Callable[[Job, int], None]
    ) -> None:
        """Connect and begin to fetch.

        Args:
            fail_refused: fails a job that Redis refused to complete; the int is Redis's code.

        Raises:
            UnreachableError, ReplyError: Redis cannot be reached, or refuses the connection.
        """
        self._start, self._fail_refused = start, fail_refused
        self._loop = asyncio.get_running_loop()
        await self.connection.open()
        await self.connection.call("SCRIPT", "LOAD", source("settle_and_fetch"))
        await self._listener.open()
        self._tasks = [self._loop.create_task(self._check_stalled())]
        self._send_steps()

    # Steps

    def _send_steps(self) -> None:
        """Send steps while there are jobs to settle or fetch, until two steps are in flight."""
        self._is_send_due = False
        if self._recovery.is_under_way:
            return
        if not self.connection.is_open:
            self._recovery.begin([], None)
            return
        step_size, sent, is_partial = self._step_size, 0, False
        may_fetch = not self.is_stopping and self._limit_timer is None
        while self._steps_in_flight < MAX_STEPS_IN_FLIGHT and self.connection.is_open:
            settling = min(len(self._completed), step_size.jobs)
            wanted = 0
            # The end of a job may let another job run, so a step that settles jobs also fetches.
            if may_fetch and (settling or not self._nothing_to_fetch):
                wanted = max(min(self._free, step_size.jobs), 0)
            if not settling and (not wanted or self._fetches_in_flight):
                # Start no fetch-only step while another one is in flight.
                if is_partial:
                    step_size.note_partial_step()
                return
            is_partial = settling < step_size.jobs
            self._send_step(settling, wanted)
            sent += settling
        has_more = may_fetch and self._free > 0 and not self._nothing_to_fetch
        step_size.note_all_in_flight(sent, has_backlog=bool(self._completed) or has_more)

    def _send_steps_soon(self) -> None:
        """Send steps after this turn of the loop, so that jobs that end in it share a step."""
        if not self._is_send_due:
            self._is_send_due = True
            self._loop.call_soon(self._send_steps)

    def _send_step(self, settling: int, wanted: int) -> None:
        """Send a step that settles ``settling`` completed jobs and fetches at most ``wanted``."""
        # Jobs that share these values form a group, so that the values are sent only once.
        groups: dict[tuple[str, str, int, str, str], list[Completed]] = {}
        for _ in range(settling):
            job, value = self._completed.popleft()
            rule = job.policy.keep_completed or self.options.keep_completed
            usual = "1" if job.is_usual else ""
            group = (job.token, rule, job.attempts_made + 1, job.fields.get("deid", ""), usual)
            groups.setdefault(group, []).append((job, value))
        batch = [*chain.from_iterable(groups.values())]
        # ``_free`` no longer counts the batch's jobs as running, but they occupy their places until
        # they are settled.
        occupied = self.options.concurrency - self._free + settling
        places_kept = self._places.to_keep(settling, occupied, self._loop.time()) if settling else 0
        self._free -= wanted
        token = f"{self.owner}:{self._steps_sent}"
        # The time by the clock, which goes on while the system is suspended.
        now_ms = int(time.time() * 1000)
        self._steps_sent += 1
        self._steps_in_flight += 1
        self._fetches_in_flight += not settling
        self.connection.send(
            (
                *self._step_head,
                now_ms, token, self._lock_ms, wanted, places_kept,
                *self._step_options,
                len(groups), *chain.from_iterable((*g, len(jobs)) for g, jobs in groups.items()),
                *chain.from_iterable((job.id, value) for job, value in batch),
            ),
            partial(self._on_reply, batch, wanted, token, now_ms),
        )  # fmt: skip

    def _on_reply(
        self, batch: list[Completed], wanted: int, token: str, sent_ms: int, reply: Any
    ) -> None:
        """Handle the reply to a step that settles ``batch``; start the fetched jobs."""
        self._steps_in_flight -= 1
        self._fetches_in_flight -= not batch
        if isinstance(reply, Exception):
            self._free += wanted
            self._completed.extendleft(reversed(batch))
            self._recovery.begin([job for job, _ in batch], reply)
            self._changed.set()
            return
        codes, fetched, reason, detail = reply
        in_hand = self.in_hand
        for job, _ in batch:
            if in_hand.get(job.id) is job:
                del in_hand[job.id]
        self.completed_count += len(batch) - len(codes) // 2
        # ``codes`` has a position (from 1) and a reason for each job that was not settled.
        for position, code in zip(codes[::2], codes[1::2], strict=True):
            self._on_not_settled(batch[position - 1][0], code)
        now = self._loop.time()
        self._free += wanted - len(fetched) // 2
        if reason == "failed":  # jobs were settled, but the fetch failed
            self._recovery.begin([], ReplyError(detail))
        else:
            self._recovery.note_success(batch)
            if wanted:
                self.last_fetch_at = now
                self._on_fetched(reason, int(detail))
        jobs = [
            Job(job_id, worker_calls.job_fields(row), token, self.link, now, is_usual=len(row) > 1)
            for job_id, row in zip(fetched[::2], fetched[1::2], strict=True)
        ]
        if jobs and (self.is_stopping or time.time() * 1000 - sent_ms > self._max_reply_ms):
            # This process stood still, or its event loop was blocked, so the locks of these jobs
            # may have run out, and other workers may have the jobs.
            self._return_unstarted(jobs)
        else:
            for job in jobs:
                in_hand[job.id] = job
                self._start(job)
        if not in_hand:
            self._changed.set()
        if self._completed or (self._free > 0 and not self._nothing_to_fetch):
            self._send_steps_soon()

    def _on_fetched(self, reason: str, ms: int) -> None:
        """Decide from the answer to a fetch when to fetch again.

        Args:
            reason: "" if all wanted jobs were fetched; "more" if there may be more jobs now;
                "limited" if a rate limit was reached; any other text if no more jobs can run now.
            ms: for "limited", how long the limit holds; otherwise when the next delayed job is
                due (epoch ms; 0 for none).
        """
        if reason in {"", "more"}:
            self._nothing_to_fetch = False
        elif reason == "limited":
            self.pause_fetching(ms / 1000)
        else:
            self._nothing_to_fetch = True
            if self._free > 0:
                self._listener.listen(ms)
            self._changed.set()

    def _on_not_settled(self, job: Job, code: int | str) -> None:
        """Handle a job that a step did not settle; for ``code`` see ``worker_calls.why_not``."""
        if code in {worker_calls.PENDING_CHILDREN, worker_calls.FAILED_CHILDREN}:
            # The job is still active and ours. It counts as running until its failure is stored.
            self.in_hand[job.id] = job
            self._free -= 1
            self._fail_refused(job, int(code))
        elif self._recovery.was_probably_settled(job, code):
            self.completed_count += 1
            self.log.info("settled before the connection broke", job=job.id)
        else:
            why = worker_calls.why_not(code)
            self.log.error("result not stored", job=job.id, name=job.name, why=why)

    def _on_recovered(self) -> None:
        self._nothing_to_fetch = False
        self._send_steps()

    async def _check_stalled(self) -> None:
        """Run BullMQ's stalled check (wire format 5.13) now, and then once per interval.

        The check makes jobs of dead workers run again, or fails them. In each interval, Redis lets
        only one of the queue's workers check.
        """
        options = self.options
        interval_ms = round(options.stalled_interval_s * 1000)
        while True:
            now_ms = int(time.time() * 1000)
            call = worker_calls.stalled_check(
                self.keys, now_ms, interval_ms, options.max_stalled_count
            )
            try:
                ids, _ = await self.connection.run_call(call)
                if ids:
                    self.log.warning("stalled jobs brought back", jobs=",".join(ids))
                    self.fetch_again()
            except QctlError as error:
                self.log.warning("stalled check failed", why=error.why or error.what)
            await asyncio.sleep(options.stalled_interval_s)

    # Called by the runner

    def complete(self, job: Job, value: str) -> None:
        """Let the next step settle a job whose handler returned ``value`` (JSON)."""
        job.is_ending = True
        self._completed.append((job, value))
        self._free += 1
        if self._free < self.options.concurrency:
            self._send_steps_soon()
        else:
            # No other handler runs that could end in this turn.
            self._send_steps()

    def released(self, job: Job) -> None:
        """Forget a job that was not settled by ``complete``, and fetch another job."""
        self._forget(job)
        self._free += 1
        # Even if no job could run at the last fetch, the end of this job may let another job run.
        self._nothing_to_fetch = False
        self._send_steps()

    def pause_fetching(self, for_s: float) -> None:
        """Fetch no jobs for ``for_s``, at most 30 s. Do not shorten a pause that ends later."""
        until = self._loop.time() + min(for_s, MAX_LIMIT_WAIT_S)
        if self._limit_timer is not None:
            if self._limit_timer.when() >= until:
                return
            self._limit_timer.cancel()
        self._limit_timer = self._loop.call_at(until, self._on_limit_over)

    def _on_limit_over(self) -> None:
        self._limit_timer = None
        self.fetch_again()

    # Called by the listener and the worker

    def fetch_again(self) -> None:
        """Look for a new job now, unless a rate limit pauses fetching."""
        if self._limit_timer is None:
            self._nothing_to_fetch = False
            self._send_steps()

    @property
    def has_room(self) -> bool:
        """Whether the engine has room for another job, and is not stopping."""
        return self._free > 0 and not self.is_stopping

    @property
    def wants_marker(self) -> bool:
        """Whether the engine waits for a marker before its next fetch."""
        return self._nothing_to_fetch and not self.is_limited and not self.is_stopping

    @property
    def is_limited(self) -> bool:
        """Whether a rate limit pauses fetching."""
        return self._limit_timer is not None

    @property
    def is_busy(self) -> bool:
        """Whether a job is in hand or waits to be settled, or a step is in flight."""
        return bool(self.in_hand or self._steps_in_flight or self._completed)

    async def wait_idle(self) -> None:
        """Wait until no job is in hand and no step is in flight."""
        while self.is_busy:
            self._changed.clear()
            await self._changed.wait()

    async def wait_queue_empty(self) -> None:
        """Wait until no job is in hand, no rate limit applies, and the queue has no job to run."""
        while self.is_busy or not self._nothing_to_fetch or self.is_limited:
            self._changed.clear()
            await self._changed.wait()

    # The end

    def stop_fetching(self) -> None:
        """Fetch no more jobs. The jobs in hand continue."""
        if self.is_stopping:
            return
        self.is_stopping = True
        for task in self._tasks:
            task.cancel()
        self._leaving = self._loop.create_task(self._listener.leave())
        self._changed.set()

    async def give_back(self, jobs: Sequence[Job]) -> None:
        """Put jobs back into wait, to run next, without counting an attempt.

        Raises:
            QctlError: Redis cannot be reached, or refuses.
        """
        for start in range(0, len(jobs), worker_calls.MAX_BATCH):
            chunk = jobs[start : start + worker_calls.MAX_BATCH]
            pairs = [(job.id, job.token) for job in chunk]
            await self.connection.run_call(worker_calls.give_back(self.keys, pairs))
            for job in chunk:
                self._forget(job)

    def _return_unstarted(self, jobs: list[Job]) -> None:
        """Give back jobs from a step whose reply came after the stop began, or too late."""
        for job in jobs:
            self.in_hand[job.id] = job

        async def give_back() -> None:
            try:
                await self.give_back(jobs)
            except QctlError as error:
                self.log.error("jobs not given back", count=len(jobs), why=error.what)
            finally:
                # Whatever happened: a job that stays in hand would keep the worker busy for ever.
                for job in jobs:
                    self._forget(job)
            if not self.is_stopping:
                self._free += len(jobs)
                self.fetch_again()

        task = self._loop.create_task(give_back())
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)

    def _forget(self, job: Job) -> None:
        """Remove from ``in_hand`` a job that is no longer ours."""
        if self.in_hand.get(job.id) is job:
            del self.in_hand[job.id]
        self._changed.set()

    async def close(self) -> None:
        """Close the connections. A later stalled check brings back jobs still in hand."""
        self.stop_fetching()
        await self._recovery.close()
        if self._limit_timer is not None:
            self._limit_timer.cancel()
        # Redis may be away: do not wait for it.
        for task in self._tasks:
            task.cancel()
        await asyncio.wait([self._leaving, *self._tasks])
        await self.connection.close()
