"""Writes heartbeats to Redis: the states of this process's workers, for other commands.

A thread of its own writes the heartbeats, so they go on while a worker's event loop is blocked.
Such a worker is not dead: another thread still renews its locks.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import QctlError
from qctl.runtime.api.worker import Worker
from qctl.runtime.logs import Log
from qctl.wire.read import heartbeats  # ``beat`` and ``end`` write them
from qctl.wire.read.heartbeats import Heartbeat


def rss_bytes() -> int:
    """Resident memory of this process."""
    import psutil  # noqa: PLC0415 - 30 ms, only for a process with workers

    return int(psutil.Process().memory_info().rss)


class HeartbeatSender(threading.Thread):
    """Writes the heartbeats of workers until it is stopped.

    Args:
        workers: started workers, each with the URL of its Redis.
        target: the target to which this process belongs, e.g. ``qctl:emails``; "" for none.
    """

    def __init__(self, workers: Sequence[tuple[Worker, str]], target: str) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._workers = workers
        self._target = target
        self._started_ms = int(time.time() * 1000)
        self._wake = threading.Event()
        self._is_ending = False
        self._clients: dict[str, Client] = {}
        self._has_warned = False
        self._log = Log("worker")

    def send_now(self) -> None:
        """Write heartbeats at once, because a worker's state has changed."""
        self._wake.set()

    def stop(self, timeout_s: float = 1.0) -> None:
        """Make the thread remove the heartbeats and end. Wait at most ``timeout_s`` for its end."""
        self._is_ending = True
        self._wake.set()
        self.join(timeout_s)

    def run(self) -> None:
        while not self._is_ending:
            self._send(lambda client, row: heartbeats.beat(client, row, int(time.time() * 1000)))
            self._wake.wait(heartbeats.BEAT_S)
            self._wake.clear()
        self._send(lambda client, row: heartbeats.end(client, row.prefix, row.owner))
        for client in self._clients.values():
            client.close()

    def _send(self, send_one: Callable[[Client, Heartbeat], None]) -> None:
        """Call ``send_one`` for each worker. Log an error only if the previous call had none."""
        rss, why = rss_bytes(), ""
        for worker, url in self._workers:
            try:
                if url not in self._clients:
                    self._clients[url] = connect(url)[1]
                send_one(self._clients[url], self._row(worker, rss))
            except QctlError as error:
                why = error.why or error.what
        if why and not self._has_warned:
            self._log.warning(
                "a heartbeat could not be written, so `qctl workers` may be out of date", why=why
            )
        self._has_warned = bool(why)

    def _row(self, worker: Worker, rss: int) -> Heartbeat:
        state = worker.state()
        return Heartbeat(
            owner=state.owner,
            host=socket.gethostname(),
            pid=os.getpid(),
            target=self._target,
            prefix=state.prefix,
            queue=state.queue,
            name=state.name,
            started_ms=self._started_ms,
            concurrency=state.concurrency,
            busy=state.busy,
            quiet=state.quiet,
            completed=state.completed,
            failed=state.failed,
            rss_bytes=rss,
        )
