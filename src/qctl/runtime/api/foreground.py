"""Runs a worker until a signal stops it, in a process that does nothing else."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, Protocol

from qctl.runtime.waiting import wait_first


class Stoppable(Protocol):
    """The part of a ``Worker`` that is needed here."""

    def start(self) -> Coroutine[Any, Any, None]: ...

    def stop(self, grace_s: float) -> Coroutine[Any, Any, None]: ...

    def hurry(self) -> None: ...


async def run_until_signal(worker: Stoppable, grace_s: float) -> None:
    """Start a worker, and stop it at SIGTERM or SIGINT. A second signal ends the grace period.

    Raises:
        QctlError: as for ``Worker.start``.
    """
    stop = asyncio.Event()

    def on_signal() -> None:
        (worker.hurry if stop.is_set() else stop.set)()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    starting = loop.create_task(worker.start())
    await wait_first(asyncio.wait([starting]), stop.wait())
    if not starting.done():
        # The start waits for the worker's lifespan, which may never reach its ``yield``.
        starting.cancel()
        await asyncio.wait([starting])
    if starting.cancelled():
        return
    starting.result()
    await stop.wait()
    await worker.stop(grace_s)
