"""Threads for handlers that block.

Why not ``concurrent.futures``: a function in a thread cannot be stopped. A function that hangs
would occupy a thread of the pool for ever. Later jobs would wait or time out without having run,
and the interpreter would not exit. Here every call gets a thread at once (the worker's concurrency
limits the number of calls), and the interpreter does not wait for a thread that hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
# Passes calls to a thread, each with the future for the result. None ends the thread.
_Box = queue.SimpleQueue[tuple[Callable[[], Any], "asyncio.Future[Any]"] | None]


class Threads:
    """Runs blocking calls beside the event loop. When a call ends, its thread can run another."""

    def __init__(self, name: str) -> None:
        self._names = (f"{name}_{number}" for number in itertools.count())
        # The boxes of idle threads. Threads append to the deque, which is thread-safe.
        self._idle: deque[_Box] = deque()
        self._is_closed = False

    def run(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Start a call. Cancelling the future does not stop the call."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            box = self._idle.pop()
        except IndexError:
            box = queue.SimpleQueue()
            name = next(self._names)
            threading.Thread(target=self._work, args=(box,), name=name, daemon=True).start()
        box.put((call, future))
        return future

    def close(self) -> None:
        """End the idle threads now, and each busy thread after its call."""
        self._is_closed = True
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().put(None)

    def _work(self, box: _Box) -> None:
        while (item := box.get()) is not None:
            call, future = item
            result: Any = None
            error: BaseException | None = None
            try:
                result = call()
            except StopIteration as stop:
                # A future refuses a StopIteration.
                error = RuntimeError("the function raised StopIteration")
                error.__cause__ = stop
            except BaseException as raised:
                error = raised
            self._idle.append(box)
            # The event loop may be closed.
            with contextlib.suppress(RuntimeError):
                future.get_loop().call_soon_threadsafe(_deliver, future, result, error)
            del call, future, item, result, error  # an idle thread keeps no object alive
            if self._is_closed:
                self.close()


def _deliver(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
