"""Runs jobs, and stores in Redis how each run ended (wire format 7.5)."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Mapping
from functools import partial
from typing import Any

from qctl.errors import QctlError, UsageError
from qctl.runtime.handlers.tasks import Call
from qctl.runtime.job.current import set_current_job
from qctl.runtime.job.job import Job
from qctl.runtime.job.outcomes import (
    InvalidDataError,
    RateLimited,
    RetryLater,
    UnrecoverableError,
    WaitForChildren,
    text_of,
)
from qctl.runtime.job.policy import UnknownBackoffError, backoff_s
from qctl.runtime.loop.engine import Engine
from qctl.wire.encoding import encode_json
from qctl.wire.keys import iteration_prefix
from qctl.wire.replies import read_json, to_int
from qctl.wire.schedulers.scheduling import next_iteration_call
from qctl.wire.scripts import ScriptCall
from qctl.wire.write import worker_calls
from qctl.wire.write.cancelling import failed_reason

# If a scheduler's next job cannot be made here, its current job is delayed for this time, so that
# another worker may run it.
SCHEDULER_PAUSE_S = 30.0


class JobRunner:
    """Runs the jobs of one engine.

    Args:
        calls: the handlers' calls by job name; the key None is for every other name.
    """

    def __init__(self, engine: Engine, calls: Mapping[str | None, Call]) -> None:
        self._engine = engine
        if engine.log.has_debug:
            calls = {name: partial(self._run_noting, call) for name, call in calls.items()}
        self._calls = calls
        self._default_call = calls.get(None)
        self._max_starts = engine.options.max_started_attempts
        self._loop = asyncio.get_running_loop()
        self.failed_count = 0
        self._is_cancelling = False
        # Jobs that somebody has cancelled, each with the reason.
        self._cancelled: dict[Job, str] = {}

    def start(self, job: Job) -> None:
        """Run a job that was just fetched, in a task of its own."""
        call = self._calls.get(job.name, self._default_call)
        fields = job.fields
        # Most jobs have a handler, no deferred failure (``defa``) and no scheduler (``rjk``).
        if call is None or "defa" in fields or "rjk" in fields or self._max_starts is not None:
            job.task = self._loop.create_task(self._run_specially(job, call))
        else:
            job.task = self._loop.create_task(self._run(job, call))

    def fail_refused(self, job: Job, code: int) -> None:
        """Fail a job that Redis refused to complete because of the job's children."""
        text = f"cannot complete: {worker_calls.CODE_TEXTS[code]}"
        error: Exception = RuntimeError(text)
        if code == worker_calls.FAILED_CHILDREN:
            # Failed children stay failed, so a retry is useless. Pending children may have ended by
            # the time of a retry.
            error = UnrecoverableError(text)
        job.task = self._loop.create_task(self._settle(job, error))

    def cancel_all(self) -> list[Job]:
        """Cancel the tasks that run the jobs in hand. Each task then gives its job back.

        Returns:
            all jobs in hand, including those that were already ending, which are not cancelled.
        """
        self._is_cancelling = True
        jobs = list(self._engine.in_hand.values())
        # Each job goes back to the head of the queue, so the job given back last runs first.
        for job in reversed(jobs):
            if job.task is not None and not job.is_ending:
                job.task.cancel()
        return jobs

    def cancel(self, job: Job, reason: str) -> None:
        """Cancel the handler of one job. The job then fails, and is not retried."""
        in_hand = self._engine.in_hand
        if job.task is None or job.is_ending or in_hand.get(job.id) is not job:
            return
        # A handler may ignore the cancellation and complete its job: forget such jobs.
        self._cancelled = {j: r for j, r in self._cancelled.items() if in_hand.get(j.id) is j}
        self._cancelled[job] = reason
        job.task.cancel()
        job.task.add_done_callback(partial(self._settle_unstarted, job))

    def _settle_unstarted(self, job: Job, task: asyncio.Task[None]) -> None:
        """Settle a job that was cancelled before its task could call the handler."""
        if not task.cancelled() or job.is_ending or self._is_cancelling:
            return
        error: BaseException = asyncio.CancelledError()
        if job.scheduler is not None:
            # The scheduler's next job may not have been made, and without it the scheduler would
            # end. So the job goes back to wait, where it may be cancelled again.
            del self._cancelled[job]
            error = RetryLater(0, counted=False)
        job.task = self._loop.create_task(self._settle(job, error, ran=False))

    async def _run(self, job: Job, call: Call) -> None:
        set_current_job(job)
        try:
            value = await call(job)
            text = "null" if value is None else encode_json(value, "what the task returned")
        except BaseException as error:
            # With invalid data, the handler was not called, so a traceback is of no use.
            await self._settle(job, error, ran=not isinstance(error, InvalidDataError))
        else:
            # The task's context refers to the job (``current_job``), and ``job.task`` to the task.
            # Without this line, only a garbage collection would free them, at 2 µs per job.
            job.task = None
            self._engine.complete(job, text)

    async def _run_noting(self, call: Call, job: Job) -> Any:
        """Run a job, and log its start and the end of its handler."""
        log = self._engine.log
        which = {"job": job.id, "name": job.name, "attempt": job.attempts_made + 1}
        log.debug("job started", **which)
        value = await call(job)
        log.debug("job done", **which, in_s=round(self._loop.time() - job.started_at, 3))
        return value

    async def _run_specially(self, job: Job, call: Call | None) -> None:
        """Run a job that needs more than its handler's call, or fail a job that must not run."""
        if job.scheduler is not None and not await self._schedule_next(job):
            await self._settle(job, RetryLater(SCHEDULER_PAUSE_S, counted=False), ran=False)
        elif reason := job.fields.get("defa"):
            await self._settle(job, UnrecoverableError(reason), ran=False)
        elif self._max_starts is not None and job.attempts_started > self._max_starts:
            error = UnrecoverableError("job started more than allowable limit")
            await self._settle(job, error, ran=False)
        elif call is None:
            names = ", ".join(sorted(name for name in self._calls if name)) or "none"
            error = UnrecoverableError(f"no task is named {job.name!r}; this worker has: {names}")
            await self._settle(job, error, ran=False)
        else:
            await self._run(job, call)

    async def _schedule_next(self, job: Job) -> bool:
        """Make the next job of the job's scheduler (wire format 6.4).

        Returns:
            whether the job may run. It must not run before the scheduler's next job exists, because
            the scheduler would then end.
        """
        engine = self._engine
        try:
            call = next_iteration_call(engine.keys, job.id, job.fields, _now_ms())
            if call is not None:
                await engine.link.run_call(call)
        except Exception as error:
            if isinstance(error, UsageError) and not await self._is_registered(job):
                # The scheduler was removed, or has another current job.
                return True
            engine.log.error(
                "the scheduler's next job cannot be made here; delaying this job",
                scheduler=job.scheduler, job=job.id, in_s=SCHEDULER_PAUSE_S, why=describe(error),
            )  # fmt: skip
            return False
        return True

    async def _is_registered(self, job: Job) -> bool:
        """Whether this is the current job of its scheduler."""
        scheduler = job.scheduler or ""
        score = await self._engine.link.command(
            *worker_calls.scheduler_due(self._engine.keys, scheduler)
        )
        return job.id == f"{iteration_prefix(scheduler)}{to_int(score)}"

    async def _settle(self, job: Job, error: BaseException, *, ran: bool = True) -> None:
        """Settle a job whose handler raised or was not called.

        Args:
            error: decides the outcome; see ``qctl.runtime.job.outcomes``.
            ran: whether the handler was called. If not, the error's traceback is not stored.
        """
        job.is_ending = True
        try:
            await self._store_outcome(job, error, ran=ran)
        except Exception as failure:
            # The lock expires; the stalled check then makes the job run again, or fails it.
            why = failure.what if isinstance(failure, QctlError) else describe(failure)
            self._engine.log.error("job's outcome not stored", job=job.id, name=job.name, why=why)
        finally:
            job.task = None
            self._engine.released(job)

    async def _store_outcome(self, job: Job, error: BaseException, *, ran: bool) -> None:
        engine = self._engine
        if job in self._cancelled:
            cancelled = UnrecoverableError(failed_reason(self._cancelled.pop(job)))
            cancelled.__cause__ = error
            error = cancelled
        match error:
            case asyncio.CancelledError() if self._is_cancelling:
                await self._give_back(job)
            case RateLimited():
                await engine.link.command(*worker_calls.stop_queue(engine.keys, _ms(error.delay_s)))
                engine.pause_fetching(error.delay_s)
                await self._give_back(job)
            case RetryLater(counted=False) if error.delay_s <= 0:
                await self._give_back(job)
            case RetryLater(counted=False):
                await self._retry(job, error.delay_s, counted=False)
            case WaitForChildren():
                await self._wait_for_children(job)
            case _:
                await self._fail_or_retry(job, error, ran=ran)

    async def _wait_for_children(self, job: Job) -> None:
        call = worker_calls.wait_children(self._engine.keys, job.id, job.token, _now_ms())
        code, was_away = await self._engine.link.run_call_noting_retries(call)
        if code == 1:
            # No child is pending any more.
            await self._give_back(job)
        elif code == worker_calls.FAILED_CHILDREN:
            text = f"cannot go on: {worker_calls.CODE_TEXTS[code]}"
            await self._fail_or_retry(job, UnrecoverableError(text), ran=True)
        else:
            self._report_refusal(job, code, was_away=was_away)

    async def _fail_or_retry(self, job: Job, error: BaseException, *, ran: bool) -> None:
        engine = self._engine
        delay_s = self._delay_before_retry(job, error)
        reason, traces = describe(error), _stack_traces(job, error, ran=ran)
        self._log_failure(job, error, reason, delay_s, ran=ran)
        if delay_s is not None:
            await self._retry(job, delay_s, counted=True, reason=reason, stacktrace=traces)
            return
        self.failed_count += 1
        call = worker_calls.fail(
            engine.keys, job.id, job.token, _now_ms(),
            reason=reason, stacktrace=traces, attempts=job.policy.attempts,
            attempts_made=job.attempts_made + 1, dedup_id=job.fields.get("deid", ""),
            keep=job.policy.keep_failed or engine.options.keep_failed,
            metrics_minutes=engine.options.metrics_minutes,
        )  # fmt: skip
        await self._run_last_call(job, call)

    def _log_failure(
        self, job: Job, error: BaseException, reason: str, delay_s: float | None, *, ran: bool
    ) -> None:
        is_final = delay_s is None
        self._engine.log.with_traceback(
            logging.ERROR if is_final else logging.WARNING,
            "job failed" if is_final else "job failed, runs again",
            # No traceback if the handler did not run, or if it asked to run later (RetryLater).
            error if ran and not isinstance(error, RetryLater) else None,
            job=job.id, name=job.name, attempt=job.attempts_made + 1,
            error=type(error).__name__, why=reason, **({} if is_final else {"in_s": delay_s}),
        )  # fmt: skip

    def _delay_before_retry(self, job: Job, error: BaseException) -> float | None:
        """Return the delay before the next attempt, in seconds; None if the job is not retried."""
        # Compared by name as well: the app may raise another package's UnrecoverableError.
        if isinstance(error, UnrecoverableError) or type(error).__name__ == "UnrecoverableError":
            return None
        if job.attempts_made + 1 >= job.policy.attempts:
            return None
        if self._max_starts is not None and job.attempts_started >= self._max_starts:
            return None
        if isinstance(error, RetryLater):
            return error.delay_s
        try:
            delay_s = float(
                backoff_s(job.policy, job.attempts_made + 1, error, self._engine.options.backoffs)
            )
            # Raises an exception if the delay is not a finite number.
            _ms(delay_s)
        except Exception as failure:
            if not isinstance(failure, UnknownBackoffError):
                self._engine.log.error("backoff function failed", job=job.id, why=failure)
            error.add_note(f"no retry: {describe(failure)}")
            return None
        return None if delay_s < 0 else delay_s

    async def _retry(self, job: Job, delay_s: float, *, counted: bool, **failure: str) -> None:
        engine = self._engine
        call = worker_calls.retry(
            engine.keys, job.id, job.token, _now_ms(),
            delay_ms=_ms(delay_s), counted=counted, lifo=job.policy.lifo, **failure,
        )  # fmt: skip
        await self._run_last_call(job, call)

    async def _give_back(self, job: Job) -> None:
        engine = self._engine
        call = worker_calls.give_back(engine.keys, [(job.id, job.token)])
        (_, codes), was_away = await engine.link.run_call_noting_retries(call)
        self._report_refusal(job, codes[0], was_away=was_away)

    async def _run_last_call(self, job: Job, call: ScriptCall) -> None:
        code, was_away = await self._engine.link.run_call_noting_retries(call)
        self._report_refusal(job, code, was_away=was_away)

    def _report_refusal(self, job: Job, code: int | str, *, was_away: bool) -> None:
        """Log if Redis has not stored a job's outcome; ``code`` 0 means that it is stored."""
        log = self._engine.log
        is_no_longer_ours = code in {
            worker_calls.MISSING,
            worker_calls.NO_LOCK,
            worker_calls.OTHER_LOCK,
        }
        if is_no_longer_ours and was_away:
            log.info("job's outcome was already stored, or its lock has expired", job=job.id)
        elif code != 0:
            why = worker_calls.why_not(code)
            log.error("job's outcome not stored", job=job.id, name=job.name, why=why)


def describe(error: BaseException) -> str:
    """An error as text for ``failedReason``, with its type if the message alone says too little."""
    text = text_of(error)
    if not text or isinstance(error, LookupError):
        kind = type(error).__name__
        text = f"{kind}: {text}" if text else kind
    for note in getattr(error, "__notes__", ()):
        text += f" ({note})"
    return text


def _stack_traces(job: Job, error: BaseException, *, ran: bool) -> str:
    """The newest stack traces that the job may keep, this error's included, as JSON."""
    traces, _ = read_json(job.fields.get("stacktrace"), [])
    if not isinstance(traces, list):
        traces = []
    text = "".join(traceback.format_exception(error)) if ran else f"{type(error).__name__}: {error}"
    traces.append(text.rstrip("\n"))
    limit = job.policy.stack_traces
    if limit is not None:
        traces = traces[-limit:] if limit > 0 else []
    return encode_json(traces, "the stack traces")


def _now_ms() -> int:
    return int(time.time() * 1000)


def _ms(delay_s: float) -> int:
    return max(round(delay_s * 1000), 0)
