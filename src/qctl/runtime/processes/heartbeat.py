"""Tells Redis about the workers of this process, from a thread of its own.

A blocked event loop must not make a worker look dead whose locks are still renewed.
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
from qctl.wire.read import heartbeats
from qctl.wire.read.heartbeats import Heartbeat


def rss_bytes() -> int:
    """Memory of this process that is in use, in bytes."""
    import psutil  # noqa: PLC0415 - 30 ms that only a process with workers pays

    return int(psutil.Process().memory_info().rss)


class Heart(threading.Thread):
    """Beats for started workers until it is stopped.

    Args:
        workers: with the URL of the Redis of each.
        process: the target that this process belongs to, e.g. ``qctl:emails``; "" for none.
    """

    def __init__(self, workers: Sequence[tuple[Worker, str]], process: str) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._workers = workers
        self._process = process
        self._started_ms = int(time.time() * 1000)
        self._wake = threading.Event()
        self._is_ending = False
        self._clients: dict[str, Client] = {}
        self._has_told = False
        self._log = Log("worker")

    def beat_now(self) -> None:
        """Something worth telling has changed."""
        self._wake.set()

    def stop(self, timeout_s: float = 1.0) -> None:
        """Take the workers off the list; waits a little for Redis."""
        self._is_ending = True
        self._wake.set()
        self.join(timeout_s)

    def run(self) -> None:
        while not self._is_ending:
            self._each(_beat)
            self._wake.wait(heartbeats.BEAT_S)
            self._wake.clear()
        self._each(_end)
        for client in self._clients.values():
            client.close()

    def _each(self, do: Callable[[Client, Heartbeat], None]) -> None:
        rss = rss_bytes()
        for worker, url in self._workers:
            try:
                if url not in self._clients:
                    self._clients[url] = connect(url)[1]
                do(self._clients[url], self._row(worker, rss))
            except QctlError as error:
                if not self._has_told:
                    self._log.warning(
                        "no heartbeat: `qctl workers` shows less", why=error.why or error.what
                    )
                self._has_told = True
            else:
                self._has_told = False

    def _row(self, worker: Worker, rss: int) -> Heartbeat:
        state = worker.state()
        return Heartbeat(
            owner=state.owner,
            host=socket.gethostname(),
            pid=os.getpid(),
            process=self._process,
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


def _beat(client: Client, row: Heartbeat) -> None:
    heartbeats.beat(client, row, int(time.time() * 1000))


def _end(client: Client, row: Heartbeat) -> None:
    heartbeats.end(client, row.prefix, row.owner)
