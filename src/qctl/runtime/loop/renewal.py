"""Renews locks and looks for cancelled jobs, from a thread with its own connection.

Jobs keep their locks even while the app blocks the event loop, unless the blocking code also holds
Python's global interpreter lock. The thread logs which job blocks the event loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping

from qctl.connection.address import Client
from qctl.errors import QctlError
from qctl.runtime.handlers.tasks import TaskSpec
from qctl.runtime.job.job import Job
from qctl.runtime.loop.cancelling import CancelRequests
from qctl.runtime.loop.engine import Engine
from qctl.wire import scripts
from qctl.wire.write import worker_calls

# The longest pause between two checks for locks to renew.
MAX_PAUSE_S = 0.5


class Renewer(threading.Thread):
    """Renews the locks of an engine's jobs.

    Args:
        client: used only by this thread, which closes the client at its end.
        tasks, cancel: see ``CancelRequests``.
    """

    def __init__(
        self,
        engine: Engine,
        client: Client,
        tasks: Mapping[str | None, TaskSpec],
        cancel: Callable[[Job, str], None],
    ) -> None:
        super().__init__(name=f"renew {engine.keys.name}", daemon=True)
        self._engine = engine
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._requests = CancelRequests(engine, tasks, cancel)
        self._stop_wanted = threading.Event()
        # Renew a lock after a quarter of its time (wire format 7.4). Check at least twice as often.
        self._renew_after_s = engine.options.lock_ttl_s / 4
        self._pause_s = min(MAX_PAUSE_S, self._renew_after_s / 2)
        self._beat_at = time.monotonic()
        self._has_warned = False
        self._is_failing = False

    def stop(self) -> None:
        """Tell the thread to end, without waiting for the end of its last call."""
        self._stop_wanted.set()

    def run(self) -> None:
        while not self._stop_wanted.wait(self._pause_s):
            self._watch_loop()
            try:
                self._renew()
                self._requests.look(self._client)
            except QctlError as error:
                if not self._is_failing:
                    self._engine.log.error("locks cannot be renewed", why=error.why or error.what)
                self._is_failing = True
            else:
                self._is_failing = False
        self._client.close()

    def _renew(self) -> None:
        engine = self._engine
        now = time.monotonic()
        # ``list`` copies the jobs atomically: the event loop cannot change ``in_hand`` meanwhile.
        jobs = list(engine.in_hand.values())
        lock_ms = round(engine.options.lock_ttl_s * 1000)
        due = [job for job in jobs if now - job.renewed_at >= self._renew_after_s]
        for start in range(0, len(due), worker_calls.MAX_BATCH):
            chunk = due[start : start + worker_calls.MAX_BATCH]
            answers = scripts.run_all(
                self._client,
                [worker_calls.renew(engine.keys, lock_ms, job.id, job.token) for job in chunk],
            )
            held = [job.id for job, answer in zip(chunk, answers, strict=True) if answer]
            if held:
                # Otherwise the next stalled check would take these jobs for stalled.
                self._client.call(*worker_calls.forget_marks(engine.keys, held))
            for job, is_held in zip(chunk, answers, strict=True):
                job.renewed_at = now
                # A settled job has no lock, and a job that is ending may have just been settled.
                if not is_held and not job.lost_lock and not job.is_ending:
                    job.lost_lock = True
                    engine.log.error(
                        "lock lost: another worker may run the job now", job=job.id, name=job.name
                    )

    def _watch_loop(self) -> None:
        def beat() -> None:
            self._beat_at = time.monotonic()

        blocked_s = time.monotonic() - self._beat_at
        if blocked_s < self._engine.options.blocked_after_s:
            self._has_warned = False
        elif not self._has_warned:
            self._has_warned = True
            task = asyncio.current_task(self._loop)
            jobs = [job for job in list(self._engine.in_hand.values()) if job.task is task]
            fields = {"job": jobs[0].id, "name": jobs[0].name} if jobs and task else {}
            self._engine.log.warning(
                "the event loop is blocked", for_s=round(blocked_s, 1), **fields
            )
        try:
            self._loop.call_soon_threadsafe(beat)
        except RuntimeError:
            # The event loop is closed.
            self._stop_wanted.set()
