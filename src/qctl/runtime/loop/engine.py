"""The heart of a worker: one queue, one event loop.

A *step* is one call of ``work.lua``: it settles all jobs that have completed since the last step
and fetches as many new ones as there is room for. Two steps may be in flight, so that Redis works
on one while the handlers of the other's jobs run; a lone job's step goes out at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any, Protocol

from qctl.connection import slot_moves as moving
from qctl.connection.address import Address, Arg
from qctl.errors import QctlError, ReplyError, UnreachableError, is_outage
from qctl.runtime.job.job import Job
from qctl.runtime.logs import Log
from qctl.runtime.loop.connection import AsyncConnection
from qctl.runtime.loop.listener import Listener
from qctl.runtime.loop.options import WorkerOptions
from qctl.runtime.loop.reconnect import RECONNECT_S, Recovery
from qctl.runtime.loop.sharing import Places
from qctl.runtime.loop.stalled import check_stalled
from qctl.wire.keys import QueueKeys
from qctl.wire.scripts import ScriptCall, source
from qctl.wire.write import worker_calls as working

STEPS_IN_FLIGHT = 2
MOST_LIMIT_WAIT_S = 30.0

Completed = tuple[Job, str]


class Runner(Protocol):
    """Runs the jobs that an engine fetches; see ``running.py``."""

    def start(self, job: Job) -> None: ...

    def refused(self, job: Job, code: int) -> None: ...


class Engine:
    """Fetches jobs, hands them to a runner, settles what they return.

    Args:
        keys: the queue.
        address: its Redis.
        options: the worker's.
        client_name: what the blocking connection calls itself (wire format 7.1).
        owner: what all lock tokens of this engine begin with; unique, and made here if not given.
    """

    def __init__(
        self,
        keys: QueueKeys,
        address: Address,
        options: WorkerOptions,
        client_name: str,
        owner: str = "",
    ) -> None:
        self.keys = keys
        self.owner = owner or str(uuid.uuid4())
        self.options = options
        self.log = Log("worker", queue=keys.name)
        self.connection = AsyncConnection(address, key=keys(""))
        self.listener = Listener(self, address, client_name)
        # Every job that is ours, from its fetch until Redis says that it is settled.
        self.in_hand: dict[str, Job] = {}
        self.completed_count = 0
        # How often a call was made once more, as it was unknown whether Redis had done it.
        self.resent = 0
        self.last_fetch_at = 0.0
        self.is_stopping = False
        limit = options.rate_limit
        self._step = working.Step(
            keys,
            round(options.lock_ttl_s * 1000),
            options.name,
            (limit.jobs, round(limit.per_s * 1000)) if limit else None,
            options.metrics_minutes,
        )
        self._head, self._options = self._step.head(), self._step.options()
        self._most = min(working.MAX_BATCH, -(-options.concurrency // STEPS_IN_FLIGHT))
        self._free = options.concurrency
        self._places = Places()
        self._settled: deque[Completed] = deque()
        self._steps = 0
        self._fetches = 0
        self._steps_sent = 0
        self.is_drained = False
        self._limited: asyncio.TimerHandle | None = None
        self._kick_is_due = False
        self._tasks: list[asyncio.Task[None]] = []
        self._leaving: asyncio.Task[None] | None = None
        self._recovery = Recovery(self)
        self._changed = asyncio.Event()
        self._runner: Runner

    # Life

    async def open(self, runner: Runner) -> None:
        """Connect and begin to fetch.

        Raises:
            UnreachableError, ReplyError: Redis cannot be reached, or does not let us in.
        """
        self._runner = runner
        self._loop = asyncio.get_running_loop()
        await self.connection.open()
        await self.connection.call("SCRIPT", "LOAD", source("work"))
        await self.listener.open()
        self._tasks = [
            self._loop.create_task(check_stalled(self), name=f"stalled {self.keys.name}"),
        ]
        self._kick()

    def stop_fetching(self) -> None:
        """Take no more jobs; those in hand go on."""
        if self.is_stopping:
            return
        self.is_stopping = True
        for task in self._tasks:
            task.cancel()
        self._leaving = self._loop.create_task(self.listener.leave())
        self._note_change()

    async def wait_idle(self) -> None:
        """Until no job is in hand and nothing is on its way to Redis."""
        while self.in_hand or self._steps or self._settled:
            self._changed.clear()
            await self._changed.wait()

    async def wait_drained(self) -> None:
        """Until a fetch has found nothing while no job was in hand."""
        while self.in_hand or self._steps or self._settled or not self.is_drained or self._limited:
            self._changed.clear()
            await self._changed.wait()

    async def give_back(self, jobs: Sequence[Job]) -> None:
        """Jobs go back to wait, to run next; no attempt is counted.

        Raises:
            QctlError: Redis could not do it.
        """
        for start in range(0, len(jobs), working.MAX_BATCH):
            chunk = jobs[start : start + working.MAX_BATCH]
            pairs = [(job.id, job.token) for job in chunk]
            await self.connection.run_call(working.give_back(self.keys, pairs))
            for job in chunk:
                self.forget(job)

    async def close(self) -> None:
        """End the connections. What is still in hand is left to the stalled check."""
        self.stop_fetching()
        await self._recovery.close()
        if self._limited is not None:
            self._limited.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._leaving is not None:
            await self._leaving
        await self.connection.close()

    # What the runner says

    def complete(self, job: Job, value: str) -> None:
        """The job's handler has returned ``value`` (JSON); the next step settles it."""
        job.is_ending = True
        self._settled.append((job, value))
        self._free += 1
        if not self._kick_is_due:
            # Behind all handlers that are ready now, so that one step takes what they return.
            self._kick_is_due = True
            self._loop.call_soon(self._kick)

    def forget(self, job: Job) -> None:
        """The job is no longer ours, however it ended."""
        if self.in_hand.get(job.id) is job:
            del self.in_hand[job.id]
        self._note_change()

    def released(self, job: Job) -> None:
        """The job has ended in another way than by ``complete``: its place is free."""
        self.forget(job)
        self._free += 1
        # As a step of a completed job would: see whether there is another one.
        self.is_drained = False
        self._kick()

    def hold_fetching(self, for_s: float) -> None:
        """Fetch nothing for a time (a rate limit), at most half a minute; the longest holds."""
        self.is_drained = True
        until = self._loop.time() + min(for_s, MOST_LIMIT_WAIT_S)
        if self._limited is not None:
            if self._limited.when() >= until:
                return
            self._limited.cancel()
        self._limited = self._loop.call_at(until, self._fetch_again)

    async def run_call(self, call: ScriptCall) -> Any:
        """A transition of a job in hand. While Redis is away it is tried again and again.

        Raises:
            ReplyError: the script failed, and would fail again.
            UnreachableError: this engine is closed.
        """
        return await self._persist(lambda: self.connection.run_call(call))

    async def command(self, *command: Arg) -> Any:
        """The same for one command."""
        return await self._persist(lambda: self.connection.call(*command))

    async def _persist(self, send: Callable[[], Any]) -> Any:
        pause_s, most_s = RECONNECT_S
        while True:
            is_let_in = False
            try:
                await self.connection.open()
                is_let_in = True
                return await send()
            except (UnreachableError, ReplyError) as error:
                # Whatever keeps us out now let us in before.
                is_passing = not is_let_in or is_outage(error)
                if self.connection.is_closed or not is_passing:
                    raise
                # One that was refused has certainly not been done.
                self.resent += not moving.is_refusal(error)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, most_s)

    # Steps

    def _kick(self) -> None:
        """Send as many steps as are useful now."""
        self._kick_is_due = False
        if self._recovery.is_under_way:
            return
        if not self.connection.is_open:
            self._recovery.begin([], None)
            return
        while self._steps < STEPS_IN_FLIGHT and self.connection.is_open:
            settling = min(len(self._settled), self._most)
            wanted = 0
            may_fetch = not self.is_stopping and self._limited is None
            if may_fetch and (settling or not self.is_drained):
                wanted = max(min(self._free, self._most), 0)
            if not settling and (not wanted or self._fetches):
                # A second fetch beside one that may find nothing is of no use.
                return
            self._send_step(settling, wanted)

    def _send_step(self, settling: int, wanted: int) -> None:
        pop = self._settled.popleft
        batch = [pop() for _ in range(settling)]
        # What several jobs have in common goes once: as a rule there is one group, or two.
        groups: dict[tuple[str, str, int, str], int] = {}
        jobs: list[Any] = []
        default = self.options.keep_completed
        for job, value in batch:
            rule = job.policy.keep_completed or default
            group = (job.token, rule, job.attempts_made + 1, job.fields.get("deid", ""))
            number = groups.get(group)
            if number is None:
                number = groups[group] = len(groups) + 1
            jobs += (job.id, value, number)
        self._fetches += not settling
        self._steps += 1
        held = self.options.concurrency - self._free + settling
        kept = self._places.kept(settling, held, self._loop.time()) if settling else 0
        self._free -= wanted
        token = f"{self.owner}:{self._steps_sent}"
        self._steps_sent += 1
        self.connection.send(
            (
                *self._head, int(time.time() * 1000), token, self._step.lock_ms, wanted, kept,
                *self._options, len(groups), *chain.from_iterable(groups), *jobs,
            ),
            partial(self._on_step, batch, wanted, token),
        )  # fmt: skip

    def _on_step(self, batch: list[Completed], wanted: int, token: str, reply: Any) -> None:
        self._steps -= 1
        self._fetches -= not batch
        if isinstance(reply, Exception):
            self._free += wanted
            self._step_failed(batch, reply)
            return
        codes, fetched, reason, ms = reply
        in_hand = self.in_hand
        for job, _ in batch:
            if in_hand.get(job.id) is job:
                del in_hand[job.id]
        self.completed_count += len(batch) - len(codes) // 2
        for position, code in zip(codes[::2], codes[1::2], strict=True):
            self._not_settled(batch[position - 1][0], code)
        now = self._loop.time()
        self._free += wanted - len(fetched) // 2
        if reason == "failed":
            self._recovery.begin([], ReplyError(ms))
        else:
            self._recovery.succeeded(batch)
        if wanted and reason != "failed":
            self.last_fetch_at = now
            self._note_reason(reason, int(ms))
        jobs = zip(fetched[::2], fetched[1::2], strict=True)
        if fetched and self.is_stopping:
            self._return_unstarted([Job(*row, token, self, now) for row in jobs])
        else:
            start = self._runner.start
            for id_, flat in jobs:
                job = in_hand[id_] = Job(id_, flat, token, self, now)
                start(job)
        if not in_hand:
            self._note_change()
        if self._settled or (self._free > 0 and not self.is_drained):
            self._kick()

    def _note_reason(self, reason: str, ms: int) -> None:
        if reason in {"", "more"}:
            self.is_drained = False
        elif reason == "limited":
            self.hold_fetching(ms / 1000)
        else:
            self.is_drained = True
            if self._free > 0:
                self.listener.listen(ms)
            self._note_change()

    def _fetch_again(self) -> None:
        self._limited = None
        self.may_be_more()

    @property
    def has_room(self) -> bool:
        """Whether another job could start now."""
        return self._free > 0

    @property
    def is_limited(self) -> bool:
        """Whether a rate limit holds."""
        return self._limited is not None

    def may_be_more(self) -> None:
        """There may be something to fetch."""
        if self._limited is None:
            self.is_drained = False
            self._kick()

    def _not_settled(self, job: Job, code: int | str) -> None:
        if code in {working.PENDING_CHILDREN, working.FAILED_CHILDREN}:
            # Still active and ours: it fails, and takes its place again until it has.
            self.in_hand[job.id] = job
            self._free -= 1
            self._runner.refused(job, int(code))
        elif self._recovery.has_settled(job, code):
            self.completed_count += 1
            self.log.info("settled before the connection broke", job=job.id)
        else:
            why = working.why_not(code)
            self.log.error("result not stored", job=job.id, name=job.name, why=why)

    def _return_unstarted(self, jobs: list[Job]) -> None:
        """Jobs that came after the stop go back."""
        for job in jobs:
            self.in_hand[job.id] = job

        async def give_back() -> None:
            try:
                await self.give_back(jobs)
            except QctlError as error:
                self.log.error("jobs not given back", count=len(jobs), why=error.what)
                for job in jobs:
                    self.forget(job)

        self._keep(self._loop.create_task(give_back()))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)

    def _note_change(self) -> None:
        self._changed.set()

    def _step_failed(self, batch: list[Completed], error: Exception) -> None:
        self._settled.extendleft(reversed(batch))
        self._recovery.begin([job for job, _ in batch], error)
        self._note_change()

    def recovered(self) -> None:
        """Redis takes steps again."""
        self.is_drained = False
        self._kick()
