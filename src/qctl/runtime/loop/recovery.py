"""Reconnects a worker after a failed step or a broken connection, without losing a job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from qctl.connection import slot_moves
from qctl.errors import QctlError, ReplyError, UnreachableError
from qctl.runtime.job.job import Job
from qctl.runtime.logs import Log
from qctl.runtime.loop.connection import (
    MAX_RECONNECT_PAUSE_S,
    MIN_RECONNECT_PAUSE_S,
    reconnect_pauses,
)
from qctl.runtime.loop.shared_connection import SharedConnection
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import value_or
from qctl.wire.scripts import source
from qctl.wire.write import worker_calls


class Recovery:
    """Reconnects an engine when its connection breaks or a step (see ``engine.py``) fails.

    Redis may or may not have run a step that was in flight. Jobs that the step settled cannot be
    settled again. Jobs that the step fetched are active under a lock token of the engine, but no
    handler runs them, because the reply never arrived: ``Recovery`` gives such jobs back to wait.

    Args:
        owner: the engine's id; its lock tokens are ``OWNER:STEP``.
        on_recovered: called when the engine may send steps again; Redis may still refuse them.
    """

    def __init__(
        self,
        keys: QueueKeys,
        connection: SharedConnection,
        log: Log,
        *,
        owner: str,
        in_hand: dict[str, Job],
        on_recovered: Callable[[], None],
    ) -> None:
        self._keys = keys
        self._connection = connection
        self._log = log
        self._owner = owner
        self._in_hand = in_hand
        self._on_recovered = on_recovered
        # Ids of jobs that Redis may have settled in a step whose reply was lost.
        self._maybe_settled: set[str] = set()
        self._may_have_fetched = False
        # How many steps in a row Redis has answered with an error.
        self._error_replies = 0
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        # Whether a recovery runs. During a recovery, the engine must not send a step: the jobs that
        # this step fetches would look like the jobs of a step whose reply was lost.
        self.is_under_way = False

    def begin(self, jobs: Sequence[Job], error: Exception | None) -> None:
        """Recover from a step that failed, or from a connection that broke between steps.

        Args:
            jobs: the jobs that the step was to settle; none if Redis has reported their outcome.
            error: the error of the step; None if the connection broke between steps.
        """
        # Redis has run nothing if it lacks the script, or refuses because the queue's slot moves.
        is_slot_move = slot_moves.is_refusal(error)
        if error is not None and not (isinstance(error, ReplyError) and error.code == "NOSCRIPT"):
            if not is_slot_move:
                self._maybe_settled.update(job.id for job in jobs)
                self._may_have_fetched = True
            if not isinstance(error, UnreachableError):
                if not self._error_replies:
                    log = self._log.warning if is_slot_move else self._log.error
                    log("Redis answers with an error", why=str(error))
                self._error_replies += 1
        if not self.is_under_way and not self._is_closed:
            self.is_under_way = True
            self._task = asyncio.get_running_loop().create_task(self._recover())

    def note_success(self, batch: Sequence[tuple[Job, str]]) -> None:
        """Record the success of the step that settled ``batch``."""
        if self._maybe_settled:
            self._maybe_settled.difference_update(job.id for job, _ in batch)
        self._error_replies = 0

    def was_probably_settled(self, job: Job, code: int | str) -> bool:
        """Whether a step whose reply was lost has probably settled this job already."""
        is_lost = code in {worker_calls.MISSING, worker_calls.NO_LOCK}
        return is_lost and job.id in self._maybe_settled

    async def close(self) -> None:
        """Stop a recovery that is under way, and start no more."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _recover(self) -> None:
        if self._error_replies:
            # An immediate retry does not help against full memory, a replica or a broken key.
            pause_s = MIN_RECONNECT_PAUSE_S * 2 ** min(self._error_replies, 10)
            await asyncio.sleep(min(pause_s, MAX_RECONNECT_PAUSE_S))
        trouble = ""
        for pause_s in reconnect_pauses():
            try:
                await self._connection.call("SCRIPT", "LOAD", source("settle_and_fetch"))
                if self._may_have_fetched:
                    await self._return_unknown_jobs({job.token for job in self._in_hand.values()})
                    self._may_have_fetched = False
                break
            except QctlError as error:
                previous = trouble
                trouble = "answers with an error" if isinstance(error, ReplyError) else "is away"
                if trouble != previous:
                    self._log.warning(f"Redis {trouble}", why=error.why or error.what)
            await asyncio.sleep(pause_s)
        if trouble:
            self._log.info("Redis serves the worker again")
        self.is_under_way = False
        self._on_recovered()

    async def _return_unknown_jobs(self, known_tokens: Collection[str]) -> None:
        """Give back the active jobs whose lock token is this engine's and not a known token."""
        keys, connection = self._keys, self._connection
        ids = await connection.call("LRANGE", keys("active"), 0, -1)
        tokens = await connection.pipeline([("GET", keys.lock(job_id)) for job_id in ids])
        unknown = [
            (job_id, token)
            for job_id, reply in zip(ids, tokens, strict=True)
            if (token := value_or(reply, None) or "").startswith(f"{self._owner}:")
            and token not in known_tokens
        ]
        if unknown:
            self._log.warning("the reply to a fetch was lost: giving jobs back", count=len(unknown))
        for start in range(0, len(unknown), worker_calls.MAX_BATCH):
            chunk = unknown[start : start + worker_calls.MAX_BATCH]
            await connection.run_call(worker_calls.give_back(keys, chunk))
