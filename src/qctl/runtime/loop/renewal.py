"""Renews locks and answers requests to cancel jobs, in one thread for all workers of one Redis.

Jobs keep their locks even while the app blocks the event loop, unless the blocking code also holds
Python's global interpreter lock. The thread logs which job blocks the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping

from qctl.connection.address import Client
from qctl.errors import QctlError, UnreachableError
from qctl.runtime.handlers.tasks import TaskSpec
from qctl.runtime.job.job import Job
from qctl.runtime.loop.cancelling import CancelRequests
from qctl.runtime.loop.engine import Engine
from qctl.wire import scripts
from qctl.wire.write import worker_calls

# The longest pause between two checks for locks to renew.
MAX_PAUSE_S = 0.5


class Renewal:
    """Renews the locks of an engine's jobs.

    Args:
        client: only the thread uses and closes it. One client may serve all engines of the thread.
        tasks, cancel: see ``CancelRequests``.
    """

    def __init__(
        self,
        engine: Engine,
        client: Client,
        tasks: Mapping[str | None, TaskSpec],
        cancel: Callable[[Job, str], None],
    ) -> None:
        self.engine = engine
        self.client = client
        self._requests = CancelRequests(engine, tasks, cancel)
        # Renew a lock after a quarter of its time (wire format 7.4). Check at least twice as often.
        self._renew_after_s = engine.options.lock_ttl_s / 4
        self.pause_s = min(MAX_PAUSE_S, self._renew_after_s / 2)
        self._is_failing = False
        self._thread: RenewalThread

    def start(self) -> None:
        """Begin to renew. All engines of the same Redis and the same event loop share one thread.

        Raises:
            RuntimeError: the system allows no more threads. The client is closed.
        """
        loop, address = asyncio.get_running_loop(), self.engine.connection.address
        # The queues of a cluster may be on different servers, so each has a thread of its own.
        redis = self.engine.keys("") if address.mode == "cluster" else ""
        key = (loop, address.url, redis)
        with _guard:
            thread = _threads.get(key)
            if thread is None:
                thread = RenewalThread(key)
                thread.renewals.append(self)
                try:
                    thread.start()
                except RuntimeError:
                    self.client.close()
                    raise
                _threads[key] = thread
            else:
                thread.renewals.append(self)
                thread.changed.set()
            self._thread = thread

    def stop(self) -> None:
        """Renew no more. Does not wait for the end of the thread's last call."""
        with _guard:
            if self in self._thread.renewals:
                self._thread.renewals.remove(self)
                self._thread.ended.append(self)
        self._thread.changed.set()

    def check(self, client: Client) -> None:
        """Renew the locks that are due, and answer requests to cancel jobs; log what fails.

        Any error other than ``UnreachableError`` is only logged, because the thread must go on for
        the other workers.

        Raises:
            UnreachableError: Redis is away.
        """
        try:
            self._renew(client)
            self._requests.look(client)
            self._is_failing = False
        except QctlError as error:
            if not self._fails_again():
                self.engine.log.error("locks cannot be renewed", why=error.why or error.what)
            if isinstance(error, UnreachableError):
                raise
            self.note_expired()
        except Exception as error:
            # Some replies may be unread. The next worker would take them for replies to its own
            # commands.
            client.close()
            if not self._fails_again():
                self.engine.log.with_traceback(
                    logging.ERROR, "renewing locks failed unexpectedly", error
                )

    def _fails_again(self) -> bool:
        """Note that this check failed; return whether the check before it failed, too."""
        before, self._is_failing = self._is_failing, True
        return before

    def note_expired(self) -> None:
        """Mark the jobs whose locks have expired, unless a renewal arrived without its reply."""
        engine = self.engine
        oldest = time.monotonic() - engine.options.lock_ttl_s
        for job in list(engine.in_hand.values()):
            if job.renewed_at < oldest and not job.lost_lock:
                job.lost_lock = True
                engine.log.error(
                    "lock not renewed in time: another worker may run the job now",
                    job=job.id, name=job.name,
                )  # fmt: skip

    def _renew(self, client: Client) -> None:
        engine = self.engine
        now = time.monotonic()
        # ``list`` copies the jobs atomically: the event loop cannot change ``in_hand`` meanwhile.
        jobs = list(engine.in_hand.values())
        lock_ms = round(engine.options.lock_ttl_s * 1000)
        due = [job for job in jobs if now - job.renewed_at >= self._renew_after_s]
        for start in range(0, len(due), worker_calls.MAX_BATCH):
            chunk = due[start : start + worker_calls.MAX_BATCH]
            answers = scripts.run_all(
                client,
                [worker_calls.renew(engine.keys, lock_ms, job.id, job.token) for job in chunk],
            )
            held = [job.id for job, answer in zip(chunk, answers, strict=True) if answer]
            if held:
                # Otherwise the next stalled check would take these jobs for stalled.
                client.call(*worker_calls.forget_marks(engine.keys, held))
            for job, is_held in zip(chunk, answers, strict=True):
                job.renewed_at = now
                if is_held:
                    # A renewal whose reply was lost had arrived, see ``note_expired``.
                    job.lost_lock = False
                # A settled job has no lock, and a job that is ending may have just been settled.
                if not is_held and not job.lost_lock and not job.is_ending:
                    job.lost_lock = True
                    engine.log.error(
                        "lock lost: another worker may run the job now", job=job.id, name=job.name
                    )


# An event loop, the URL of a Redis, and the key prefix of a queue ("" without a cluster).
Key = tuple[asyncio.AbstractEventLoop, str, str]


class RenewalThread(threading.Thread):
    """Checks the renewals of one Redis on one event loop, until the last one has stopped.

    Attributes:
        renewals: the renewals to check. ``_guard`` guards this list and the next.
        ended: renewals whose clients must be closed.
        changed: set when one of these lists has changed.
    """

    def __init__(self, key: Key) -> None:
        super().__init__(name="renew locks", daemon=True)
        self._key = key
        self._loop = key[0]
        self.renewals: list[Renewal] = []
        self.ended: list[Renewal] = []
        self.changed = threading.Event()
        # When the event loop was asked for a sign of life that it has not given; None if it has.
        self._asked_at: float | None = None
        self._has_warned = False

    def run(self) -> None:
        while renewals := self._next_renewals():
            if self.changed.wait(min(renewal.pause_s for renewal in renewals)):
                self.changed.clear()
                continue
            # An error can only come from the app's logging. It does not come again in the next
            # turn, because a failure that continues is logged only once.
            with contextlib.suppress(Exception):
                self._watch_loop(renewals)
                self._check(renewals)

    def _check(self, renewals: list[Renewal]) -> None:
        try:
            for renewal in renewals:
                renewal.check(renewals[0].client)
        except UnreachableError:
            # The other renewals would have to wait for the same Redis.
            for renewal in renewals:
                renewal.note_expired()

    def _next_renewals(self) -> list[Renewal]:
        """Close the clients of ended renewals, and return the others; [] ends the thread."""
        with _guard:
            ended, self.ended = self.ended, []
            renewals = self.renewals[:]
            if not renewals:
                del _threads[self._key]
        for renewal in ended:
            with contextlib.suppress(Exception):
                renewal.client.close()
        return renewals

    def _watch_loop(self, renewals: list[Renewal]) -> None:
        def answer() -> None:
            self._asked_at = None

        # Not the time since the last answer: this thread may have waited for Redis since then.
        asked_at, now = self._asked_at, time.monotonic()
        blocked_s = 0.0 if asked_at is None else now - asked_at
        if blocked_s < min(renewal.engine.options.blocked_after_s for renewal in renewals):
            self._has_warned = False
        elif not self._has_warned:
            self._has_warned = True
            self._warn(renewals, blocked_s)
        if asked_at is None:
            self._asked_at = now
        try:
            self._loop.call_soon_threadsafe(answer)
        except RuntimeError:
            # The event loop is closed.
            for renewal in renewals:
                renewal.stop()

    def _warn(self, renewals: list[Renewal], blocked_s: float) -> None:
        task = asyncio.current_task(self._loop)
        engine, fields = renewals[0].engine, {}
        for renewal in renewals:
            for job in list(renewal.engine.in_hand.values()):
                if task and job.task is task:
                    engine, fields = renewal.engine, {"job": job.id, "name": job.name}
        engine.log.warning("the event loop is blocked", for_s=round(blocked_s, 1), **fields)


_guard = threading.Lock()
_threads: dict[Key, RenewalThread] = {}


def _forget_threads() -> None:
    """Begin anew in a forked child, which has no threads.

    A thread of the parent process may have held the lock during the fork.
    """
    global _guard  # noqa: PLW0603 - a lock cannot be reset
    _guard = threading.Lock()
    _threads.clear()


os.register_at_fork(after_in_child=_forget_threads)
