"""After a step went wrong: Redis is back, and nothing was lost in between."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from qctl.connection import slot_moves as moving
from qctl.errors import QctlError, ReplyError, UnreachableError
from qctl.runtime.job.job import Job
from qctl.wire.replies import value_or
from qctl.wire.scripts import source
from qctl.wire.write import worker_calls as working

if TYPE_CHECKING:
    from qctl.runtime.loop.engine import Engine

# First and longest pause between attempts, in seconds.
RECONNECT_S = (0.05, 3.0)


class Recovery:
    """Brings an engine's connection back.

    A connection that breaks, or a step that ends in an error, leaves it unknown how much of the
    steps under way Redis has done. It may have settled their jobs, which then cannot be settled
    again; and it may have fetched jobs for us that we have never heard of: those are active under a
    token of ours, nobody runs them, and they are given back here.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._unknown: set[str] = set()
        self._is_suspect = False
        self._refusals = 0
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        # No step may be sent meanwhile: what it fetched would pass for the jobs of a lost reply.
        self.is_under_way = False

    def begin(self, jobs: Sequence[Job], error: Exception | None) -> None:
        """A step failed, or the connection broke while none was under way.

        Args:
            jobs: those that it was to settle.
            error: the step's.
        """
        engine = self._engine
        is_refusal = moving.is_refusal(error)
        if error is not None and not (isinstance(error, ReplyError) and error.code == "NOSCRIPT"):
            if not is_refusal:
                self._unknown.update(job.id for job in jobs)
                self._is_suspect = True
            if not isinstance(error, UnreachableError):
                if not self._refusals:
                    log = engine.log.warning if is_refusal else engine.log.error
                    log("Redis refuses the worker's steps", why=str(error))
                self._refusals += 1
        if not self.is_under_way and not self._is_closed:
            self.is_under_way = True
            self._task = asyncio.get_running_loop().create_task(self._recover())

    def succeeded(self, batch: Sequence[tuple[Job, str]]) -> None:
        """A step went well that was to settle ``batch``."""
        if self._unknown:
            self._unknown.difference_update(job.id for job, _ in batch)
        self._refusals = 0

    def has_settled(self, job: Job, code: int | str) -> bool:
        """Whether a job that could not be settled had been settled by the step before."""
        return job.id in self._unknown and code in {working.MISSING, working.NO_LOCK}

    async def close(self) -> None:
        """Give up, for good."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _recover(self) -> None:
        engine = self._engine
        pause_s, most_s = RECONNECT_S
        is_away = False
        if self._refusals:
            # No memory, a replica, a key of a wrong type: no use to hurry.
            await asyncio.sleep(min(pause_s * 2 ** min(self._refusals, 10), most_s))
        while True:
            try:
                await engine.connection.call("SCRIPT", "LOAD", source("work"))
                if self._is_suspect:
                    await self._reclaim({job.token for job in engine.in_hand.values()})
                    self._is_suspect = False
                break
            except QctlError as error:
                if not is_away:
                    is_away = True
                    engine.log.warning("Redis is away", why=error.why or error.what)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, most_s)
        if is_away:
            engine.log.info("Redis is back")
        self.is_under_way = False
        engine.recovered()

    async def _reclaim(self, known: Collection[str]) -> None:
        """Give back what is active under a token of ours that is not ``known``."""
        engine, keys = self._engine, self._engine.keys
        ids = await engine.connection.call("LRANGE", keys("active"), 0, -1)
        tokens = await engine.connection.pipeline([("GET", keys.lock(job_id)) for job_id in ids])
        lost = [
            (job_id, token)
            for job_id, reply in zip(ids, tokens, strict=True)
            if (token := value_or(reply, None) or "").startswith(f"{engine.owner}:")
            and token not in known
        ]
        if lost:
            engine.log.warning("giving back jobs of a lost reply", count=len(lost))
        for start in range(0, len(lost), working.MAX_BATCH):
            chunk = lost[start : start + working.MAX_BATCH]
            await engine.connection.run_call(working.give_back(keys, chunk))
