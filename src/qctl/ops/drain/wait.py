"""Wait until no job is active except orphans, which have lost their worker."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence

from qctl.errors import QctlError, is_outage
from qctl.ops.drain.context import DrainContext, TimedOut
from qctl.ops.drain.pause import keep_paused
from qctl.ops.drain.steps import Drained, Paused, Step, TimeUp, Waiting
from qctl.ops.processes.restart import Interrupted
from qctl.wire.keys import JobKey
from qctl.wire.read.active import ActiveJob, read_active
from qctl.wire.read.server import clock_ms

# An event of an active job starts the next reading at once. A change without an event, such as a
# lock that expires, is noticed at the next poll.
POLL_S = 1.0


def wait_for_jobs(context: DrainContext) -> Generator[Step, None, tuple[ActiveJob, ...]]:
    """Wait for the active jobs.

    Returns:
        the jobs that still run after the timeout, if the operator wants to restart anyway; empty
        if no job runs.

    Raises:
        TimedOut: jobs still run after the timeout, and no restart may interrupt them.
        Interrupted: the operator wants to stop.
        QctlError: Redis is away for too long, or a queue cannot be kept paused.
    """
    began = time.monotonic()
    active: Sequence[ActiveJob] = ()
    shown: tuple[JobKey, ...] | None = None
    shown_at = 0.0
    while True:
        if context.stop():
            raise Interrupted
        again: list[Paused] = []
        trouble: QctlError | None = None
        with context.client.at_most(POLL_S):
            try:
                again = keep_paused(context)
                now_ms = clock_ms(context.client)
                active = read_active(context.client, context.queues)
                context.tracker.ledger.note_locks(active, now_ms)
            except QctlError as error:
                # An outage does not end the wait before the timeout.
                if not is_outage(error):
                    raise
                trouble = error
        yield from again
        is_away = trouble is not None
        waited_s = time.monotonic() - began
        blocking = tuple(job.key for job in active if not job.is_orphan)
        if not blocking and not is_away:
            yield Drained(round(waited_s, 3), context.plan.shown(active, orphans=True))
            return ()
        if waited_s > context.options.timeout_s:
            if trouble is not None:
                # It is unknown which jobs still run, and no queue can be resumed now.
                raise trouble
            if not context.plan.restarts or not context.options.restart_on_timeout:
                raise TimedOut(active)
            yield TimeUp(context.options.timeout_s, context.plan.shown(active))
            return tuple(job for job in active if not job.is_orphan)
        if blocking != shown or time.monotonic() - shown_at >= POLL_S:
            shown, shown_at = blocking, time.monotonic()
            yield Waiting(
                active=context.plan.shown(active),
                orphans=context.plan.shown(active, orphans=True),
                waited_s=round(waited_s, 1),
                redis_away=is_away,
            )
        with context.client.at_most(0.0):
            _await_news(context, frozenset(blocking), is_away=is_away)


def _await_news(context: DrainContext, blocking: frozenset[JobKey], *, is_away: bool) -> None:
    """Wait at most ``POLL_S`` until a job in ``blocking`` moves, a pause changes, or Redis is away.

    Other events are ignored, because on a busy queue each new job would start another reading.
    """
    deadline = time.monotonic() + POLL_S
    while time.monotonic() < deadline and not context.stop():
        if is_away:
            time.sleep(0.1)
            continue
        try:
            events = context.tracker.follow(wait=True)
        except QctlError as error:
            if not is_outage(error):
                raise
            return
        for keys, event in events:
            has_moved = event.name != "progress" and (keys, event.job_id) in blocking
            if has_moved or event.name in {"paused", "resumed"}:
                return
