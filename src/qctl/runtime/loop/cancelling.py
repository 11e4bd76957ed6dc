"""Looks for requests to cancel jobs that this worker runs (``wire/write/cancelling.py``)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping

from qctl.connection.address import Client
from qctl.errors import QctlError, is_outage
from qctl.runtime.handlers.tasks import TaskSpec
from qctl.runtime.job.job import Job
from qctl.runtime.loop.engine import Engine
from qctl.wire.write import cancelling


class CancelRequests:
    """Reads the requests, about once a second while the worker runs jobs, and answers them.

    An idle worker sends nothing. The methods run in the thread that renews locks, so requests are
    answered even while code blocks the event loop.

    Args:
        tasks: the worker's handlers by job name; the key None is for every other name.
        cancel: called on the event loop with the job and the reason.
    """

    def __init__(
        self,
        engine: Engine,
        tasks: Mapping[str | None, TaskSpec],
        cancel: Callable[[Job, str], None],
    ) -> None:
        self._keys = engine.keys
        self._in_hand = engine.in_hand
        self._log = engine.log
        self._loop = asyncio.get_running_loop()
        self._tasks = tasks
        self._cancel = cancel
        self._looked_at = 0.0
        self._is_allowed = True

    def look(self, client: Client) -> None:
        """Answer the requests, unless the last look was a moment ago."""
        now = time.monotonic()
        if not self._in_hand or not self._is_allowed or now - self._looked_at < cancelling.LOOK_S:
            return
        self._looked_at = now
        try:
            for request in cancelling.read_requests(client, self._keys):
                job = self._in_hand.get(request.job_id)
                if job is not None and job.token == request.token:
                    self._answer(client, request, job)
        except QctlError as error:
            # During an outage, the renewal of locks logs the error.
            if not is_outage(error):
                self._is_allowed = False
                self._log.warning(
                    "jobs of this worker cannot be cancelled from outside", why=error.why
                )

    def _answer(self, client: Client, request: cancelling.Request, job: Job) -> None:
        task = self._tasks.get(job.name) or self._tasks.get(None)
        if task is not None and task.kind == "thread":
            cancelling.answer(client, self._keys, request, cancelling.IN_THREAD)
        elif cancelling.answer(client, self._keys, request, cancelling.CANCELLING):
            self._log.info("cancelling a job", job=job.id, name=job.name, why=request.reason)
            # A RuntimeError: the event loop is closed.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._cancel, job, request.reason)
