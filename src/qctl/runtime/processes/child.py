"""One process with workers, started by a master: ``python -m qctl.runtime.processes.child``.

A fresh interpreter each time, so that it has the code of now. Without its master it stops: the end
of the channel counts as an order to stop.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
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

from qctl.errors import QctlError, is_outage
from qctl.runtime import logs
from qctl.runtime.api.worker import Worker, WorkerState
from qctl.runtime.processes.app import load_workers
from qctl.runtime.processes.heartbeat import Heart, rss_bytes
from qctl.runtime.processes.messages import (
    ORDERS_VARIABLE,
    STATE_EVERY_S,
    ChildState,
    Held,
    Orders,
    line,
    parse,
)
from qctl.runtime.processes.reload import FileWatch

# A child that still lives so long after the end of its grace is stuck, and ends itself.
STUCK_S = 10.0
# Fetches come at least this often where there is room: the longest wait for a marker, and a margin.
LATE_S = 10.0
_READY_POLL_S = 0.01


def main() -> NoReturn:
    """Run the workers that the orders in the environment name; ends the process."""
    orders = Orders.from_json(os.environ.pop(ORDERS_VARIABLE))
    # Until there is something to put in order, a signal may just end it, without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    channel = socket.socket(fileno=orders.channel)
    # What the app starts must not keep the line to the master open.
    channel.set_inheritable(False)
    os.set_inheritable(orders.stderr, False)
    logs.configure(orders.log_format)
    code = 1
    try:
        workers = load_workers(orders.apps)
        asyncio.run(Child(orders, channel, workers).live())
        code = 0
    except QctlError as error:
        words = [f"error: {error.what}", *filter(None, (error.why, error.hint))]
        print(*words, sep="\n", file=sys.stderr)  # noqa: T201 - the master listens
        is_away = is_outage(error)
        kind = "unreachable" if is_away else "error"
        _say(channel, line("failed", reason=kind))
    except BaseException:
        traceback.print_exc()
        _say(channel, line("failed", reason="error"))
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End at once: a function that hangs in a thread must not hold the process."""
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


def _say(channel: socket.socket, message: bytes) -> None:
    # A master that is gone is noticed by the listener.
    with contextlib.suppress(OSError):
        channel.sendall(message)


class Child:
    """The life of a child.

    Args:
        channel: to the master.
        workers: not yet started.
    """

    def __init__(self, orders: Orders, channel: socket.socket, workers: Sequence[Worker]) -> None:
        self._orders = orders
        self._channel = channel
        self._workers = workers
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        self._heart: Heart | None = None
        self._grace_s = orders.grace_s

    async def live(self) -> None:
        """Start the workers, serve until told to stop, stop."""
        self._loop = asyncio.get_running_loop()
        # Signals may come to the whole group of processes; only the master can tell a second one.
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        self._loop.add_signal_handler(signal.SIGHUP, lambda: None)
        threading.Thread(target=self._listen, name="channel", daemon=True).start()
        await self._start()
        telling = self._loop.create_task(self._tell_states())
        await self._stop.wait()
        # What is in hand now: the master says so, and its last news may be a second old.
        self._say_state()
        _say(self._channel, line("leaving"))
        if self._heart is not None:
            self._loop.call_later(0.1, self._heart.beat_now)
        if self._grace_s:
            self._end_after(self._grace_s + STUCK_S)
        await asyncio.gather(*(worker.stop(self._grace_s) for worker in self._workers))
        telling.cancel()
        if self._heart is not None:
            await asyncio.to_thread(self._heart.stop)
        # What Redis did not take back while it was away is left to the master.
        is_clean = not any(worker.state().busy for worker in self._workers)
        # Here, since the loop's own end waits for threads.
        _leave(0 if is_clean else 1)

    async def _start(self) -> None:
        held = []
        for worker in self._workers:
            settings = worker.settings()
            most = worker.options.max_stalled_count
            owner = str(uuid.uuid4())
            held.append(Held(owner, settings.prefix, worker.queue, settings.full_url(), most))
        # Before the first job can be fetched.
        _say(self._channel, line("workers", held=[asdict(row) for row in held]))
        await self._start_all([row.owner for row in held])
        while any(worker.state().since_fetch_s is None for worker in self._workers):
            if self._stop.is_set():
                return
            await asyncio.sleep(_READY_POLL_S)
        urls = [row.redis_url for row in held]
        self._heart = Heart(list(zip(self._workers, urls, strict=True)), self._orders.process)
        self._heart.start()
        # The master has listened to find out why a start fails; from here on it is not needed.
        sys.stderr.flush()
        os.dup2(self._orders.stderr, 2)
        self._say_state()
        _say(self._channel, line("ready"))

    async def _start_all(self, owners: Sequence[str]) -> None:
        started: list[Worker] = []
        try:
            for worker, owner in zip(self._workers, owners, strict=True):
                await worker.start(owner=owner)
                started.append(worker)
        except BaseException:
            # The others may have jobs by now.
            for worker in started:
                worker.hurry()
            await asyncio.gather(*(worker.stop() for worker in started), return_exceptions=True)
            raise

    async def _tell_states(self) -> None:
        files = FileWatch() if self._orders.watch else None
        while True:
            await asyncio.sleep(STATE_EVERY_S)
            self._say_state()
            if files is not None and (changed := files.changed()):
                _say(self._channel, line("changed", files=changed))

    def _say_state(self) -> None:
        states = [worker.state() for worker in self._workers]
        late = [
            state.queue
            for state, worker in zip(states, self._workers, strict=True)
            if is_late(state, worker.options.drain_delay_s)
        ]
        state = ChildState(
            busy=sum(state.busy for state in states),
            done=sum(state.completed + state.failed for state in states),
            rss_bytes=rss_bytes(),
            late=late[0] if late else "",
        )
        _say(self._channel, line("state", **asdict(state)))

    def _listen(self) -> None:
        """What the master says, in a thread: a loop that is blocked must not outlive its master."""
        call: Any = self._loop.call_soon_threadsafe
        with contextlib.suppress(OSError, RuntimeError), self._channel.makefile("rb") as lines:
            for data in lines:
                message = parse(data)
                kind = message.get("kind")
                if kind in {"stop", "hurry"}:
                    call(self._leave, bool(message.get("for_ever")))
                if kind == "hurry":
                    self._end_after(STUCK_S)
                    for worker in self._workers:
                        call(worker.hurry)
        # The master is gone, or has closed the line because we are leaving.
        with contextlib.suppress(RuntimeError):
            call(self._leave, False)
        if self._orders.grace_s:
            self._end_after(self._orders.grace_s + STUCK_S)

    def _leave(self, for_ever: bool) -> None:
        """Begin to stop; or, for one that was replaced and may take its time, that time is over."""
        if not self._stop.is_set():
            self._grace_s = 0.0 if for_ever else self._orders.grace_s
            self._stop.set()
        elif not for_ever and not self._grace_s and self._orders.grace_s:
            self._grace_s = self._orders.grace_s
            self._end_after(self._grace_s + STUCK_S)
            for worker in self._workers:
                self._loop.call_later(self._grace_s, worker.hurry)

    def _end_after(self, seconds: float) -> None:
        timer = threading.Timer(seconds, os._exit, (1,))
        timer.daemon = True
        timer.start()


def is_late(state: WorkerState, drain_delay_s: float) -> bool:
    """Whether a fetch should have succeeded by now. One that is full or limited needs none."""
    if state.quiet or state.limited or state.busy >= state.concurrency:
        return False
    return state.since_fetch_s is None or state.since_fetch_s > 3 * drain_delay_s + LATE_S


if __name__ == "__main__":
    main()
