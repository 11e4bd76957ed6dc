"""A child process, which runs workers for a master: ``python -m qctl.runtime.processes.child``.

Each child is a fresh interpreter, with the app's code as it is when the child starts. When the
master dies, its channel to the child closes, and the child stops.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import traceback
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NoReturn

from qctl.errors import ExitStatus, QctlError, is_outage
from qctl.runtime import logs
from qctl.runtime.api.state import WorkerState
from qctl.runtime.api.worker import Worker
from qctl.runtime.processes.app import load_workers
from qctl.runtime.processes.heartbeat import HeartbeatSender, rss_bytes
from qctl.runtime.processes.messages import (
    ORDERS_VARIABLE,
    STATE_EVERY_S,
    ChildState,
    Orders,
    WorkerIdentity,
    decode,
    encode,
    from_row,
)
from qctl.runtime.processes.reload import FileWatch

# If a child still runs this many seconds after the end of its grace, it is stuck: it ends itself.
STUCK_S = 10.0
# A worker with room fetches every ``drain_delay_s``. While a delayed job waits, the worker fetches
# when that job is due, but after 10 s at the latest. The worker is late if no fetch has succeeded
# for three times ``drain_delay_s`` plus this time.
LATE_S = 10.0
_READY_POLL_S = 0.01


def main() -> NoReturn:
    """Read the orders from the environment, run their workers, and end the process."""
    orders = from_row(Orders, json.loads(os.environ.pop(ORDERS_VARIABLE)))
    # There is nothing to clean up yet: Ctrl-C may end the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    channel = socket.socket(fileno=orders.channel)
    # Processes that the app starts must not keep the channel open.
    channel.set_inheritable(False)
    os.set_inheritable(orders.stderr, False)
    logs.configure(orders.log_format, orders.log_level)
    code = 1
    try:
        workers = load_workers(orders.apps)
        logs.share_with_app()
        asyncio.run(Child(orders, channel, workers).run())
        code = 0
    except QctlError as error:
        reason = "unreachable" if is_outage(error) else "error"
        if error.exit_status == ExitStatus.USAGE:
            reason = "usage"
        # Not printed, because the master reports it.
        texts = {"what": error.what, "why": error.why, "hint": error.hint}
        _send(channel, encode("failed", reason=reason, **texts))
    except BaseException:
        traceback.print_exc()
        _send(channel, encode("failed", reason="error"))
    _exit(code)


def _exit(code: int) -> NoReturn:
    """End the process, even if a thread or an exit function hangs."""
    deadline = threading.Timer(STUCK_S, os._exit, (code,))
    deadline.daemon = True
    deadline.start()
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def _send(channel: socket.socket, message: bytes) -> None:
    # If the master is gone, ``Child._read_messages`` notices it.
    with contextlib.suppress(OSError):
        channel.sendall(message)


class Child:
    """Runs the workers of this process for its master."""

    def __init__(self, orders: Orders, channel: socket.socket, workers: Sequence[Worker]) -> None:
        self._orders = orders
        self._channel = channel
        self._workers = workers
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        self._heartbeats: HeartbeatSender | None = None
        self._grace_s = orders.grace_s
        # Only the child in slot 0 watches files, since all children have the same files. The watch
        # begins now, so that a change during the start counts.
        self._file_watch = FileWatch() if orders.reload and orders.slot == 0 else None

    async def run(self) -> None:
        """Run the workers until the child must stop, and end the process."""
        self._loop = asyncio.get_running_loop()
        # Signals may reach the whole process group. SIGHUP and a second SIGTERM do nothing here.
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        self._loop.add_signal_handler(signal.SIGHUP, lambda: None)
        threading.Thread(target=self._read_messages, name="channel", daemon=True).start()
        await self._start()
        reporting = self._loop.create_task(self._report_states())
        await self._stop.wait()
        # The master logs how many jobs are in hand, and the last state that it has may be a second
        # old.
        self._send_state()
        _send(self._channel, encode("leaving"))
        if self._heartbeats is not None:
            # The workers begin to stop below. Soon after, a heartbeat shows that they are stopping.
            self._loop.call_later(0.1, self._heartbeats.send_now)
        if self._grace_s:
            self._end_after(self._grace_s + STUCK_S)
        await asyncio.gather(*(worker.stop(self._grace_s) for worker in self._workers))
        reporting.cancel()
        if self._heartbeats is not None:
            await asyncio.to_thread(self._heartbeats.stop)
        # Exit code 1: Redis was away when this child tried to put back its jobs, so the master must
        # put them back.
        is_clean = not any(worker.state().busy for worker in self._workers)
        # Exit here: the end of ``asyncio.run`` would wait for threads.
        _exit(0 if is_clean else 1)

    async def _start(self) -> None:
        identities = []
        for worker in self._workers:
            settings = worker.settings()
            max_stalled = worker.options.max_stalled_count
            owner = str(uuid.uuid4())
            identities.append(
                WorkerIdentity(
                    owner,
                    settings.prefix_of(worker.queue),
                    worker.queue,
                    settings.full_url(),
                    max_stalled,
                )
            )
        # Sent before a worker can fetch a job, so that the master can put back every job.
        _send(self._channel, encode("workers", held=[asdict(row) for row in identities]))
        await self._start_all([row.owner for row in identities])
        # The child is ready when each worker has had a successful fetch.
        while any(worker.state().since_fetch_s is None for worker in self._workers):
            if self._stop.is_set():
                return
            await asyncio.sleep(_READY_POLL_S)
        urls = [row.redis_url for row in identities]
        name = self._orders.name
        self._heartbeats = HeartbeatSender(
            list(zip(self._workers, urls, strict=True)), f"qctl:{name}" if name else ""
        )
        self._heartbeats.start()
        # The start has succeeded: the master no longer needs our stderr to explain a failure.
        sys.stderr.flush()
        os.dup2(self._orders.stderr, 2)
        self._send_state()
        _send(self._channel, encode("ready"))

    async def _start_all(self, owners: Sequence[str]) -> None:
        started: list[Worker] = []
        try:
            for worker, owner in zip(self._workers, owners, strict=True):
                await worker.start(owner=owner)
                started.append(worker)
        except BaseException:
            # Workers that have started may have jobs: let them give these back.
            for worker in started:
                worker.hurry()
            await asyncio.gather(*(worker.stop() for worker in started), return_exceptions=True)
            raise

    async def _report_states(self) -> None:
        while True:
            await asyncio.sleep(STATE_EVERY_S)
            self._send_state()
            if self._file_watch is not None and (changed := self._file_watch.changed()):
                _send(self._channel, encode("changed", files=changed))

    def _send_state(self) -> None:
        states = [worker.state() for worker in self._workers]
        late = (
            state.queue
            for state, worker in zip(states, self._workers, strict=True)
            if is_late(state, worker.options.drain_delay_s)
        )
        state = ChildState(
            busy=sum(state.busy for state in states),
            done=sum(state.completed + state.failed for state in states),
            rss_bytes=rss_bytes(),
            late=next(late, ""),
        )
        _send(self._channel, encode("state", **asdict(state)))

    def _read_messages(self) -> None:
        """Read the master's messages in a thread, since the event loop may be blocked."""
        call: Any = self._loop.call_soon_threadsafe
        with contextlib.suppress(OSError, RuntimeError), self._channel.makefile("rb") as messages:
            for data in messages:
                message = decode(data)
                kind = message.get("kind")
                if kind in {"stop", "hurry"}:
                    call(self._begin_stop, bool(message.get("for_ever")))
                if kind == "hurry":
                    self._end_after(STUCK_S)
                    for worker in self._workers:
                        call(worker.hurry)
        # The master is gone.
        with contextlib.suppress(RuntimeError):
            call(self._begin_stop, False)
        if self._orders.grace_s:
            self._end_after(self._orders.grace_s + STUCK_S)

    def _begin_stop(self, for_ever: bool) -> None:
        """Begin to stop.

        Args:
            for_ever: whether the jobs may take as long as they need, since this process is being
                replaced. If the master stops later, a second call limits the jobs to the grace.
        """
        if not self._stop.is_set():
            self._grace_s = 0.0 if for_ever else self._orders.grace_s
            self._stop.set()
        elif not for_ever and not self._grace_s and self._orders.grace_s:
            self._grace_s = self._orders.grace_s
            self._end_after(self._grace_s + STUCK_S)
            for worker in self._workers:
                self._loop.call_later(self._grace_s, worker.hurry)

    def _end_after(self, seconds: float) -> None:
        """End the process after ``seconds``, by a thread, since the event loop may be blocked."""
        timer = threading.Timer(seconds, os._exit, (1,))
        timer.daemon = True
        timer.start()


def is_late(state: WorkerState, drain_delay_s: float) -> bool:
    """Whether a fetch is overdue; False if the worker is stopping, full or rate limited."""
    if state.quiet or state.limited or state.busy >= state.concurrency:
        return False
    return state.since_fetch_s is None or state.since_fetch_s > 3 * drain_delay_s + LATE_S


if __name__ == "__main__":
    main()
