"""qctl workers for tests, each on an event loop in its own thread, driven by its jobs' data."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from qctl import Job, RetryLater, UnrecoverableError, WaitForChildren, Worker
from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.runtime.loop.renewal import RenewalThread

Starter = Callable[..., "PyWorker"]


class PyWorker:
    """A worker of queue ``q`` that runs until it is stopped.

    Args:
        worker: with its tasks.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._is_over = False
        self.wait(worker.start())

    def wait(self, coroutine: Coroutine[Any, Any, Any], timeout_s: float = 20.0) -> Any:
        """Run something on the worker's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_s)

    def call(self, do: Callable[[], Any]) -> None:
        """Call something on the worker's loop."""
        self._loop.call_soon_threadsafe(do)

    def stop(self, grace_s: float = 10.0) -> None:
        """Stop as a signal would."""
        if not self._is_over:
            self._is_over = True
            try:
                self.wait(self.worker.stop(grace_s), grace_s + 10)
            finally:
                self._end_loop()

    def abandon(self) -> None:
        """Be gone without a word, as after kill -9: nothing is settled, nothing renewed."""
        self._is_over = True
        self.wait(self.worker._resources.aclose())
        for thread in threading.enumerate():
            if isinstance(thread, RenewalThread) and thread._loop is self._loop:
                # Its last call may still be on its way.
                thread.join(5)
        self._end_loop()

    def _end_loop(self) -> None:
        async def cancel_all() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self.wait(cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


def scripted(rows: Client, who: str = "qctl") -> Callable[[Job], Coroutine[Any, Any, Any]]:
    """A handler that does what processor.js does, with the same rows in ``runs:<queue>``."""

    def record(job: Job, ev: str) -> None:
        row = {
            "id": job.id, "name": job.name, "worker": who, "ats": job.attempts_started,
            "atm": job.attempts_made, "ev": ev, "at": int(time.time() * 1000),
        }  # fmt: skip
        rows.call("RPUSH", f"runs:{job.queue}", json.dumps(row))

    async def handler(job: Job) -> Any:
        data = job.data if isinstance(job.data, dict) else {}
        record(job, "start")
        for step, value in data.get("steps", []):
            await _do(job, step, value)
        if data.get("block_ms"):
            time.sleep(data["block_ms"] / 1000)
        if data.get("ms"):
            await asyncio.sleep(data["ms"] / 1000)
        if job.attempts_made < data.get("fail_times", 0):
            record(job, "fail")
            text = data.get("message", f"attempt {job.attempts_made + 1} failed on purpose")
            raise RuntimeError(text)
        record(job, "end")
        return data.get("returns")

    return handler


async def _do(job: Job, step: str, value: Any) -> None:
    match step:
        case "sleep":
            await asyncio.sleep(value / 1000)
        case "progress":
            await job.update_progress(value)
        case "log":
            await job.log(value)
        case "data":
            await job.update_data(value)
        case "unrecoverable":
            raise UnrecoverableError(value)
        case "later":
            if job.attempts_started == 1:
                raise RetryLater(**value)
        case "await_children":
            if not await job.children_values():
                raise WaitForChildren
        case _:
            raise AssertionError(step)


@pytest.fixture
def py_worker(redis_url: str) -> Iterator[Starter]:
    """Starts workers: ``py_worker(concurrency=2)``, or with a handler of its own as the first."""
    started: list[PyWorker] = []
    clients: list[Client] = []

    def start(
        handler: Any = None, *, queue: str = "q", task: dict[str, Any] | None = None, **options: Any
    ) -> PyWorker:
        url = options.pop("redis_url", redis_url)
        worker = Worker(queue, redis_url=url, **options)
        if handler is None:
            clients.append(connect(url)[1])
            handler = scripted(clients[-1], options.get("name", "qctl"))
        worker.task(**(task or {}))(handler)
        started.append(PyWorker(worker))
        return started[-1]

    yield start
    for each in started:
        each.stop(5)
    for client in clients:
        client.close()
